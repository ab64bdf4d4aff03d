"""`nagkit verify`: passes on what was committed, and names what was touched."""

import json
import re
import shutil

import pytest
from click.testing import CliRunner

from nagkit import paths
from nagkit.cli import cli
from nagkit.errors import NagkitError
from nagkit.study import jobs, tidy, verify

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
    assert list(verify.problems(book=False)) == []


@pytest.mark.parametrize("name", NAMES)
def test_one_altered_byte_is_named(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[-2] ^= 1
    (copy / name).write_bytes(content)
    assert f"{name}: its content is not what the manifest says" in list(verify.problems())


def test_every_committed_file_is_watched(tmp_path, monkeypatch):
    listed = [line.split("  ", 1)[1] for line in (paths.root() / verify.MANIFEST).read_text("utf-8").splitlines()]
    for name in (verify.MANIFEST, *listed):
        content = bytearray((paths.root() / name).read_bytes())
        if name != verify.MANIFEST:
            content[len(content) // 2] ^= 1
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for folder in ("data", "book/results"):
        for path in (paths.root() / folder).rglob("*"):
            name = path.relative_to(paths.root()).as_posix()
            assert path.is_dir() or path.suffix == ".md" or name in (verify.MANIFEST, *listed), name
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    named = {line.split(": its content")[0] for line in verify.problems()}
    assert named >= set(listed) and len(listed) > 100


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
    rows = tidy.read_csv(notebook.with_suffix(".csv"))
    shown = next(cell for cell in map(tidy.cell, rows.itertuples()) if "±" in cell and cell in text)
    notebook.write_text(text.replace(shown, printed.replace("93.41", "12.34")), encoding="utf-8")
    verify.write()
    assert list(verify.problems()) == ["table3.ipynb: prints '12.34 ± 0.00 (20)', which is no row of table3.csv"]


@pytest.fixture
def page(copy):
    """The copy's page of table3 as the book prints it: a sentence that has an interval."""
    results = tidy.read_csv(copy / "book/results/table3.csv")
    known = results[(results.origin == "ours") & (results.metric == "mean")].dropna(subset=["lo"]).iloc[0]
    page = copy / verify.BOOK / "results" / "table3.html"
    page.parent.mkdir(parents=True)
    page.write_text(f"<article><p>As found: {tidy.spelled(known)}.</p></article>", encoding="utf-8")
    assert list(verify.problems()) == []
    return page


def test_a_built_page_that_prints_another_number_is_named(page):
    text = page.read_text(encoding="utf-8")
    value = re.search(r"As found: (\S+) ", text)[1]
    page.write_text(text.replace(f"As found: {value}", "As found: 12.34"), encoding="utf-8")
    (line,) = verify.problems()
    assert line.startswith("results/table3.html: prints '12.34 % [") and line.endswith("build the book again")


def test_what_is_here_can_be_taken_for_right_beside_an_older_book(page):
    page.write_text(page.read_text(encoding="utf-8").replace("As found: ", "As found: 1.23 [1.00, 2.00]; "), encoding="utf-8")
    assert CliRunner().invoke(cli, ["verify"]).exit_code == 1
    assert CliRunner().invoke(cli, ["verify", "--write"]).exit_code == 0


def test_the_command_fails_with_the_lines_and_writes_on_demand(copy):
    assert CliRunner().invoke(cli, ["verify"]).exit_code == 0
    (copy / "data/presets.yaml").write_text("{}")
    found = CliRunner().invoke(cli, ["verify"])
    assert isinstance(found.exception, NagkitError) and "data/presets.yaml: its content" in found.output
    assert CliRunner().invoke(cli, ["verify", "--write"]).exit_code == 0
    assert CliRunner().invoke(cli, ["verify"]).exit_code == 0


def test_an_exhibit_of_another_code_than_todays_is_named_and_fails_nothing(copy):
    function = "nagkit.study.measures:mean"
    for name, code in (("today", jobs.digest(function)), ("changed", "0" * 16)):
        record = json.dumps({"profile": "paper", "code": {function: code}})
        (copy / "book" / "results" / f"{name}.provenance.json").write_text(record)
    (copy / "book" / "results" / "old.provenance.json").write_text('{"profile": "paper"}')
    verify.write()
    changed = "changed: stale: computed by another version of the code (measures:mean)"
    assert list(verify.notices()) == [changed, "old: recorded before code digests were kept"]
    found = CliRunner().invoke(cli, ["verify"])
    assert found.exit_code == 0 and changed in found.output


def test_without_a_manifest_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    with pytest.raises(NagkitError, match="no data/manifest.sha256; verify a checkout"):
        list(verify.problems())
