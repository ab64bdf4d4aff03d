"""Measures of pools, and the words of verdicts."""

import numpy as np
import pytest

from nagkit.report.statistics import Interval
from nagkit.spaces import nb201
from nagkit.studies import pools

SPACE = nb201.Space()
ACCURACY = np.linspace(10, 94, SPACE.size)
INVALID = np.full((2, 6), -1, np.int8)


def pool_of(*rows: int) -> np.ndarray:
    return np.concatenate([SPACE.all()[list(rows)], INVALID])


def test_invalid_draws_count_as_draws_and_enter_no_mean():
    pool = pool_of(0, SPACE.size - 1)
    assert (len(pool), pools.valid(pool)) == (4, 2)
    assert pools.average(pool, ACCURACY) == pytest.approx(52)
    assert (pools.worst(pool, ACCURACY), pools.best(pool, ACCURACY)) == (10, 94)


def test_a_repeated_cell_counts_once_among_the_distinct_and_each_time_in_the_mean():
    pool = pool_of(0, 0, 0, SPACE.size - 1)
    assert pools.distinct(pool) == 2
    assert pools.average(pool, ACCURACY) == pytest.approx(31)


def test_a_pool_without_a_valid_draw_has_no_statistics():
    assert np.isnan([measure(INVALID, ACCURACY) for measure in (pools.best, pools.average, pools.worst)]).all()
    assert pools.distinct(INVALID) == 0


@pytest.mark.parametrize(
    ("gap", "word"),
    [
        (Interval(1.0, 0.5, 1.5), "higher"),
        (Interval(-1.0, -1.5, -0.5), "lower"),
        (Interval(0.1, -0.5, 0.7), "not distinguishable"),
        (Interval(0.0, 0.0, 0.0), "equal"),
        (Interval(1.0, np.nan, np.nan), "no interval"),
    ],
)
def test_a_difference_is_put_into_the_word_that_its_interval_allows(gap, word):
    assert pools.sign(gap) == word
