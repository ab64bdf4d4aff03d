"""Tidy numbers and their files, estimates, labels, and the paper's numbers."""

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nagkit import paths
from nagkit.errors import NagkitError
from nagkit.study import estimates, tidy
from nagkit.study.estimates import Interval
from nagkit.study.labels import label

PAPER = yaml.safe_load((paths.DATA / "paper.yaml").read_text(encoding="utf-8"))
SAMPLES = st.lists(st.floats(-100, 100), min_size=2, max_size=40).map(np.array)


@pytest.fixture
def frame():
    rows = [("test", "ours", "cifar10", "accuracy", *estimates.mean_ci([94.0, 94.2, 94.4]), 3, "%", "ours", "surrogate", "")]
    rows += [("test", "ours", "cifar10", "trained", np.nan, np.nan, np.nan, 3, "count", "ours", "surrogate", "")]
    return tidy.to_frame(rows)


# Statistics


def test_the_t_interval_is_the_textbook_one():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert estimates.mean_ci(values) == pytest.approx(Interval(3.75, expected.low, expected.high))


def test_the_t_interval_covers_a_known_mean_as_often_as_it_says():
    """1,000 intervals of 5 normal values: the count is binomial; outside 930..970 with probability below 0.005."""
    values = np.random.default_rng(0).normal(3, 2, (5, 1000))
    covered = np.abs(values.mean(axis=0) - 3) <= estimates.half_width(values)
    assert 930 <= covered.sum() <= 970


def test_a_single_value_has_no_interval():
    assert estimates.mean_ci([5.0]) == pytest.approx(Interval(5, np.nan, np.nan), nan_ok=True)


@given(SAMPLES)
@settings(max_examples=25, deadline=None)
def test_bootstrap_interval_lies_within_the_data(values):
    interval = estimates.bootstrap_ci(values, np.random.default_rng(0), resamples=200)
    assert values.min() - 1e-9 <= interval.lo <= interval.hi <= values.max() + 1e-9


def test_bootstrap_and_t_interval_agree_on_many_values():
    values = np.random.default_rng(0).normal(0, 1, 400)
    assert estimates.bootstrap_ci(values, np.random.default_rng(1)) == pytest.approx(estimates.mean_ci(values), abs=0.03)


def test_the_interquartile_mean_ignores_the_outer_halves():
    assert estimates.iqm(np.array([-1000, 1, 2, 1000])) == 1.5


@given(SAMPLES)
@settings(max_examples=25, deadline=None)
def test_a_paired_difference_cancels_what_the_pairs_share(values):
    assert estimates.paired_difference(values + 1, values) == pytest.approx(Interval(1, 1, 1))


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_statistics_refuse_what_is_not_a_sample(values):
    with pytest.raises(NagkitError, match="non-empty list"):
        estimates.mean_ci(values)


def test_a_welch_difference_agrees_with_the_test_of_its_name():
    a, b = np.array([1.0, 2.0, 4.0]), np.array([0.0, 0.5, 3.0, 7.0, 9.0])
    found = estimates.welch_difference(a, b)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert stats.ttest_ind(a - found.lo, b, equal_var=False).pvalue == pytest.approx(0.05)
    with pytest.raises(NagkitError, match="two values a sample, got 1 and 5"):
        estimates.welch_difference(a[:1], b)


def test_paired_difference_refuses_unequal_lengths():
    with pytest.raises(NagkitError, match="as many"):
        estimates.paired_difference([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("identifier", "words"),
    [
        ("cifar10 regret", "CIFAR-10, regret"),
        ("ours-exact minus random", "Ours, exact prior minus random architectures"),
        ("no identifier", "no identifier"),
    ],
)
def test_labels_are_put_together_from_their_parts(identifier, words):
    assert label(identifier) == words


# The paper's numbers


def test_every_number_of_the_paper_has_a_source_and_a_unit():
    for name, blocks in PAPER["exhibits"].items():
        for block in blocks:
            assert {"metric", "unit", "source", "columns", "rows"} <= set(block), name
            assert set(block) <= {"metric", "unit", "source", "columns", "rows", "n", "n_is"}, name
            assert ("n" in block) == ("n_is" in block)
            assert all(len(row) == len(block["columns"]) for row in block["rows"].values()), name
    assert {block["source"] for blocks in PAPER["exhibits"].values() for block in blocks} == set(PAPER["sources"])


@pytest.mark.parametrize("name", PAPER["exhibits"])
def test_paper_rows_are_tidy_and_each_number_stands_once(name):
    rows = tidy.paper_rows(name)
    assert tuple(rows.columns) == tidy.COLUMNS
    assert (rows["origin"] == "paper").all() and rows["source"].str.len().gt(10).all() and rows["value"].notna().all()
    assert not rows.duplicated(["row", "column", "metric"]).any()


@pytest.mark.parametrize(
    ("exhibit", "row", "column", "metric", "value"),
    [
        ("table1", "diffusionnag", "cifar10", "mean at 224 pixels", 97.39),
        ("table2", "diffusionnag", "aircraft", "accuracy", 58.83),
        ("table2", "metad2a", "cifar100", "trained", 100),
        ("table3", "diffusionnag", "cifar10", "mean", 93.13),
        ("figure3", "diffusionnag-bo", "100", "ofa incumbent", 83.55),
        ("table4", "diffusionnag-no-positions", "mbv3", "validity", 42.17),
        ("cost", "DiffusionNAG", "nb201", "score network training", 3.43),
    ],
)
def test_known_numbers_are_found_under_their_names(exhibit, row, column, metric, value):
    rows = tidy.paper_rows(exhibit)
    hit = rows[(rows["row"] == row) & (rows["column"] == column) & (rows["metric"] == metric)]
    assert hit["value"].tolist() == [value]


def test_printed_means_of_table_10_follow_from_its_columns():
    rows = tidy.paper_rows("table10")
    for _, part in rows.groupby("row"):
        assert part[part["column"] != "mean"]["value"].mean() == pytest.approx(part["value"].iloc[-1], abs=0.05)


def test_the_claimed_speed_up_is_a_ratio_of_trained_architectures():
    rows = tidy.paper_rows("table2").query("metric == 'trained'").groupby("row")["value"].sum()
    assert rows["metad2a"] / rows["diffusionnag"] == tidy.paper_rows("cost")["value"].iloc[-1]


def test_a_bound_is_an_open_interval():
    row = tidy.paper_rows("table2").query("row == 'rea' and metric == 'trained'").iloc[0]
    assert (row["value"], row["lo"], row["hi"]) == (500, 500, np.inf)
    assert tidy.cell(row) == ">500"


def test_unknown_exhibit_of_the_paper_is_named():
    with pytest.raises(NagkitError, match=r"'tabel2'.*'table2'"):
        tidy.paper_rows("tabel2")


# Tidy numbers


def test_the_csv_survives_a_round_trip(frame, tmp_path):
    path = tmp_path / "test.csv"
    path.write_text(tidy.to_csv(frame))
    pd.testing.assert_frame_equal(tidy.read_csv(path), frame, rtol=1e-8)


def test_cells_of_the_shown_table_carry_interval_and_n(frame):
    assert tidy.table(frame, ["accuracy", "trained"]).iloc[0].tolist() == ["94.20 ± 0.50 (3)", "– (3)"]


def test_numeric_columns_stand_in_numeric_order():
    rows = [("x", "row", column, "metric", 1.0, np.nan, np.nan, 1, "count", "ours", "", "") for column in ("20", "3", "100")]
    assert tidy.table(tidy.to_frame(rows), ["metric"]).columns.get_level_values(1).tolist() == ["3", "20", "100"]


def test_golden_gaps_name_what_differs(frame):
    other = frame.copy()
    other.loc[0, "value"] += 1
    (gap,) = tidy.golden_gaps(other, frame)
    assert "accuracy" in gap and "95.2, golden 94.2" in gap
    assert "other rows" in tidy.golden_gaps(frame.iloc[1:], frame)[0]


def test_missing_results_say_how_to_make_them(tmp_path):
    with pytest.raises(NagkitError, match="run the exhibit's notebook"):
        tidy.read_csv(tmp_path / "none.csv")


def test_a_file_with_other_columns_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(NagkitError, match="has the columns a, b"):
        tidy.read_csv(tmp_path / "x.csv")
