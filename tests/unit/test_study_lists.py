"""Lists of the transfer protocol: what they hold, how they are counted, and the ratios behind the factor 35."""

import numpy as np
import pytest

from nagkit.spaces.base import get_space
from nagkit.study import estimates, lists, pool
from nagkit.study.exhibit import Exhibit, Run
from nagkit.study.jobs import Task

SPACE = get_space("nb201")


class Benchmark:
    """The optimum is 94."""

    oracle = "made up"

    def optimum(self, dataset, *, split):
        return 94.0

    def query(self, archs, dataset, *, split):
        return SPACE.code(archs).astype(float)


def run_of(*values: float) -> Run:
    return Run("row", "cifar10", {}, {}, np.zeros((len(values), SPACE.n_slots), np.int8), np.array(values))


def listed(dataset: str, seed: int, training_seed: int = 0, first: int = 90) -> dict[str, np.ndarray]:
    """A list whose first cell is worth `first` plus its seeds, and whose fifth is the optimum."""
    return {"archs": SPACE.all()[[first + seed + training_seed, 80, 81, 82, 94]]}


def test_a_list_is_worth_its_best_so_far_and_keeps_it_when_it_ends():
    run = run_of(90, 92, 91)
    assert lists.accuracy_after((1, 3, 20))(run) == {"1": 90, "3": 92, "20": 92}
    assert lists.regret_after((1, 3), Benchmark())(run) == {"1": 4, "3": 2}


def test_an_empty_list_counts_as_nothing_and_never_arrives():
    run = run_of()
    assert lists.accuracy_after((1,))(run) == {"1": 0}
    assert lists.until(Benchmark())(run) == np.inf and lists.reached(lists.until(Benchmark()))(run) == 0


def test_counts_stop_at_the_optimum_near_it_and_at_the_lists_own_best():
    run = run_of(90, 93.6, 91)
    assert lists.until(Benchmark())(run) == np.inf
    assert (lists.until(Benchmark(), below=0.5)(run), lists.until_best(run)) == (2, 2)


def test_a_pool_in_order_holds_each_cell_once_by_falling_score():
    from nagkit.sampling import load_predictor

    task: Task = lists.in_order(pool.guided("nb201", 40, prior="exact"))
    archs = task.function(**task.arguments, dataset="cifar10", seed=0, training_seed=0)["archs"]
    scores = load_predictor("nb201", "cifar10", training_seed=0).rank(archs).round(4)
    assert len(np.unique(archs, axis=0)) == len(archs) <= 40 and (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("method", ["random-search", "tnas"])
def test_a_search_keeps_to_its_budget_and_trains_nothing_twice(method, monkeypatch, tmp_path):
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))
    archs = lists.search("nb201", "cifar10", method, 8, seed=0)["archs"]
    assert archs.shape == (8, 6) and len(np.unique(archs, axis=0)) == 8


def test_ratios_are_those_of_summed_medians_and_have_no_value_where_one_never_arrives(monkeypatch, tmp_path):
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))
    exhibit = Exhibit("test", columns=["cifar10", "cifar100"], benchmark=Benchmark())
    for row, first in (("quick", 94), ("slow", 50)):
        exhibit.row(row, Task(listed, {"first": first}), over={"seed": [0]})
    exhibit.metric("until-optimum", lists.until(Benchmark()), unit="count", reduce=estimates.median)
    exhibit.metric("until-never", lists.until(Benchmark(), below=-100), unit="count", reduce=estimates.median)
    results = exhibit.run(progress=False)
    for metric in ("until-optimum", "until-never"):
        lists.ratios(results, metric, ["quick", "slow"], ["quick"], ["cifar10", "cifar100"])
    assert results.number("slow", "quick", "ratio until-optimum")["value"] == pytest.approx(5)
    assert np.isnan(results.number("slow", "quick", "ratio until-never")["value"])


def test_the_papers_factor_35_follows_from_its_own_column():
    results = Exhibit("table2").run(progress=False)
    lists.printed_ratios(results)
    found = {row: results.number(row, "all four", "printed ratio")["value"] for row in ("metad2a", "tnas")}
    assert found == {"metad2a": 35, "tnas": 15}
