"""`nagkit verify`: passes on what was committed, and names what was touched."""

import shutil

import pytest
from click.testing import CliRunner

from nagkit import paths
from nagkit.cli import cli
from nagkit.errors import NagkitError
from nagkit.report import verify

NAMES = ("book/results/table3.csv", "data/presets.yaml", "data/checkpoints/ranking_nb201_0.safetensors")


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A checkout with two exhibits, one preset and one checkpoint."""
    for name in ("book/results/table3.ipynb", *NAMES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(paths.root() / name, tmp_path / name)
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    assert verify.write() == 4
    return tmp_path


def test_the_checkout_is_what_it_was():
    assert list(verify.problems()) == []


@pytest.mark.parametrize("name", NAMES)
def test_one_altered_byte_is_named(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[-2] ^= 1
    (copy / name).write_bytes(content)
    assert f"{name}: its content is not what the manifest says" in list(verify.problems())


def test_missing_and_new_files_are_named(copy):
    (copy / "data/presets.yaml").unlink()
    (copy / "data/other.json").write_text("{}")
    assert list(verify.problems()) == [
        "data/other.json: not in data/manifest.sha256",
        "data/presets.yaml: missing; restore it",
    ]


def test_a_printed_number_that_is_no_row_of_its_csv_is_named(copy):
    notebook = copy / "book/results/table3.ipynb"
    text = notebook.read_text(encoding="utf-8")
    printed = "93.41 ± 0.00 (20)"
    rows = verify.exhibits.read_csv(notebook.with_suffix(".csv"))
    shown = next(cell for cell in map(verify.exhibits.cell, rows.itertuples()) if "±" in cell and cell in text)
    notebook.write_text(text.replace(shown, printed.replace("93.41", "12.34")), encoding="utf-8")
    verify.write()
    assert list(verify.problems()) == ["table3.ipynb: prints '12.34 ± 0.00 (20)', which is no row of table3.csv"]


def test_the_command_fails_with_the_lines_and_writes_on_demand(copy):
    assert CliRunner().invoke(cli, ["verify"]).exit_code == 0
    (copy / "data/presets.yaml").write_text("{}")
    found = CliRunner().invoke(cli, ["verify"])
    assert isinstance(found.exception, NagkitError) and "data/presets.yaml: its content" in found.output
    assert CliRunner().invoke(cli, ["verify", "--write"]).exit_code == 0
    assert CliRunner().invoke(cli, ["verify"]).exit_code == 0


def test_without_a_manifest_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    with pytest.raises(NagkitError, match="no data/manifest.sha256; verify a checkout"):
        list(verify.problems())
