"""Ask/tell searches and the transfer protocol."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream
from nagkit.search import transfer
from nagkit.search.baselines import History, LocalSearch, RandomSearch, RegularizedEvolution, run
from nagkit.search.bo import NOISE, BayesianOptimisation
from nagkit.spaces import nb201
from nagkit.spaces.base import ranked

SPACE = nb201.Space()
METHODS = (RandomSearch, RegularizedEvolution, LocalSearch, BayesianOptimisation)


def convolutions(archs: np.ndarray) -> np.ndarray:
    """A landscape with one local optimum: the number of 3×3 convolutions."""
    return (np.asarray(archs) == nb201.CONV3).sum(axis=1).astype(float)


def search(method: type, seed: int = 0, budget: int = 60, **options) -> History:
    return run(method(SPACE, numpy_stream(seed, "test")), convolutions, budget, **options)


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("method", METHODS)
def test_a_search_trains_exactly_its_budget_and_nothing_twice(method, batch):
    history = search(method, batch=batch)
    assert history.archs.shape == (60, 6) and history.archs.dtype == np.int8
    assert len(np.unique(history.archs, axis=0)) == 60
    assert np.array_equal(history.values, convolutions(history.archs))


@pytest.mark.parametrize("method", METHODS)
def test_a_search_is_a_function_of_its_stream(method):
    assert np.array_equal(search(method, 1).archs, search(method, 1).archs)
    assert not np.array_equal(search(method, 1).archs, search(method, 2).archs)


@pytest.mark.parametrize("method", [RegularizedEvolution, LocalSearch, BayesianOptimisation])
def test_learning_searches_climb_a_smooth_landscape(method):
    """Uniform cells hold 1.2 of the 6 convolutions on average; a mean of 50 of them exceeds 2 with probability below 1e-8."""
    assert all(search(method, seed, budget=150).values[50:100].mean() > 2 for seed in range(5))


def test_evolution_keeps_its_population_size_and_forgets_the_oldest():
    method = RegularizedEvolution(SPACE, numpy_stream(0, "test"), population=4, tournament=2)
    history = run(method, convolutions, 20)
    assert [value for _, value in method._members] == list(history.values[-4:])


def test_evolution_mutates_one_slot_of_a_living_member():
    history = search(RegularizedEvolution, budget=40)
    for i in range(10, 40):
        distance = (history.archs[i - 10 : i] != history.archs[i]).sum(axis=1)
        assert distance.min() <= 2  # 1, or 2 when the first mutant had been trained before


def test_local_search_restarts_when_no_neighbour_is_better():
    flat = run(LocalSearch(SPACE, numpy_stream(0, "test")), lambda archs: np.zeros(len(archs)), 26)
    assert ((flat.archs[1:25] != flat.archs[0]).sum(axis=1) == 1).all()  # all 24 neighbours of the start, then a new one
    assert (flat.archs[25] != flat.archs[0]).sum() > 1


def test_the_process_agrees_with_textbook_regression():
    """The posterior that is kept up to date equals the one solved from all trained cells at once."""
    method = BayesianOptimisation(SPACE, numpy_stream(0, "test"), prior=nb201.hand_rule(SPACE.all()))
    history = run(method, lambda archs: convolutions(archs) + 1e-3 * nb201.hand_rule(archs), 40)
    rows, prior = SPACE.code(history.archs), method._prior
    covariance, before = np.stack([method._covariance(row) for row in rows]), 1 + 4 + prior**2
    gram = covariance[:, rows] + NOISE**2 * np.eye(len(rows))
    _, place, size = np.unique(history.values, return_inverse=True, return_counts=True)
    scores = ndtri(((np.cumsum(size) - (size - 1) / 2)[place] - 0.5) / len(rows))
    mean, variance = method.posterior()
    assert np.allclose(mean, prior + covariance.T @ np.linalg.solve(gram, scores - prior[rows]), atol=1e-6)
    explained = np.einsum("nb,nb->b", covariance, np.linalg.solve(gram, covariance))
    assert np.allclose(variance, before - explained, atol=1e-6)


def test_a_warm_start_trains_the_predictors_favourite_first():
    prior = numpy_stream(0, "prior").normal(size=SPACE.size)
    method = BayesianOptimisation(SPACE, numpy_stream(0, "test"), prior=prior)
    assert SPACE.code(method.ask(1)).item() == prior.argmax()


def test_a_good_prior_finds_the_best_cell_sooner_than_none():
    warm = [run(warm_search(seed), convolutions, 30).values.max() for seed in range(3)]
    assert warm == [6, 6, 6]


def warm_search(seed: int) -> BayesianOptimisation:
    noisy = convolutions(SPACE.all()) + numpy_stream(seed, "prior").normal(size=SPACE.size)
    return BayesianOptimisation(SPACE, numpy_stream(seed, "test"), prior=noisy)


def test_optimisation_proposes_distinct_cells_in_a_batch_and_handles_equal_values():
    flat = run(BayesianOptimisation(SPACE, numpy_stream(0, "test")), lambda archs: np.zeros(len(archs)), 40, batch=8)
    assert len(np.unique(flat.archs, axis=0)) == 40


def test_a_prior_of_another_length_is_refused():
    with pytest.raises(NagkitError, match="all 15625 architectures"):
        BayesianOptimisation(SPACE, numpy_stream(0, "test"), prior=np.zeros(3))


def test_a_budget_beyond_the_space_is_refused():
    class Tiny(nb201.Space):
        size = 20

    with pytest.raises(NagkitError, match="smaller budget"):
        run(RandomSearch(Tiny(), numpy_stream(0, "test")), convolutions, 21)


@pytest.mark.parametrize(("budget", "batch"), [(0, 1), (5, 0)])
def test_an_empty_budget_is_refused(budget, batch):
    with pytest.raises(NagkitError, match="at least 1"):
        search(RandomSearch, budget=budget, batch=batch)


def test_a_tournament_larger_than_the_population_is_refused():
    with pytest.raises(NagkitError, match="tournament of 5"):
        RegularizedEvolution(SPACE, numpy_stream(0, "test"), population=3, tournament=5)


VALUES = st.lists(st.floats(0, 100), min_size=1, max_size=30).map(np.array)


@given(VALUES)
@settings(max_examples=50, deadline=None)
def test_the_incumbent_is_the_running_maximum(values):
    best = transfer.incumbent(values)
    assert all(best[i] == values[: i + 1].max() for i in range(len(values)))
    assert np.array_equal(transfer.after(values, range(1, len(values) + 1)), best)


def test_a_list_shorter_than_a_count_keeps_its_last_incumbent():
    assert transfer.after(np.array([90.0, 93.0]), (1, 3, 20)).tolist() == [90, 93, 93]


def test_after_works_on_many_seeds_at_once():
    assert transfer.after(np.array([[1.0, 3.0, 2.0], [5.0, 4.0, 6.0]]), (1, 2, 3)).tolist() == [[1, 3, 3], [5, 5, 6]]


def test_after_refuses_an_empty_list():
    with pytest.raises(NagkitError, match="at least 1"):
        transfer.after(np.empty(0))


def test_trained_until_counts_from_one_and_never_is_infinite():
    assert transfer.trained_until(np.array([[90.0, 94.37], [94.37, 90.0], [1.0, 2.0]]), 94.37).tolist() == [2, 1, np.inf]


def test_ranked_lists_distinct_architectures_best_first():
    archs = SPACE.random(500, numpy_stream(0, "test"))
    archs = np.concatenate([archs, archs[:50]])
    order = ranked(archs, nb201.hand_rule(archs))
    assert len(order) == len(np.unique(archs, axis=0))
    assert (np.diff(nb201.hand_rule(order)) <= 0).all()


def test_ranked_breaks_ties_by_draw_order_or_by_the_stream():
    archs = SPACE.random(100, numpy_stream(0, "test"))
    same = np.zeros(100)
    kept = ranked(archs, same)
    assert np.array_equal(kept[0], archs[0])
    assert not np.array_equal(kept, ranked(archs, same, rng=numpy_stream(0, "ties")))


def test_ranked_refuses_invalid_draws():
    with pytest.raises(NagkitError, match="invalid draws"):
        ranked(np.full((2, 6), -1), np.zeros(2))


def test_null_rankings_start_at_the_largest_cell():
    every = SPACE.all()
    largest, ruled = (rank(every, numpy_stream(0, "ties")) for rank in SPACE.null_rankings.values())
    assert len(largest) == len(ruled) == 15_625
    assert (largest[0] == nb201.CONV3).all() and (ruled[0] == nb201.CONV3).all()
    assert (np.diff(nb201.cost(largest)[0]) <= 0).all() and (np.diff(nb201.hand_rule(ruled)) <= 0).all()
