"""What a release needs: a wheel that works away from the checkout, and metadata that agree with each other."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
import yaml

import nagkit

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
ZENODO = json.loads((ROOT / ".zenodo.json").read_text("utf-8"))


def run(*command: object, cwd: Path, **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NAGKIT_MIRROR")} | more
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder outside the checkout that holds the wheel's contents."""
    if find_spec("setuptools") is None or find_spec("pip") is None:
        pytest.skip("building a wheel without a network needs pip and setuptools in this environment")
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    tracked = folder / "tree"  # the build writes beside its sources
    tracked.mkdir()
    for name in ("nagkit", "data", "pyproject.toml", "README.md", "LICENSE"):
        (tracked / name).symlink_to(ROOT / name)
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, tracked, cwd=folder)
    wheel = next(folder.glob("nagkit-*.whl"))
    run(*pip, "install", "--no-deps", "--no-index", "--target", folder / "site", wheel, cwd=folder)
    return folder / "site"


def test_the_wheel_holds_all_committed_data(installed):
    for path in (path for path in (ROOT / "data").rglob("*") if path.is_file()):
        name = path.relative_to(ROOT / "data")
        assert (installed / "nagkit" / "_data" / name).read_bytes() == path.read_bytes(), name


def test_the_wheel_samples_with_guidance_and_asks_its_own_tables(installed, tmp_path):
    settings = {"PYTHONPATH": str(installed), "NAGKIT_CACHE": str(tmp_path / "cache")}
    where = run(sys.executable, "-c", "import nagkit; print(nagkit.__file__)", cwd=tmp_path, **settings)
    assert Path(where.strip()).is_relative_to(installed)
    nagkit_cli = (sys.executable, "-c", "from nagkit.cli import main; main()")
    run(*nagkit_cli, "sample", "--guide", "cifar10", "--n", "20", "--out", "pool.csv", cwd=tmp_path, **settings)
    answer = run(*nagkit_cli, "query", "--dataset", "cifar10", "pool.csv", cwd=tmp_path, **settings)
    assert len((tmp_path / "pool.csv").read_text("utf-8").splitlines()) == 21
    assert "surrogate" in answer


def test_the_citation_file_says_what_its_format_asks_for():
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software"
    assert {"message", "title", "version", "license", "authors", "abstract"} <= CITATION.keys()
    assert all(author.keys() <= {"name", "family-names", "given-names", "orcid"} for author in CITATION["authors"])


def test_version_title_and_licence_agree_everywhere():
    assert CITATION["version"] == ZENODO["version"] == nagkit.__version__
    assert CITATION["title"] == ZENODO["title"] and CITATION["abstract"] == ZENODO["description"]
    assert CITATION["license"] == ZENODO["license"] == PROJECT["license"]
    assert CITATION["keywords"] == ZENODO["keywords"]
    assert [author["name"] for author in CITATION["authors"]] == [creator["name"] for creator in ZENODO["creators"]]
    assert f"## {nagkit.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_colab_notebook_asks_for_an_address_and_runs_what_exists():
    notebook = nbformat.read(ROOT / ".binder" / "colab.ipynb", as_version=4)
    nbformat.validate(notebook)
    settings, *steps = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.get("outputs") for cell in notebook.cells)
    names: dict = {}
    exec(settings, names)
    assert (ROOT / "notebooks" / f"{names['notebook']}.ipynb").is_file()
    extras = re.search(r"\[([\w,]+)\]\"", steps[0])[1].split(",")
    assert set(extras) <= PROJECT["optional-dependencies"].keys()
    with pytest.raises(ValueError, match="repository is empty; set it"):
        exec(steps[0], names)


def test_the_pythons_named_are_the_pythons_tested():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    tested = workflow["jobs"]["check"]["strategy"]["matrix"]["python"]
    declared = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)]
    assert tested == declared
    assert PROJECT["requires-python"] == f">={tested[0]}"
    assert f"Python {tested[0]} to {tested[-1]}" in (ROOT / "README.md").read_text("utf-8")
