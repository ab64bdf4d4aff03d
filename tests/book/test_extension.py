"""The Sphinx extension: what a page shows follows from the files beside it, and missing files never break a build."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from nagkit.study import book as extension
from nagkit.study.jobs import digest

COLUMNS = "exhibit,row,column,metric,value,lo,hi,n,unit,origin,oracle,source"
RECORDED = f"""{COLUMNS}
demo,Guided,cifar10,accuracy,94.1,93.9,94.3,20,%,ours,table,
demo,Guided,cifar100,accuracy,73.123,,,20,%,ours,table,
demo,Random,cifar10,accuracy,92.0,91.0,93.0,5,%,ours,table,
demo,Guided,cifar10,accuracy,94.37,94.25,94.49,,%,paper,,Restated by someone (2025)
demo,Random,cifar10,trained,500,500,inf,,count,paper,,Restated by someone (2025)
demo,Guided,cifar10,time,0.0123456,0.012,0.013,3,s,ours,table,
"""
QUICK = f"""{COLUMNS}
demo,Guided,cifar10,accuracy,94.2,94.0,94.4,2,%,ours,surrogate,
demo,Random,cifar10,accuracy,80.0,79.0,81.0,2,%,ours,surrogate,
"""
INDEX = """
Title
=====

.. exhibit-map::

.. your-run::

.. parallel::

.. cells::

   |nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|
"""
MAP = """
- {exhibit: not in the paper, shows: something, oracle: none, status: planned}
- {exhibit: not in the paper, shows: something, oracle: real table, page: index, results: demo}
- {exhibit: not in the paper, shows: something, oracle: real table, page: index, results: absent}
"""
def build(root: Path, *, profile: str = "paper", recorded: bool = True, quick: bool = True) -> str:
    """HTML of a one-page book under `root`; any Sphinx warning is an error."""
    book = root / "book"
    (book / "results").mkdir(parents=True)
    (book / "index.rst").write_text(INDEX)
    (book / "exhibits.yaml").write_text(MAP)
    if recorded:
        (book / "results" / "demo.csv").write_text(RECORDED)
        (book / "results" / "demo.provenance.json").write_text(
            json.dumps({"profile": profile, "seeds": [0, 1], "data": {"cifar10": "ab" * 32}})
        )
    if quick:
        (root / "results" / "quick").mkdir(parents=True)
        (root / "results" / "quick" / "demo.csv").write_text(QUICK)
    out = root / "out"
    config = {"extensions": ["pages"], "exclude_patterns": ["results"]}
    config |= {"html_theme": "basic", "project": "demo"}
    with docutils_namespace():
        Sphinx(str(book), None, str(out), str(root / "trees"), "html", config, status=None, warningiserror=True).build()
    return (out / "index.html").read_text("utf-8")


@pytest.fixture(scope="module", autouse=True)
def book_extensions():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "book" / "_ext")
        yield


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    return build(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def bare_page(tmp_path_factory) -> str:
    return build(tmp_path_factory.mktemp("bare"), recorded=False, quick=False)


def test_recorded_run_has_its_own_box():
    box = extension.provenance_box({"profile": "paper", "code": {}, "data": {"cifar10": "ab" * 32}}, "demo")
    assert "provenance-recorded" in box["classes"] and "abababababab…" in box.astext()
    none = extension.provenance_box(None, "demo")
    assert "make paper-demo makes one" in none.astext()


def test_any_other_profile_is_visibly_not_the_recorded_run(tmp_path):
    box = extension.provenance_box({"profile": "quick"}, "demo")
    assert "provenance-preview" in box["classes"] and "NOT the recorded run (profile quick)" in box.astext()
    assert "done, not from the recorded run" in build(tmp_path, profile="quick")


def test_a_box_says_whether_todays_code_made_the_numbers(tmp_path):
    function = "nagkit.study.measures:mean"
    old = extension.provenance_box({"profile": "paper"}, "demo").astext()
    today = extension.provenance_box({"profile": "paper", "code": {function: digest(function)}}, "demo").astext()
    changed = extension.provenance_box({"profile": "paper", "code": {function: "0" * 16}}, "demo").astext()
    gone = extension.provenance_box({"profile": "paper", "code": {"nagkit.gone:made": "0" * 16}}, "demo").astext()
    assert "recorded before code digests were kept" in old and "stale" not in today
    assert "stale: computed by another version of the code (measures:mean)" in changed and "stale" in gone


def test_status_in_the_map_follows_the_results(page, bare_page):
    assert "status-planned" in page and "status-done" in page and "status-ready" in page
    assert page.count(">something</a>") == 2
    assert "status-done" not in bare_page


def test_your_run_counts_the_recorded_intervals_that_hold_its_numbers(page):
    assert "<strong>Demo</strong>: 1 of 2 recorded intervals hold this machine's number" in page
    assert "94.20 % [94.00, 94.40]" in page and "n = 2, profile quick, oracle surrogate" in page
    assert "inside" in page and "outside" in page


def test_without_results_the_page_says_how_to_make_them(bare_page):
    assert "make reproduce runs every notebook" in re.sub(r"<[^>]+>", "", bare_page)


def test_cells_are_drawn_with_a_text_alternative(page):
    assert "<svg" in page and 'aria-label="Cells as graphs: |nor_conv_3x3~0|' in page


def test_what_takes_workers_is_found_in_notebooks_and_commands(tmp_path):
    lines = ['profile = "quick"\n', "n_workers = 1\n", 'scheduler = ""  # an address']
    for name, source in (("both", lines), ("cores", lines[:2]), ("neither", lines[:1])):
        cells = [{"metadata": {"tags": ["parameters"]}, "source": source}, {"metadata": {}, "source": ["scheduler = 1"]}]
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text(json.dumps({"cells": cells}))
    page = build(tmp_path, recorded=False, quick=False)
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "both -p n_workers 8 -p scheduler tcp://host:8786" in words and "cores -p n_workers 8 –" in words
    assert "neither" not in words
    assert "nagkit fit search --n-workers 8 --scheduler tcp://host:8786" in words and "nagkit query" not in words


def test_an_oracle_is_named_once():
    rows = pd.DataFrame({"n": [3, 3, 3], "oracle": ["ofa", "ofa, measured", ""]})
    assert extension.facts(rows, "paper") == "n = 3, profile paper, oracle measured, ofa"
