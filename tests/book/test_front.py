"""The front page: verdicts follow from recorded numbers, and a selector that names nothing stops the strict build."""

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from sphinx.application import Sphinx
from sphinx.errors import SphinxWarning
from sphinx.util.docutils import docutils_namespace

from nagkit.errors import NagkitError
from nagkit.report import claims, front, plots_front
from nagkit.report.sphinx import read_results

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "book" / "results"
CLAIMS = [entry for entry in yaml.safe_load((ROOT / "book" / "exhibits.yaml").read_text("utf-8")) if "claim" in entry]
CSV = """exhibit,row,column,metric,value,lo,hi,n,unit,origin,oracle,source
demo,Guided,cifar10,accuracy,{guided},93.9,94.3,20,%,ours,table,
demo,Guided minus random,cifar10,difference,2.1,{lo},3.0,20,%,ours,table,
demo,Guided,cifar10,accuracy,94.05,,,,%,paper,,Restated by someone (2025)
"""
MAP = """
- paper: Table 9
  claim: Guided cells are better.
  paper_value:
    - {metric: accuracy, row: Guided, column: cifar10}
  ours_value:
    - {name: guided, metric: accuracy, row: ROW, column: cifar10}
  counted: what holds
  checks:
    - name: level
      rule: at least
      metric: accuracy
      row: ROW
      column: cifar10
      paper: {metric: accuracy, row: Guided, column: cifar10}
    - {name: gain, rule: above zero, metric: difference, row: Guided minus random, column: cifar10}
  oracle: real table
  results: demo
- paper: Figure 1
  claim: Overview.
  paper_says: a drawing
  untested: nothing to measure
  oracle: none
- paper: not in the paper
  shows: Something else
  oracle: none
  status: planned
"""
INDEX = """
Title
=====

.. claims::

.. claim-rules::

.. durations::

Guided has :result:`demo | accuracy | PROSE | cifar10`, the paper
:result:`cost | score network training | DiffusionNAG | nb201 | paper`.
"""


def build(root: Path, *, csv: str | None = None, row="Guided", prose="Guided", index=INDEX, profile="paper") -> str:
    """Text of a one-page book under `root`, without tags; any Sphinx warning is an error."""
    book = root / "book"
    (book / "results").mkdir(parents=True, exist_ok=True)
    (root / "notebooks").mkdir()
    (root / "notebooks" / "demo.ipynb").write_text("{}")
    (book / "index.rst").write_text(index.replace("PROSE", prose))
    (book / "exhibits.yaml").write_text(MAP.replace("ROW", row))
    if csv is not None:
        (book / "results" / "demo.csv").write_text(csv)
        record = {"profile": profile, "seconds": 300, "jobs": {"asked": 10, "finished by an earlier run": 4}}
        (book / "results" / "demo.provenance.json").write_text(json.dumps(record))
    config = {"extensions": ["nagkit.report.sphinx", "nagkit.report.front"], "exclude_patterns": ["results"]}
    config |= {"html_theme": "basic"}
    out = root / "out"
    with docutils_namespace():
        Sphinx(str(book), None, str(out), str(root / "trees"), "html", config, status=None, warningiserror=True).build()
    html = (out / "index.html").read_text("utf-8")
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


@pytest.mark.parametrize(
    ("guided", "lo", "said", "why"),
    [
        (94.1, 1.2, "reproduced", "level 1 of 1; gain 1 of 1"),
        (94.0, 1.2, "partly", "level 0 of 1; gain 1 of 1"),
        (94.0, -0.1, "not reproduced", "level 0 of 1; gain 0 of 1"),
    ],
)
def test_a_changed_number_changes_the_verdict(tmp_path, guided, lo, said, why):
    page = build(tmp_path, csv=CSV.format(guided=guided, lo=lo))
    assert f" 1 {said} Table 9" in page and f"what holds: {why}" in page
    assert f"{guided:.2f} % [93.90, 94.30]" in page and "guided, n = 20" in page and "94.05 %" in page


def test_a_claim_that_cannot_be_tested_says_why_and_other_exhibits_stay_out(tmp_path):
    page = build(tmp_path, csv=CSV.format(guided=94.1, lo=1.2))
    assert "1 cannot be tested Figure 1" in page and "nothing to measure" in page and "a drawing" in page
    assert "Something else" not in page


def test_a_page_says_the_verdicts_of_its_own_claims(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "MAP", MAP.replace("  results: demo\n", "  results: demo\n  page: index\n"))
    index = "Title\n=====\n\n.. claims-here::\n\n.. _verdict:\n\nVerdict\n-------\n\nWords.\n"
    page = build(tmp_path, csv=CSV.format(guided=94.0, lo=1.2), index=index)
    assert "partly Table 9: Guided cells are better. Why" in page and "Overview" not in page
    assert 'href="#verdict"' in (tmp_path / "out" / "index.html").read_text("utf-8")


def test_a_page_without_a_claim_of_its_own_cannot_say_a_verdict(tmp_path):
    with pytest.raises(SphinxWarning, match="no claim whose page is index"):
        build(tmp_path, index="Title\n=====\n\n.. claims-here::\n")


def test_without_a_results_file_nothing_is_claimed(tmp_path):
    page = build(tmp_path)
    assert "1 not recorded Table 9" in page and "Guided has (not recorded)" in page and "1 reproduced" not in page


def test_another_profile_than_the_recorded_one_is_said(tmp_path):
    page = build(tmp_path, csv=CSV.format(guided=94.1, lo=1.2), profile="quick")
    assert "NOT from the recorded run" in page


def test_a_selector_of_nothing_stops_the_strict_build(tmp_path):
    with pytest.raises(SphinxWarning, match="exhibits.yaml, Table 9: no number of .* metric 'accuracy', row 'Misspelt'"):
        build(tmp_path, csv=CSV.format(guided=94.1, lo=1.2), row="Misspelt")


def test_a_number_in_prose_comes_from_the_file(tmp_path):
    page = build(tmp_path, csv=CSV.format(guided=94.1, lo=1.2))
    assert "Guided has 94.10 % [93.90, 94.30] , the paper 3.43 GPU h ." in page


def test_a_number_in_prose_that_is_nowhere_stops_the_strict_build(tmp_path):
    with pytest.raises(SphinxWarning, match="result demo: no number of .* metric 'accuracy', row 'Misspelt'"):
        build(tmp_path, csv=CSV.format(guided=94.1, lo=1.2), prose="Misspelt")


def test_a_number_in_prose_needs_all_its_fields(tmp_path):
    with pytest.raises(SphinxWarning, match="four or five fields"):
        build(tmp_path, index="Title\n=====\n\nSee :result:`demo | accuracy`.\n")


def test_durations_count_the_jobs_that_were_kept_and_invent_no_memory(tmp_path):
    page = build(tmp_path, csv=CSV.format(guided=94.1, lo=1.2))
    assert "demo 5.0 min 4 of 10 not recorded not measured not recorded" in page


def test_quick_runs_come_from_what_was_measured(tmp_path):
    (tmp_path / "data" / "measured").mkdir(parents=True)
    text = "exhibit,seconds,peak_rss_mb,oracle,cpu,cores,kept\ndemo,90.4,812,surrogate,Some CPU,2,0\n"
    (tmp_path / "data" / "measured" / "quick_runs.csv").write_text(text)
    page = build(tmp_path, csv=CSV.format(guided=94.1, lo=1.2))
    assert "not recorded 90 s 812 MiB" in page
    assert "Quick runs together: 1.51 minutes on a machine of 2 cores (Some CPU)." in page


def entry(value: float, lo: float, hi: float) -> pd.Series:
    return pd.Series({"value": value, "lo": lo, "hi": hi})


NAN = float("nan")


@pytest.mark.parametrize(
    ("rule", "ours", "other", "said"),
    [
        ("at least", (5, 4, 6), (5, NAN, NAN), "holds"),
        ("at least", (5, 4, 6), (5.5, NAN, NAN), "open"),
        ("at least", (5, 4, 6), (7, NAN, NAN), "contrary"),
        ("at least", (5, NAN, NAN), (7, NAN, NAN), "contrary"),
        ("at least", (NAN, NAN, NAN), (7, NAN, NAN), "open"),
        ("at most", (5, 4, 6), (5, NAN, NAN), "holds"),
        ("at most", (5, 4, 6), (4.5, NAN, NAN), "open"),
        ("at most", (31, NAN, NAN), (1, NAN, NAN), "contrary"),
        ("above zero", (1, 0.1, 2), None, "holds"),
        ("above zero", (1, -0.1, 2), None, "open"),
        ("above zero", (-1, -2, -0.1), None, "contrary"),
        ("above zero", (1, NAN, NAN), None, "open"),
        ("below zero", (-1, -2, -0.1), None, "holds"),
        ("below zero", (1, 0.1, 2), None, "contrary"),
        ("above other", (5, 4, 6), (3, 2, 3.5), "holds"),
        ("above other", (5, 4, 6), (3, 2, 4.5), "open"),
        ("above other", (1, 0, 1.5), (3, 2, 4.5), "contrary"),
        ("apart from other", (1, 0, 1.5), (3, 2, 4.5), "holds"),
        ("apart from other", (5, 4, 6), (3, 2, 4.5), "open"),
    ],
)
def test_rules(rule, ours, other, said):
    assert claims.outcome(rule, entry(*ours), None if other is None else entry(*other)) == said


def test_an_unknown_rule_is_refused():
    with pytest.raises(NagkitError, match="unknown rule 'nearly'"):
        claims.outcome("nearly", entry(1, 0, 2))


@pytest.mark.parametrize(
    ("outcomes", "jointly", "said"),
    [
        (["holds", "holds"], False, "reproduced"),
        (["holds", "open"], False, "partly"),
        (["holds", "contrary"], False, "partly"),
        (["holds", "contrary", "contrary"], False, "not reproduced"),
        (["open", "open"], False, "not reproduced"),
        (["holds", "open"], True, "not reproduced"),
    ],
)
def test_grades(outcomes, jointly, said):
    assert claims.grade(outcomes, jointly=jointly) == said


def test_a_verdict_needs_all_checks_to_agree():
    assert claims.verdict(["reproduced", "reproduced"]) == "reproduced"
    assert claims.verdict(["reproduced", "not reproduced"]) == claims.verdict(["partly"]) == "partly"
    assert claims.verdict(["not reproduced"] * 2) == "not reproduced"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["paper"])
def test_every_claim_of_the_book_can_be_judged_or_says_why_not(claim):
    if "untested" in claim:
        assert "checks" not in claim
        return
    assert claim["counted"] and claim["ours_value"]
    for check in claim["checks"]:
        table = read_results(RESULTS / f"{check.get('results', claim.get('results'))}.csv")
        if table is None:
            pytest.skip("not recorded yet")
        assert claims.run(check | {"results": "it"}, {"it": table})


def test_differences_are_points_with_a_sign():
    row = entry(0.5, -0.1, 1.1)
    both = [row, pd.Series({"unit": "%", "origin": "ours", "metric": "difference of means"})]
    assert front.with_unit(pd.concat(both)) == "+0.50 points [-0.10, 1.10]"


@pytest.mark.parametrize("name", plots_front.FIGURES)
def test_a_front_figure_is_drawn_from_its_recorded_table(name):
    exhibit, _, draw = plots_front.FIGURES[name]
    figure = draw(read_results(RESULTS / f"{exhibit}.csv"))
    texts = {text.get_text() for ax in figure.axes for text in ax.get_yticklabels()}
    assert texts & {"Ours, trained prior", "BONAS"}


def test_front_figures_are_numbered_and_a_missing_table_leaves_a_note(tmp_path):
    lines = [f".. front-figure:: {name}\n   :alt: Dots\n\n   What one sees.\n" for name in ("pools", "search")]
    page = build(tmp_path, index="Title\n=====\n\n" + "\n".join(lines))
    assert "Figure A needs the recorded run of table3" in page and "Figure B needs the recorded run of figure3" in page


def test_a_front_figure_has_alt_text_caption_and_file(tmp_path):
    index = "Title\n=====\n\n.. front-figure:: pools\n   :alt: Dots\n\n   What one sees.\n"
    (tmp_path / "book" / "results").mkdir(parents=True)
    (tmp_path / "book" / "results" / "table3.csv").write_bytes((RESULTS / "table3.csv").read_bytes())
    page = build(tmp_path, index=index)
    assert "Figure A. What one sees. Ours: n = 3 to 15, profile unknown, oracle table." in page.replace(" .", ".")
    html = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert 'role="img" aria-label="Dots"' in html and "table3.csv" in html
