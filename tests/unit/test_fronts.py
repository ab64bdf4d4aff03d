"""Fronts, hypervolumes, and searches for them at an equal number of queries."""

import numpy as np
import pytest

from nagkit.rng import numpy_stream
from nagkit.search import fronts
from nagkit.spaces import nb201

SPACE = nb201.Space()
METHODS = (fronts.random_search, fronts.evolution, fronts.nsga2)


def measure(archs):
    """Value and cost that conflict: 3×3 convolutions are good and dear, 1×1 nearly as good and cheap."""
    three, one = ((archs == op).sum(axis=1) for op in (nb201.CONV3, nb201.CONV1))
    return np.stack([three + 0.7 * one, three + 0.1 * one], axis=1)


def test_a_front_is_what_nothing_beats():
    points = np.array([[1.0, 1.0], [2.0, 2.0], [2.0, 3.0], [0.5, 2.0], [3.0, 4.0], [1.0, 1.0]])
    assert points[fronts.front(points)].tolist() == [[1.0, 1.0], [2.0, 2.0], [3.0, 4.0]]


def test_the_front_agrees_with_all_pairs_compared():
    points = numpy_stream(0, "test/fronts").normal(size=(300, 2))
    beaten = (points[:, None, 0] <= points[None, :, 0]) & (points[:, None, 1] >= points[None, :, 1])
    np.fill_diagonal(beaten, False)
    assert sorted(fronts.front(points)) == np.flatnonzero(~beaten.any(axis=1)).tolist()


def test_the_hypervolume_is_an_area_counted_on_a_grid():
    points = numpy_stream(1, "test/fronts").uniform(size=(20, 2))
    value, cost = np.meshgrid(*[(np.arange(1000) + 0.5) / 1000] * 2)
    covered = ((points[:, 0, None, None] >= value) & (points[:, 1, None, None] <= cost)).any(axis=0)
    assert fronts.hypervolume(points, (0.0, 1.0)) == pytest.approx(covered.mean(), abs=2e-3)


def test_points_behind_the_reference_have_no_volume():
    assert fronts.hypervolume(np.array([[-1.0, 0.5], [0.5, 2.0]]), (0.0, 1.0)) == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_a_search_measures_its_budget_of_distinct_cells_and_repeats_itself(method):
    found = [method(SPACE, measure, 50, numpy_stream(0, "test/search")) for _ in range(2)]
    np.testing.assert_array_equal(*found)
    assert found[0].shape == (50, 6) and len(np.unique(SPACE.code(found[0]))) == 50
    assert SPACE.is_valid(found[0]).all()


def test_searches_that_learn_find_a_larger_front_than_random_ones():
    """Means of 8 seeds; NSGA-II is ahead by several standard errors on this easy conflict."""
    volumes = {
        method: np.mean(
            [
                fronts.hypervolume(measure(method(SPACE, measure, 150, numpy_stream(seed, "test/ahead"))), (0.0, 6.0))
                for seed in range(8)
            ]
        )
        for method in (fronts.random_search, fronts.nsga2)
    }
    assert volumes[fronts.nsga2] > volumes[fronts.random_search]


def test_without_pymoo_the_remedy_is_named(monkeypatch):
    import sys

    from nagkit.errors import NagkitError

    monkeypatch.setitem(sys.modules, "pymoo.algorithms.moo.nsga2", None)
    with pytest.raises(NagkitError, match="needs the package pymoo"):
        fronts.nsga2(SPACE, measure, 5, numpy_stream(0, "test"))
