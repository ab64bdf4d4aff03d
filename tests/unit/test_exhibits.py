"""Tidy results, statistics, the paper's numbers and figures."""

import json
from itertools import product
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nagkit import paths
from nagkit.errors import NagkitError
from nagkit.report import exhibits, plots, statistics
from nagkit.report.exhibits import Exhibit
from nagkit.report.statistics import Interval

matplotlib.use("agg")
PAPER = yaml.safe_load((paths.DATA / "paper.yaml").read_text(encoding="utf-8"))
SAMPLES = st.lists(st.floats(-100, 100), min_size=2, max_size=40).map(np.array)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "results", lambda profile: tmp_path / profile)
    return tmp_path / "quick"


@pytest.fixture
def exhibit():
    made = Exhibit("table2", "quick", seeds=3, oracle="surrogate")
    made.add("Ours", "cifar10", "accuracy", statistics.mean_ci([94.0, 94.2, 94.4]), n=3, unit="%")
    made.add("Ours", "cifar10", "trained until the optimum", np.nan, n=3, unit="count")
    return made


# Statistics


def test_the_t_interval_is_the_textbook_one():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert statistics.mean_ci(values) == pytest.approx(Interval(3.75, expected.low, expected.high))


def test_the_t_interval_covers_a_known_mean_as_often_as_it_says():
    """1,000 intervals of 5 normal values: the count is binomial; outside 930..970 with probability below 0.005."""
    values = np.random.default_rng(0).normal(3, 2, (5, 1000))
    covered = np.abs(values.mean(axis=0) - 3) <= statistics.half_width(values)
    assert 930 <= covered.sum() <= 970


def test_a_single_value_has_no_interval():
    assert statistics.mean_ci([5.0]) == pytest.approx(Interval(5, np.nan, np.nan), nan_ok=True)


@given(SAMPLES)
@settings(max_examples=25, deadline=None)
def test_bootstrap_interval_lies_within_the_data(values):
    interval = statistics.bootstrap_ci(values, np.random.default_rng(0), resamples=200)
    assert values.min() - 1e-9 <= interval.lo <= interval.hi <= values.max() + 1e-9


def test_bootstrap_and_t_interval_agree_on_many_values():
    values = np.random.default_rng(0).normal(0, 1, 400)
    assert statistics.bootstrap_ci(values, np.random.default_rng(1)) == pytest.approx(statistics.mean_ci(values), abs=0.03)


def test_the_interquartile_mean_ignores_the_outer_halves():
    assert statistics.iqm(np.array([-1000, 1, 2, 1000])) == 1.5


@given(SAMPLES)
@settings(max_examples=25, deadline=None)
def test_a_paired_difference_cancels_what_the_pairs_share(values):
    assert statistics.paired_difference(values + 1, values) == pytest.approx(Interval(1, 1, 1))


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_statistics_refuse_what_is_not_a_sample(values):
    with pytest.raises(NagkitError, match="non-empty list"):
        statistics.mean_ci(values)


def test_a_welch_difference_agrees_with_the_test_of_its_name():
    a, b = np.array([1.0, 2.0, 4.0]), np.array([0.0, 0.5, 3.0, 7.0, 9.0])
    found = statistics.welch_difference(a, b)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert stats.ttest_ind(a - found.lo, b, equal_var=False).pvalue == pytest.approx(0.05)
    with pytest.raises(NagkitError, match="two values a sample, got 1 and 5"):
        statistics.welch_difference(a[:1], b)


def test_paired_difference_refuses_unequal_lengths():
    with pytest.raises(NagkitError, match="as many"):
        statistics.paired_difference([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("cifar10, draw 1", "CIFAR-10, draw 1"),
        ("imagenet16-120 regret", "ImageNet16-120 regret"),
        ("x̂₀, exact prior", "x̂₀, exact prior"),
    ],
)
def test_data_sets_have_their_names_in_labels(key, text):
    assert plots.label(key) == text


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
    rows = exhibits.paper_rows(name)
    assert tuple(rows.columns) == exhibits.COLUMNS
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
    rows = exhibits.paper_rows(exhibit)
    hit = rows[(rows["row"] == row) & (rows["column"] == column) & (rows["metric"] == metric)]
    assert hit["value"].tolist() == [value]


def test_printed_means_of_table_10_follow_from_its_columns():
    rows = exhibits.paper_rows("table10")
    for _, part in rows.groupby("row"):
        assert part[part["column"] != "mean"]["value"].mean() == pytest.approx(part["value"].iloc[-1], abs=0.05)


def test_the_claimed_speed_up_is_a_ratio_of_trained_architectures():
    rows = exhibits.paper_rows("table2").query("metric == 'trained'").groupby("row")["value"].sum()
    assert rows["metad2a"] / rows["diffusionnag"] == exhibits.paper_rows("cost")["value"].iloc[-1]


def test_a_bound_is_an_open_interval():
    row = exhibits.paper_rows("table2").query("row == 'rea' and metric == 'trained'").iloc[0]
    assert (row["value"], row["lo"], row["hi"]) == (500, 500, np.inf)
    assert exhibits.cell(row) == ">500"


def test_unknown_exhibit_of_the_paper_is_named():
    with pytest.raises(NagkitError, match=r"'tabel2'.*'table2'"):
        exhibits.paper_rows("tabel2")


# Exhibits


def test_the_csv_survives_a_round_trip(exhibit, tmp_path):
    path = tmp_path / "table2.csv"
    path.write_text(exhibits.to_csv(exhibit.frame()))
    pd.testing.assert_frame_equal(exhibits.read_csv(path), exhibit.frame(), rtol=1e-8)


def test_saving_twice_writes_the_same_bytes_and_nothing_else(exhibit, folder):
    figure = plots.cell_strip(np.array([[3, 3, 3, 1, 3, 3]]))
    first = exhibit.save({"": figure, "cells": figure}).read_bytes()
    svg = (folder / "table2_cells.svg").read_bytes()
    second = exhibit.save({"": figure, "cells": plots.cell_strip(np.array([[3, 3, 3, 1, 3, 3]]))}).read_bytes()
    assert first == second and svg == (folder / "table2_cells.svg").read_bytes()
    names = {path.name for path in folder.iterdir()}
    figures = {f"table2{part}.{kind}" for part in ("", "_cells") for kind in ("svg", "png")}
    assert names == {"table2.csv", "table2.provenance.json"} | figures
    ElementTree.fromstring(svg)


def test_provenance_says_what_a_rerun_needs(exhibit, folder):
    exhibit.save()
    record = json.loads((folder / "table2.provenance.json").read_text())
    keys = "exhibit profile seed seeds oracle nagkit commit data python packages threads cpu cores gpu platform seconds"
    assert list(record) == [*keys.split(), "peak_rss_mb"]


def test_provenance_hashes_the_data(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"nagkit")
    record = exhibits.provenance([tmp_path / "x.bin"])
    assert record["data"] == {"x.bin": "2d8f690bdd99e6ee5f81b547a72181cfb0d3f08bd8430975717fd5e2fbca7fe0"}


def test_cells_of_the_shown_table_carry_interval_and_n(exhibit):
    table = exhibits.table(exhibit.frame(paper=False), ["accuracy", "trained until the optimum"])
    assert table.loc["Ours"].tolist() == ["94.20 ± 0.50 (3)", "– (3)"]


def test_numeric_columns_stand_in_numeric_order():
    made = Exhibit("x", "quick")
    for column in ("20", "3", "100"):
        made.add("row", column, "metric", 1.0, n=1, unit="count")
    assert exhibits.table(made.frame(), ["metric"]).columns.get_level_values(1).tolist() == ["3", "20", "100"]


def test_golden_gap_names_the_first_difference(exhibit, tmp_path):
    golden = tmp_path / "golden.csv"
    frame = exhibit.frame()
    golden.write_text(exhibits.golden(frame))
    assert exhibits.golden_gap(frame, golden) == ""
    frame.loc[0, "value"] += 1
    assert "accuracy" in exhibits.golden_gap(frame, golden)
    assert "other rows" in exhibits.golden_gap(frame.iloc[1:], golden)


def test_numbers_of_another_processor_may_differ_a_little_in_places(exhibit, tmp_path, monkeypatch):
    golden, frame = tmp_path / "golden.csv", exhibit.frame()
    golden.write_text(exhibits.golden(frame))
    monkeypatch.setattr(exhibits, "processor", lambda: "another")
    frame["value"] *= 1.01
    assert exhibits.golden_gap(frame, golden) == ""
    frame["value"] *= 1.5
    assert "are far from golden.csv" in exhibits.golden_gap(frame, golden)
    assert "other rows" in exhibits.golden_gap(frame.iloc[1:], golden)


def test_unknown_profile_is_refused():
    with pytest.raises(NagkitError, match="'papr'.*'paper'"):
        Exhibit("table2", "papr")


def test_missing_results_say_how_to_make_them(tmp_path):
    with pytest.raises(NagkitError, match="run the exhibit's notebook"):
        exhibits.read_csv(tmp_path / "none.csv")


def test_a_file_with_other_columns_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(NagkitError, match="has the columns a, b"):
        exhibits.read_csv(tmp_path / "x.csv")


# Figures


def tidy(metric, *columns):
    """Rows a and b of a results file with all `columns`, and a constant metric."""
    exhibit = exhibits.Exhibit("test", "quick")
    for row, column in product("ab", columns):
        exhibit.add(row, column, metric, statistics.Interval(20.0 + len(column), 19.0, 26.0), n=3, unit="%")
        exhibit.add(row, column, "constant", 1.0, n=1, unit="%")
    return exhibit.frame()


def test_every_figure_draws_without_a_warning_and_is_closed():
    rng = np.random.default_rng(0)
    curves = {"cifar10": {name: np.sort(rng.uniform(90, 94, (3, 30)), axis=1) for name in "ab"}}
    made = [
        plots.search_curves(curves, optimum={"cifar10": 94.37}, paper=exhibits.paper_rows("table2"), floor={"cifar10": 90}),
        plots.cell_strip(rng.integers(0, 5, (5, 6)), columns=3),
        plots.curves(tidy("quality", "1", "10"), {"quality": "quality (%)", "constant": "none"}, xlabel="strength", floor="b"),
    ]
    for figure in made:
        figure.canvas.draw()
    assert not matplotlib.pyplot.get_fignums()
