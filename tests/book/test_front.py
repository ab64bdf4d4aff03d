"""The front page: verdicts follow from recorded numbers, and a selector that names nothing stops the strict build."""

import json
import re
from pathlib import Path

import pytest
from sphinx.application import Sphinx
from sphinx.errors import SphinxWarning
from sphinx.util.docutils import docutils_namespace

from nagkit.study import front, front_figures
from nagkit.study.book import read_results

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "book" / "results"
CSV = """exhibit,row,column,metric,value,lo,hi,n,unit,origin,oracle,source
demo,Guided,cifar10,accuracy,{guided},{low},{high},20,%,ours,table,
demo,Guided minus random,cifar10,difference,2.1,{lo},3.0,20,%,ours,table,
"""
DEMO = CSV.format(guided=94.1, low=93.9, high=94.3, lo=1.2)
MAP = """
- exhibit: Table 9
  shows: Pools
  claim: Guided cells are better.
  oracle: real table
  results: demo
  limit: our budget
  why: three seeds
  checks:
    - part: level
      rule: equal
      metric: accuracy
      row: ROW
      column: cifar10
      paper: {results: cost, metric: score network training, row: DiffusionNAG, column: nb201}
      delta: 0.5
      because: a third of the gap
    - {part: gain, rule: above, metric: difference, row: Guided minus random, column: cifar10, delta: 0.5, because: "the same"}
  also:
    - {name: abstract, results: cost, metric: score network training, row: DiffusionNAG, column: nb201, origin: paper}
- exhibit: Tables 11–12
  shows: Unknown
  claim: Something.
  limit: our data
  why: nothing to measure
  oracle: none
- exhibit: not in the paper
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
        record = {"profile": profile, "seconds": 300}
        (book / "results" / "demo.provenance.json").write_text(json.dumps(record))
    config = {"extensions": ["nagkit.study.front"], "exclude_patterns": ["results"]}
    config |= {"html_theme": "basic"}
    out = root / "out"
    with docutils_namespace():
        Sphinx(str(book), None, str(out), str(root / "trees"), "html", config, status=None, warningiserror=True).build()
    html = (out / "index.html").read_text("utf-8")
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


@pytest.mark.parametrize(
    ("guided", "lo", "said", "why"),
    [
        (3.4, 1.2, "reproduced", "Every interval lies where the claim says."),
        (9.0, 1.2, "partly", "Holds: gain; open: our budget."),
        (9.0, -0.1, "inconclusive", "Our budget: three seeds."),
    ],
)
def test_a_changed_number_changes_the_verdict(tmp_path, guided, lo, said, why):
    page = build(tmp_path, csv=CSV.format(guided=guided, low=guided - 0.2, high=guided + 0.2, lo=lo))
    assert f" 1 {said} Table 9" in page and why in page
    assert f"{guided:.2f} % [{guided - 0.2:.2f}, {guided + 0.2:.2f}] 3.43 GPU h" in page and "abstract 3.43 GPU h" in page


def test_a_claim_that_cannot_be_tested_says_whose_limit_it_is_and_other_exhibits_stay_out(tmp_path):
    page = build(tmp_path, csv=DEMO)
    assert "1 cannot be tested Tables 11–12 (our data)" in page and "Our data: nothing to measure." in page
    assert "Something else" not in page


def test_numbers_are_folded_under_the_table(tmp_path):
    build(tmp_path, csv=DEMO)
    html = (tmp_path / "out" / "index.html").read_text("utf-8")
    table, folded = html.split("<details>", 1)
    assert "94.10" not in table and "94.10" in folded.split("</details>")[0]


def test_without_a_results_file_nothing_is_claimed(tmp_path):
    page = build(tmp_path)
    assert "1 not recorded Table 9" in page and "Guided has (not recorded)" in page and "1 reproduced" not in page


def test_another_profile_than_the_recorded_one_is_said(tmp_path):
    page = build(tmp_path, csv=DEMO, profile="quick")
    assert "NOT from the recorded run" in page


def test_a_selector_of_nothing_stops_the_strict_build(tmp_path):
    with pytest.raises(SphinxWarning, match="exhibits.yaml, Table 9: unknown row of the results 'Misspelt'"):
        build(tmp_path, csv=DEMO, row="Misspelt")


def test_a_number_in_prose_comes_from_the_file(tmp_path):
    page = build(tmp_path, csv=DEMO)
    assert "Guided has 94.10 % [93.90, 94.30] , the paper 3.43 GPU h ." in page


def test_a_number_in_prose_that_is_nowhere_stops_the_strict_build(tmp_path):
    with pytest.raises(SphinxWarning, match="result demo: unknown row of the results 'Misspelt'"):
        build(tmp_path, csv=DEMO, prose="Misspelt")


def test_a_number_in_prose_needs_all_its_fields(tmp_path):
    with pytest.raises(SphinxWarning, match="four or five fields"):
        build(tmp_path, index="Title\n=====\n\nSee :result:`demo | accuracy`.\n")


def test_durations_say_what_is_a_lower_bound_and_invent_no_memory(tmp_path):
    page = build(tmp_path, csv=DEMO)
    assert "demo ≥ 5.0 min not recorded not recorded not recorded" in page


def test_the_time_of_a_run_is_that_of_its_jobs_where_they_were_counted():
    assert front.spent({"seconds": 3.0, "cpu_seconds": 360.0, "peak_rss_mb": 812}, "≥ ") == ("6.0 min", "812 MiB")


def test_quick_runs_come_from_what_was_measured(tmp_path):
    (tmp_path / "data" / "measured").mkdir(parents=True)
    text = "exhibit,seconds,peak_rss_mb,oracle,cpu,cores,kept\ndemo,90.4,812,surrogate,Some CPU,2,0\n"
    (tmp_path / "data" / "measured" / "quick_runs.csv").write_text(text)
    page = build(tmp_path, csv=DEMO)
    assert "90 s 812 MiB" in page
    assert "Quick runs together: 1.51 minutes on a machine of 2 cores (Some CPU)." in page


@pytest.mark.parametrize("name", front_figures.FIGURES)
def test_a_front_figure_is_drawn_from_its_recorded_table(name):
    exhibit, _, draw = front_figures.FIGURES[name]
    figure = draw(read_results(RESULTS / f"{exhibit}.csv"))
    named = [text for ax in figure.axes for text in ax.get_yticklabels()]
    named += [text for legend in figure.legends for text in legend.get_texts()]
    assert any(text.get_text().startswith(("Ours", "DiffusionNAG ours", "BONAS")) for text in named)


def test_front_figures_are_numbered_and_a_missing_table_leaves_a_note(tmp_path):
    lines = [f".. front-figure:: {name}\n   :alt: Dots\n\n   What one sees.\n" for name in ("pools", "search")]
    page = build(tmp_path, index="Title\n=====\n\n" + "\n".join(lines))
    assert "Figure A needs the recorded run of table3" in page and "Figure B needs the recorded run of figure3" in page


def test_a_front_figure_has_alt_text_caption_and_file(tmp_path):
    index = "Title\n=====\n\n.. front-figure:: pools\n   :alt: Dots\n\n   What one sees.\n"
    (tmp_path / "book" / "results").mkdir(parents=True)
    (tmp_path / "book" / "results" / "table3.csv").write_bytes((RESULTS / "table3.csv").read_bytes())
    page = build(tmp_path, index=index)
    assert re.search(r"Figure A\. What one sees\. Ours: n = \d.*, profile unknown, oracle table\.", page.replace(" .", "."))
    html = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert 'role="img" aria-label="Dots"' in html and "table3.csv" in html
