"""Searches for accuracy and cost as jobs, and what is measured of them."""

import numpy as np
import pytest

from nagkit.spaces.base import get_space
from nagkit.study import hardware
from nagkit.study.exhibit import Run

SPACE, COST = get_space("nb201"), "latency_pixel3"
WHERE = ("nb201", "cifar10")


@pytest.fixture(autouse=True)
def embedded_data_only(tmp_path, monkeypatch):
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))
    hardware.plane.cache_clear()


def run(archs):
    return Run("row", COST, {}, {"archs": archs}, archs, np.empty(0))


def found(method, limit=None):
    task = hardware.by_method(method, *WHERE, 30, rounds=1, limit=limit)
    return task.function(**task.arguments, cost=COST, seed=0)["archs"]


def test_searches_with_predictors_keep_to_their_budget_and_begin_alike():
    first, second = found("guided"), found("every-cell", 0.25)
    for archs in (first, second):
        assert archs.shape == (30, 6) and len(np.unique(SPACE.code(archs))) == 30
    np.testing.assert_array_equal(first[:15], second[:15])


@pytest.mark.parametrize("method", hardware.BASELINES)
def test_a_search_without_predictors_measures_each_cell_once(method):
    assert len(np.unique(SPACE.code(found(method, 0.25)))) == 30


def test_the_whole_space_has_the_whole_hypervolume_and_its_best_keeps_the_limit():
    every, highest = SPACE.all(), hardware.bound(*WHERE, COST, 0.25)
    value, cost = hardware.plane(*WHERE, COST).T
    assert hardware.hypervolume(*WHERE)(run(every)) == pytest.approx(100)
    assert hardware.best_under(*WHERE, 0.25)(run(every)) == value[cost <= highest].max()
    assert hardware.best_under(*WHERE, 0.25)(run(every[cost > highest])) == 0
    assert hardware.kept_limit(*WHERE, 0.25)(run(every[cost <= highest])) == 100
