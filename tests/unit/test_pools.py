"""Measures of pools, the words of verdicts, and the jobs of the ablation."""

import numpy as np
import pytest

from nagkit.errors import NagkitError
from nagkit.report.statistics import Interval
from nagkit.spaces import nb201
from nagkit.studies import ablation, pools

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


def test_sampling_seeds_are_averaged_within_a_training_seed():
    groups = [[pool_of(0), pool_of(SPACE.size - 1)], [pool_of(0)]]
    assert pools.by_group(groups, pools.average, ACCURACY).tolist() == [52.0, 10.0]


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


def test_correlations_of_the_truth_with_itself_are_one():
    found = ablation.correlations(ACCURACY, ACCURACY, ACCURACY > 90)
    assert list(found.values()) == pytest.approx([1.0] * 4)


def test_training_jobs_score_every_cell_and_validate_on_rows_that_were_held_out(monkeypatch):
    from nagkit.data.upstream import Triplets

    rng = np.random.default_rng(0)
    n = 600
    triplets = Triplets(
        archs=SPACE.all()[rng.integers(0, SPACE.size, n)],
        accuracy=rng.uniform(50, 80, n),
        task=rng.integers(0, 40, n),
        classes=np.stack([rng.permutation(600)[:20] + 1 for _ in range(40)]),
        order=rng.permutation(n),
        params=np.zeros(n),
        flops=np.zeros(n),
        class_names=[],
    )
    monkeypatch.setattr(ablation.upstream, "triplets", lambda: triplets)
    scored = ablation.train_and_score("noise-aware", 0, 1, code="mean", graph="flat", draws=3)
    assert scored["cifar10"].shape == (SPACE.size,) and scored["cifar10/archs"].shape == (3, 6)
    np.testing.assert_array_equal(scored["cifar10"], scored["cifar100"])  # the mean code knows no data set
    held = ablation.train_and_validate("ranking", 0, 1, "official")
    assert len(held["predicted"]) == 400 and set(held["accuracy"]) == set(triplets.accuracy[triplets.order[:400]])


def test_an_unknown_profile_is_refused():
    with pytest.raises(NagkitError, match="'fast'"):
        ablation.ablation_dataset("fast")
