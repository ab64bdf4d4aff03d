"""The book's files agree with each other: contents, exhibits, results, source links and configuration."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from nagkit.study import tidy

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
PAGES = sorted(path for path in BOOK.rglob("*.md") if not {"_build", "results"} & set(path.relative_to(BOOK).parts))
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
EXHIBITS = yaml.safe_load((BOOK / "exhibits.yaml").read_text("utf-8"))


def _offline():
    spec = importlib.util.spec_from_file_location("offline", BOOK / "_ext" / "offline.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _entries(node: object, key: str) -> list[str]:
    if isinstance(node, list):
        return [found for item in node for found in _entries(item, key)]
    if isinstance(node, dict):
        own = [node[key]] if key in node else []
        return own + [found for value in node.values() for found in _entries(value, key)]
    return []


TOC = yaml.safe_load((BOOK / "_toc.yml").read_text("utf-8"))


NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_contents_list_every_page_once_and_every_executed_notebook():
    listed = [TOC["root"], *_entries(TOC["parts"], "file")]
    written = [str(page.relative_to(BOOK).with_suffix("")) for page in PAGES]
    assert sorted(listed) == sorted([*(f"results/{name}" for name in NOTEBOOKS), *written])
    for name in NOTEBOOKS:
        assert (BOOK / "results" / f"{name}.ipynb").is_file(), f"make paper-{name}"


def test_the_numbers_of_a_claim_are_the_papers():
    known = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", (ROOT / "data" / "paper.yaml").read_text("utf-8"))}
    texts = {}
    for page in (ROOT / "notebooks").glob("*.ipynb"):
        texts[page.name] = ["".join(cell["source"]) for cell in json.loads(page.read_text("utf-8"))["cells"]]
    for name, text in ((name, text) for name, found in texts.items() for text in found):
        claim = re.search(r"\*\*The (paper's )?claim\.\*\*.*?(\n\n|\Z)", text, re.DOTALL)
        for number in re.findall(r"(?<!§)(?<!ection )\d+\.\d+", claim[0] if claim else ""):
            places = len(number.partition(".")[2])
            assert any(abs(value - float(number)) <= 0.5001 * 10.0**-places for value in known), (name, number)


def test_every_result_in_the_map_has_a_page():
    for item in EXHIBITS:
        assert ("results" in item or item["status"] == "drawn") == ("page" in item)
        assert "page" not in item or any((BOOK / f"{item['page']}.{kind}").is_file() for kind in ("md", "ipynb"))


def test_the_overview_is_well_formed_and_has_a_text_alternative():
    figure = ElementTree.parse(BOOK / "_static" / "overview.svg").getroot()
    parts = {part.get("id"): part.text for part in figure.iter() if part.get("id")}
    assert all(len(parts[name]) > 20 for name in figure.get("aria-labelledby").split())


def test_the_map_lists_every_exhibit_of_the_paper():
    named = {item["exhibit"] for item in EXHIBITS}
    tables = {f"Table {i}" for i in (1, 2, 3, 4, 5, 10)} | {"Tables 6–9"}
    assert tables | {f"Figure {i}" for i in range(1, 8)} | {"Appendix D.6"} <= named


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "notebooks").glob("*.ipynb"))], ids=lambda page: page.stem)
def test_every_source_link_of_a_page_leads_to_a_definition(page):
    locate = _offline().locate
    for target in re.findall(r"\{src\}`~?([^`]+)`", page.read_text("utf-8")):
        assert locate(ROOT, target) is not None, target


def test_source_links_find_the_line_of_a_method():
    module, line = _offline().locate(ROOT, "nagkit.spaces.cell.CellSpace.decode")
    assert module == "nagkit/spaces/cell"
    assert "def decode(" in (ROOT / f"{module}.py").read_text("utf-8").splitlines()[line - 1]


def test_a_source_link_to_nothing_is_noticed():
    assert _offline().locate(ROOT, "nagkit.spaces.cell.CellSpace.no_such_method") is None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_page_prints_an_unverified_number_or_a_working_note(page):
    assert not re.search(r"\[(MEM|OWN|CD|PN|S\d|E-\w+|T-pdf|C:|I#)|TODO|FIXME", page.read_text("utf-8"))


def test_every_citation_is_in_the_bibliography():
    known = set(re.findall(r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text("utf-8"), re.MULTILINE))
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert {key for keys in re.findall(r"\{cite\}`([^`]+)`", text) for key in keys.split(",")} <= known


def test_notebooks_are_never_executed_by_the_book_build():
    assert CONFIG["execute"]["execute_notebooks"] == "off"
    assert CONFIG["only_build_toc_files"] is True


def test_constraints_pin_every_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    declared = {re.split(r"[<>=!\[; ]", requirement)[0].lower() for requirement in requirements} - {"nagkit"}
    pins = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^+\s;]+( ?;.*)?", pin) for pin in pins)
    pinned = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    assert declared <= pinned


def test_every_number_of_the_paper_in_the_results_is_a_verified_one():
    """The only place that the paper's numbers come from names a source for each."""
    for path in sorted((BOOK / "results").glob("*.csv")):
        printed = tidy.read_csv(path)
        printed = printed[printed["origin"] == "paper"].reset_index(drop=True)
        if len(printed):
            known = tidy.paper_rows(path.stem)
            assert (known["source"].str.len() > 10).all()
            keys = ["row", "column", "metric", "value", "source"]
            assert set(map(tuple, printed[keys].to_numpy())) <= set(map(tuple, known[keys].to_numpy())), path.name
