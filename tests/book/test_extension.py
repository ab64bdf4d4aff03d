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

.. exhibit:: demo
   :metrics: accuracy
   :columns: data set

.. exhibit:: demo
   :metrics: trained

.. exhibit-figures:: demo
   :alt: A curve

   What one sees.

.. verdict:: demo

.. provenance:: demo

.. verdict:: absent

.. exhibit:: absent

.. exhibit-figures:: absent
   :alt: Nothing

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
NOTEBOOK = {
    "cells": [
        {"source": ["## Verdict"]},
        {"outputs": [{"data": {"text/markdown": ["## Verdict\n", "\n", "Guided is better."]}}]},
    ]
}
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


def build(root: Path, *, profile: str = "paper", recorded: bool = True, quick: bool = True) -> str:
    """HTML of a one-page book under `root`; any Sphinx warning is an error."""
    book = root / "book"
    (book / "results").mkdir(parents=True)
    (book / "index.rst").write_text(INDEX)
    (book / "exhibits.yaml").write_text(MAP)
    if recorded:
        (book / "results" / "demo.csv").write_text(RECORDED)
        (book / "results" / "demo.ipynb").write_text(json.dumps(NOTEBOOK))
        (book / "results" / "demo.svg").write_text(SVG)
        (book / "results" / "demo_more.svg").write_text(SVG)
        (book / "results" / "demo2.svg").write_text(SVG)
        (book / "results" / "demo.provenance.json").write_text(
            json.dumps({"profile": profile, "seeds": [0, 1], "data": {"cifar10": "ab" * 32}})
        )
    if quick:
        (root / "results" / "quick").mkdir(parents=True)
        (root / "results" / "quick" / "demo.csv").write_text(QUICK)
    out = root / "out"
    config = {"extensions": ["nagkit.study.book", "pages"], "exclude_patterns": ["results"]}
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


def test_table_shows_value_interval_and_n(page):
    assert ">94.10<" in page and "[93.90, 94.30]" in page and "n = 20" in page


def test_tables_and_figures_are_numbered_by_letters(page):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))
    assert "Table A. Accuracy (%), by data set. Ours:" in text and "Table B. Trained (count)" in text
    assert "Figures A to B. What one sees." in text


def test_n_moves_to_the_caption_where_it_is_the_same_everywhere():
    line = {"row": "a", "column": "b", "metric": "m", "value": 1.0, "lo": 0.5, "hi": 1.5, "n": 7, "unit": "%"}
    rows = pd.DataFrame([line | {"origin": "ours", "oracle": "table"}])
    assert "n = 7" not in extension.results_table(rows, "m").astext()
    assert "n = 7" in extension.caption(rows.assign(source=""), "m", "paper")


def test_columns_that_are_numbers_are_sorted_as_numbers():
    line = {"row": "a", "metric": "m", "value": 1.0, "lo": 0.5, "hi": 1.5, "n": 7, "unit": "%", "origin": "ours", "oracle": ""}
    rows = pd.DataFrame([line | {"column": column} for column in ("10", "2")])
    head = extension.results_table(rows, "m").astext()
    assert head.index("2") < head.index("10")


def test_data_sets_appear_under_their_names(page):
    assert "CIFAR-10" in page and "cifar10" not in re.sub(r"<[^>]+>", "", page.split("provenance")[0])


def test_the_download_link_stands_once(page):
    assert page.count("every number of this exhibit") == 1


def test_a_number_without_interval_stands_alone(page):
    assert ">73.12<" in page


def test_a_lower_bound_is_printed_as_one(page):
    assert "&gt;500" in page


def test_rows_of_the_paper_are_marked_apart_from_ours(page):
    assert "± 0.12" in page
    assert 'class="row-paper' in page and "origin-paper" in page
    assert 'class="row-ours' in page and "origin-ours" in page


def test_caption_names_n_profile_oracle_and_source(page):
    assert "Ours: value [95 % interval], n = 5 to 20, profile paper, oracle table." in page
    assert "Accuracy (%), by data set." in page and "Restated by someone (2025)" in page


def test_only_the_named_metrics_are_shown(page):
    assert "time (s)" not in page


def test_the_csv_can_be_downloaded(page):
    assert "demo.csv" in page and "download" in page


def test_figures_of_the_exhibit_have_alt_text_and_others_stay_out(page):
    assert 'alt="A curve (1 of 2)"' in page and 'alt="A curve (2 of 2)"' in page
    assert "demo2.svg" not in page
    assert "What one sees. Ours: n = 3 to 20, profile paper, oracle table." in page


def test_recorded_run_has_its_own_box(page):
    assert "provenance-stale" in page and "provenance-preview" not in page
    assert "abababababab…" in page


def test_any_other_profile_is_visibly_not_the_recorded_run(tmp_path):
    page = build(tmp_path, profile="quick")
    assert "provenance-preview" in page and "provenance-recorded" not in page
    assert "NOT the recorded run (profile quick)" in page
    assert "done, not from the recorded run" in page


def test_a_box_says_whether_todays_code_made_the_numbers(tmp_path):
    function = "nagkit.study.measures:mean"
    old = extension.provenance_box({"profile": "paper"}, "demo").astext()
    today = extension.provenance_box({"profile": "paper", "code": {function: digest(function)}}, "demo").astext()
    changed = extension.provenance_box({"profile": "paper", "code": {function: "0" * 16}}, "demo").astext()
    gone = extension.provenance_box({"profile": "paper", "code": {"nagkit.gone:made": "0" * 16}}, "demo").astext()
    assert "recorded before code digests were kept" in old and "stale" not in today
    assert "stale: computed by another version of the code (measures:mean)" in changed and "stale" in gone


def test_the_verdict_is_what_the_executed_notebook_said(page, bare_page):
    assert "Guided is better." in page
    assert "its verdict comes with the numbers" in bare_page


def test_a_notebook_without_a_verdict_has_none():
    from pages import verdict

    assert verdict({"cells": NOTEBOOK["cells"][:1]}) is None


def test_status_in_the_map_follows_the_results(page, bare_page):
    assert "status-planned" in page and "status-done" in page and "status-ready" in page
    assert page.count(">something</a>") == 2
    assert "status-done" not in bare_page


def test_your_run_counts_the_recorded_intervals_that_hold_its_numbers(page):
    assert "<strong>Demo</strong>: 1 of 2 recorded intervals hold this machine's number" in page
    assert "[94.00, 94.40]" in page and "n = 2, profile quick, oracle surrogate" in page
    assert "inside" in page and "outside" in page


def test_without_results_every_place_says_how_to_make_them(bare_page):
    words = re.sub(r"<[^>]+>", "", bare_page)
    assert "make paper-demo makes one" in words and "make reproduce runs every notebook" in words


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
