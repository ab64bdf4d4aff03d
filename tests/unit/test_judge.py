"""The judge: verdicts follow from intervals and declarations, and nothing that is open reads "not reproduced"."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from nagkit import paths
from nagkit.errors import NagkitError
from nagkit.study import claims, judge, tidy

NAN = float("nan")
CLAIMS = [entry for entry in claims.entries() if "claim" in entry]


def row(value: float, lo: float, hi: float, *, n=20, name="A minus B", column="c", metric="m", origin="ours") -> tuple:
    return ("demo", name, column, metric, value, lo, hi, n, "%", origin, "table", "")


def entry(*checks: dict, **more) -> dict:
    base = {"exhibit": "Table 9", "shows": "pools", "oracle": "table", "results": "demo", "claim": "Better.", **more}
    return base | {"limit": "our budget", "why": "three seeds", "checks": list(checks)}


CHECK = {"part": "gain", "rule": "above", "metric": "m", "row": "A minus B", "column": "c", "delta": 0.5, "because": "a third"}


def verdict(*rows: tuple, check: dict | None = None, **more) -> judge.Verdict:
    return judge.judge(entry(CHECK | (check or {}), **more), {"demo": tidy.to_frame(list(rows))})


@pytest.mark.parametrize(
    ("rule", "gap95", "gap90", "said"),
    [
        ("equal", (-0.6, 0.3), (-0.4, 0.2), "reproduced"),
        ("equal", (-0.6, 0.6), (-0.55, 0.4), "inconclusive"),
        ("equal", (0.6, 0.9), (0.65, 0.85), "not reproduced"),
        ("equal", (0.45, 0.9), (0.55, 0.85), "inconclusive"),
        ("above", (0.1, 0.9), (0.2, 0.8), "reproduced"),
        ("above", (-0.1, 0.9), (0.01, 0.8), "inconclusive"),
        ("above", (-0.9, -0.1), (-0.8, -0.2), "inconclusive"),
        ("above", (-0.9, -0.6), (-0.8, -0.7), "not reproduced"),
        ("below", (-0.9, -0.1), (-0.8, -0.2), "reproduced"),
        ("below", (0.6, 0.9), (0.7, 0.8), "not reproduced"),
        ("apart", (0.6, 0.9), (0.7, 0.8), "reproduced"),
        ("apart", (-0.9, -0.6), (-0.8, -0.7), "reproduced"),
        ("apart", (0.4, 0.9), (0.5, 0.8), "inconclusive"),
        ("apart", (-0.3, 0.3), (-0.2, 0.2), "not reproduced"),
        *((rule, (NAN, NAN), (NAN, NAN), "inconclusive") for rule in claims.RULES),
    ],
)
def test_a_rule_weighs_the_interval_against_zero_or_delta(rule, gap95, gap90, said):
    assert judge.outcome(rule, 0.5, gap95, gap90) == said


def test_an_interval_at_90_percent_is_that_of_the_same_t_distribution():
    values = np.array([1.0, 2.0, 4.0])
    half = stats.t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3)
    frame = tidy.to_frame([row(values.mean(), values.mean() - half, values.mean() + half, n=3)])
    expected = stats.t.interval(0.90, 2, values.mean(), values.std(ddof=1) / np.sqrt(3))
    assert judge.interval(frame.iloc[0], 0.90) == pytest.approx(expected)


def test_the_difference_of_two_means_has_the_length_of_their_errors_together():
    frame = tidy.to_frame([row(5, 2, 8), row(1, -3, 5)])
    assert judge.difference(frame.iloc[0], frame.iloc[1], 0.95) == pytest.approx((4 - 5, 4 + 5))
    assert judge.difference(frame.iloc[0], 1.0, 0.95) == (1, 7)


def test_a_number_of_the_paper_is_exact_without_a_spread_and_ours_is_unknown():
    theirs, ours = (tidy.to_frame([row(5, NAN, NAN, n=None, origin=origin)]).iloc[0] for origin in ("paper", "ours"))
    assert judge.interval(theirs, 0.90) == (5, 5) and np.isnan(judge.interval(ours, 0.90)).all()


def test_equivalence_is_declared_wrongly_in_one_of_twenty_at_the_edge_of_delta():
    """Ours − paper's = Δ exactly: 2,000 studies of five seeds; more than 6.5 % wrong has a false-alarm rate below 0.2 %."""
    values = np.random.default_rng(0).normal(0.5, 0.1, (2000, 5))
    half = stats.t.ppf(0.95, 4) * values.std(axis=1, ddof=1) / np.sqrt(5)
    gaps = zip(values.mean(axis=1) - half, values.mean(axis=1) + half, strict=True)
    assert np.mean([judge.outcome("equal", 0.5, (NAN, NAN), gap) == "reproduced" for gap in gaps]) < 0.065


def test_a_number_that_contradicts_says_not_reproduced_only_for_the_published_protocol():
    against = row(-2, -3, -1)
    assert verdict(against).word == "inconclusive" and verdict(against).limit == "our budget"
    assert verdict(against).reason == "three seeds"
    published = verdict(against, check={"published": True})
    assert (published.word, published.limit) == ("not reproduced", "")


def test_what_no_run_can_beat_is_a_ceiling_of_the_benchmark():
    rows = [row(0, -0.1, 0.1, metric="difference of m"), row(94.3, 94.2, 94.37, name="B")]
    found = verdict(*rows, check={"metric": "difference of m", "optimum": 94.37})
    assert (found.word, found.limit) == ("inconclusive", "a ceiling of the benchmark")
    lower = [rows[0], row(90, 89, 91, name="B")]
    assert verdict(*lower, check={"metric": "difference of m", "optimum": 94.37}).limit == "our budget"
    level = [row(94.37, 94.3, 94.37, name="A"), row(94.37, 94.37, 94.37, name="B")]
    assert verdict(*level, check={"row": "A", "minus": "B", "optimum": {"c": 94.37}}).limit == "a ceiling of the benchmark"


def test_parts_that_differ_make_a_claim_partly_reproduced():
    rows = [row(2, 1, 3), row(0, -1, 1, name="C minus B")]
    found = judge.judge(entry(CHECK, CHECK | {"part": "other", "row": "C minus B"}), {"demo": tidy.to_frame(rows)})
    assert (found.word, found.limit, found.reason) == ("partly", "our budget", "holds: gain")
    rest = {"part": "rest", "limit": "our data", "why": "no table"}
    untested = judge.judge(entry(CHECK, rest), {"demo": tidy.to_frame(rows)})
    assert (untested.word, untested.limit) == ("partly", "our data")


def test_what_is_open_never_reads_not_reproduced():
    rows = [row(-2, -3, -1), row(0, -1, 1, name="C minus B")]
    checks = CHECK | {"published": True}, CHECK | {"part": "other", "row": "C minus B"}
    assert judge.judge(entry(*checks), {"demo": tidy.to_frame(rows)}).word == "inconclusive"


@pytest.mark.parametrize(("holding", "said"), [(4, "reproduced"), (2, "partly"), (1, "inconclusive")])
def test_a_check_of_many_numbers_holds_in_part_when_half_of_them_do(holding, said):
    columns = [str(i) for i in range(4)]
    rows = [row(2, 1 if i < holding else -1, 3, column=name) for i, name in enumerate(columns)]
    assert verdict(*rows, check={"column": columns}).word == said


def test_a_claim_without_checks_cannot_be_tested():
    said = {"exhibit": "Table 9", "claim": "Better.", "limit": "our data", "why": "no table"}
    assert judge.judge(said, {}) == ("cannot be tested", "our data", "no table", ())


def test_a_short_run_leaves_untested_what_it_did_not_make_and_a_recorded_one_may_not():
    check = CHECK | {"column": "missing"}
    frame = tidy.to_frame([row(2, 1, 3)])
    assert judge.judge(entry(check), {"demo": frame}, lenient=True).word == "cannot be tested"
    with pytest.raises(NagkitError, match="unknown column of the results 'missing'"):
        judge.judge(entry(check), {"demo": frame})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "nearly"}, "unknown rule 'nearly'"),
        ({"because": ""}, "needs delta, the smallest difference that matters, and because"),
        ({"limit": "the weather"}, "unknown limit 'the weather'"),
        ({"why": "one two three four five six seven eight nine ten eleven"}, "more than ten words"),
        ({"colour": "red"}, "unknown key of the check 'gain' 'colour'"),
        ({"rule": "equal"}, "compares with one of paper"),
        ({"minus": "B", "than": 1}, "compares with one of paper"),
    ],
)
def test_a_bad_declaration_is_one_line_with_the_remedy(tmp_path: Path, change, message):
    path = tmp_path / "exhibits.yaml"
    path.write_text(yaml.safe_dump([entry(CHECK | change)]))
    with pytest.raises(NagkitError, match=f"exhibits.yaml, Table 9: .*{message}") as found:
        claims.entries(path)
    assert "\n" not in str(found.value)


def test_a_name_that_is_no_row_of_the_results_is_named_with_its_neighbour():
    with pytest.raises(NagkitError, match=r"unknown row of the results 'A minus C' \(did you mean 'A minus B'\?\)"):
        verdict(row(2, 1, 3), check={"row": "A minus C"})


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["exhibit"])
def test_every_claim_of_the_book_can_be_judged(claim):
    files = {name: paths.results("paper") / f"{name}.csv" for name in claims.needs(claim)}
    if not all(file.is_file() for file in files.values()):
        pytest.skip("not recorded yet")
    found = judge.judge(claim, {name: tidy.read_csv(file) for name, file in files.items()})
    assert found.word in judge.WORDS and (found.word == "reproduced" or found.limit)


def test_a_box_shows_verdict_limit_and_folded_numbers():
    frame = tidy.read_csv(paths.results("paper") / "table3.csv")
    shown = judge.box("table3", frame)
    html, markdown = shown._repr_html_(), shown._repr_markdown_()
    assert 'class="verdict-box"' in html and "<details>" in html and "Table 3." in html
    assert markdown.startswith("**") and "Table 3: " in markdown
    assert judge.box("table3", frame, quick=True)._repr_markdown_().startswith("By the few seeds of a quick run")
    with pytest.raises(NagkitError, match="no claim with results 'figure_samplers'"):
        judge.box("figure_samplers", pd.DataFrame())


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (94.3733, "%", "94.37"),
        (-1e-15, "%", "0.00"),
        (12.0, "count", "12"),
        (12.5, "count", "12.5"),
        (1085.4, "count", "1085"),
        (0.012345, "s", "0.0123"),
    ],
)
def test_decimals_follow_the_unit(value, unit, text):
    assert tidy.number(value, unit) == text


def test_differences_are_points_with_a_sign():
    frame = tidy.to_frame([row(0.5, -0.1, 1.1, name="A minus B", metric="difference of means")])
    assert tidy.spelled(frame.iloc[0]) == "+0.50 points [-0.10, 1.10]"
