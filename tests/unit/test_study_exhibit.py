"""An exhibit turns declared rows, columns, metrics and seeds into tidy numbers with honest intervals."""

import json

import numpy as np
import pandas as pd
import pytest

from nagkit import paths
from nagkit.benchmarks.table import open_benchmark
from nagkit.errors import NagkitError
from nagkit.study import estimates, measures, pool, tidy
from nagkit.study.exhibit import Exhibit, sizes
from nagkit.study.jobs import Task

DATA = {"training_seed": range(3), "seed": range(4)}


def values(dataset, seed, training_seed=0, level=0.0):
    return {"x": np.array([float(level) + 10 * training_seed + seed + 100 * (dataset == "b")])}


def level(run):
    return float(run.arrays["x"][0])


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "root", lambda: tmp_path)


def declared(**options):
    exhibit = Exhibit("test", columns=["a", "b"], **options)
    exhibit.row("low", Task(values, {}), over=DATA)
    exhibit.row("high", Task(values, {"level": 7.0}), over=DATA)
    exhibit.metric("level", level, unit="count")
    exhibit.pair("high", "low")
    return exhibit


def test_intervals_count_the_outer_seed_and_average_over_the_others():
    results = declared().run(progress=False)
    entry = results.number("low", "a", "level")
    expected = estimates.mean_ci(np.array([1.5, 11.5, 21.5]), "count")
    assert (entry["value"], entry["lo"], entry["hi"], entry["n"]) == (*expected, 3)
    assert results.number("low", "b", "level")["value"] == pytest.approx(111.5)


def test_with_one_outer_seed_intervals_count_runs():
    exhibit = Exhibit("test", columns=["a"])
    exhibit.row("only", Task(values, {}), over={"seed": range(5)})
    exhibit.metric("level", level, unit="count")
    assert exhibit.run(progress=False).number("only", "a", "level")["n"] == 5


def test_differences_are_paired_so_what_runs_share_cancels():
    entry = declared().run(progress=False).number("high minus low", "a", "difference of level")
    assert (entry["value"], entry["lo"], entry["hi"], entry["n"]) == (7, 7, 7, 3)


def test_a_row_with_other_seeds_is_compared_by_its_mean():
    exhibit = declared()
    exhibit.row("null", Task(values, {"level": 5.0}), over={"seed": range(2)})
    exhibit.pair("low", "null")
    assert exhibit.run(progress=False).number("low minus null", "a", "difference of level")["value"] == pytest.approx(
        11.5 - 5.5
    )


def test_where_one_row_has_fewer_seeds_the_pairs_end_there():
    exhibit = Exhibit("test", columns=["a"])
    exhibit.row("few", Task(values, {"level": 1.0}), over={"seed": range(2)})
    exhibit.row("many", Task(values, {}), over={"seed": range(5)})
    exhibit.metric("level", level, unit="count")
    exhibit.pair("many", "few", wins=True)
    results = exhibit.run(progress=False)
    entry = results.number("many minus few", "a", "difference of level")
    assert (entry["value"], entry["lo"], entry["hi"], entry["n"]) == (-1, -1, -1, 2)
    assert results.number("many over few", "a", "wins of level")["value"] == 0


def test_a_win_counts_whole_and_a_tie_half():
    exhibit = Exhibit("test", columns=["a"])
    for row in ("one", "other"):
        exhibit.row(row, Task(values, {}), over={"seed": range(5)})
    exhibit.metric("level", level, unit="count")
    exhibit.pair("one", "other", wins=True)
    entry = exhibit.run(progress=False).number("one over other", "a", "wins of level")
    assert (entry["value"], entry["lo"], entry["hi"]) == (50, 50, 50)


def test_a_column_may_set_several_parameters_and_has_its_own_oracle():
    exhibit = Exhibit("test", columns=["a 1", "b 2"], axis="dataset level", oracle={"a 1": "table", "b 2": "surrogate"})
    exhibit.row("only", Task(values, {}), over={"seed": range(2)})
    exhibit.metric("level", lambda run: float(len(run.column)), unit="count")
    exhibit.metric("by level", lambda run: {"x": level(run)}, unit="count")
    results = exhibit.run(progress=False)
    assert exhibit.oracle == "table, surrogate"
    assert results.number("only", "b 2", "level")["oracle"] == "surrogate"
    assert results.number("only", "x", "b 2 by level")["value"] == pytest.approx(100.5 + 2)


def test_a_second_grid_adds_to_the_results_of_the_first():
    first, second = declared(), Exhibit("test", columns=["b"])
    second.row("low", Task(values, {"level": 1.0}), over=DATA)
    second.metric("other", level, unit="count")
    results = second.run(progress=False, into=first.run(progress=False))
    assert results.number("low", "b", "other")["value"] - results.number("low", "b", "level")["value"] == 1
    assert results.provenance()["jobs"] == 2 * 2 * 12 + 12


def test_a_measure_with_several_numbers_makes_columns():
    exhibit = Exhibit("test", columns=["a"])
    exhibit.row("only", Task(values, {}), over={"seed": range(2)})
    exhibit.metric("level", lambda run: {"1": level(run), "2": 2 * level(run)}, unit="count")
    assert exhibit.run(progress=False).number("only", "2", "a level")["value"] == 1


def test_another_seed_is_another_study_with_the_same_predictors():
    first, second = (declared(seed=seed).run(progress=False).number("low", "a", "level")["value"] for seed in (0, 1))
    assert second - first == 1000


def test_what_is_declared_wrongly_is_named():
    exhibit = declared()
    with pytest.raises(NagkitError, match="two rows called 'low'"):
        exhibit.row("low", Task(values, {}))
    with pytest.raises(NagkitError, match="two metrics called 'level'"):
        exhibit.metric("level", level, unit="")
    with pytest.raises(NagkitError, match="unknown row of test 'lwo'"):
        exhibit.pair("high", "lwo")
    with pytest.raises(NagkitError, match="unknown metric of test 'size'"):
        exhibit.pair("high", "low", metrics=["size"])
    with pytest.raises(NagkitError, match="unknown column of test 'c'"):
        exhibit.row("new", Task(values, {}), columns=["c"])
    with pytest.raises(NagkitError, match="row 'new': test_study_exhibit:values has no parameter 'sede'"):
        exhibit.row("new", Task(values, {}), over={"sede": [1]})
    with pytest.raises(NagkitError, match="unknown profile 'fast'"):
        Exhibit("test", profile="fast")
    with pytest.raises(NagkitError, match="unknown profile 'fast'"):
        sizes("fast", quick=1, paper=2)


def test_provenance_comes_from_the_job_files_and_survives_a_second_run():
    declared().run(progress=False)
    said = declared().run(progress=False).save()  # every job was there already
    assert said["jobs"] == 48 and list(said["code"]) == ["test_study_exhibit:values"]
    assert json.loads((paths.results("quick") / "test.provenance.json").read_text())["code"] == said["code"]


def test_the_recorded_profile_shows_the_committed_numbers_and_writes_none(tmp_path):
    declared(profile="paper").run(progress=False).save()
    files = {path: path.read_bytes() for path in paths.results("paper").iterdir()}
    results = declared(profile="recorded").run(progress=False)
    assert results.number("low", "a", "level")["value"] == pytest.approx(11.5)
    assert results.save()["profile"] == "paper"
    assert {path: path.read_bytes() for path in paths.results("paper").iterdir()} == files


@pytest.mark.parametrize("shift", [0.5, -0.5])
@pytest.mark.parametrize("row", [0, 3, 7])
def test_half_a_point_of_accuracy_fails_the_golden_comparison(shift, row):
    exhibit = declared()
    exhibit.metric("accuracy", lambda run: 50 + level(run) / 10, unit="%")
    frame = exhibit.run(progress=False).ours.query("metric == 'accuracy'").reset_index(drop=True)
    other = frame.copy()
    other.loc[row % len(other), "value"] += shift
    assert tidy.golden_gaps(frame, frame) == []
    assert len(tidy.golden_gaps(other, frame)) == 1


def test_an_interval_stays_in_the_range_of_its_quantity():
    skew = np.array([100.0, 100.0, 97.0])
    assert estimates.mean_ci(skew).hi > 100
    assert estimates.mean_ci(skew, "%").hi <= 100
    assert estimates.share(np.ones(20)).lo < 100 == estimates.share(np.ones(20)).hi


def test_text_takes_its_numbers_from_the_results():
    said = declared().run(progress=False).say("A level of {low | a | level}.").data
    assert said.startswith("A level of 11.5 [") and "{" not in said


def test_a_real_study_gives_the_same_numbers_in_two_processes(monkeypatch, tmp_path):
    def pools(n_workers):
        monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / f"workers-{n_workers}"))
        exhibit = Exhibit("test", columns=["cifar10"], benchmark=open_benchmark("nb201", "surrogate"))
        over = {"training_seed": range(2), "seed": range(1)}
        exhibit.row("random", pool.uniform("nb201", 20), over={"seed": range(2)})
        exhibit.row("guided", pool.guided("nb201", 20, prior="exact"), over=over)
        exhibit.metric("mean", measures.mean, unit="%")
        exhibit.metric("distinct", measures.distinct, unit="count")
        return exhibit.run(n_workers=n_workers, progress=False).frame

    pd.testing.assert_frame_equal(pools(1), pools(2))
