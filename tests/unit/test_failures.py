"""An evaluation that fails is recorded, counts, is never the best, and teaches no method anything; objectives of one's own."""

import numpy as np
import pytest
from scipy.special import ndtri

import nagkit
from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream
from nagkit.search import baselines, fronts, methods, transfer
from nagkit.search.baselines import History, LocalSearch, RandomSearch, RegularizedEvolution
from nagkit.search.bo import BayesianOptimisation, normal_scores
from nagkit.spaces import nb201
from nagkit.spaces.base import get_space

SPACE = get_space("nb201")
OWN = (RandomSearch, RegularizedEvolution, LocalSearch, BayesianOptimisation)
BAD = (np.nan, np.inf, -np.inf)


def fails(archs):
    """A third of all cells fail, among them those that would be the best by far."""
    return np.asarray(archs)[:, 0] >= nb201.CONV3


def objective(archs, bad=np.nan):
    """The number of 3×3 convolutions, and no value where it fails."""
    return np.where(fails(archs), bad, (np.asarray(archs) == nb201.CONV3).sum(axis=1))


def run(method, seed=0, budget=60, **options):
    return baselines.run(method(SPACE, numpy_stream(seed, "test/failures")), objective, budget, **options)


def check(history):
    failed = fails(history.archs)
    assert len(np.unique(history.archs, axis=0)) == len(history.archs)
    assert np.isnan(history.values[failed]).all() and np.isfinite(history.values[~failed]).all()
    arch, value = history.best()
    assert not fails(arch[None])[0] and value == np.nanmax(history.values)
    first = int(np.argmax(~failed))
    assert not failed[history.incumbents()[first:]].any()


@pytest.mark.parametrize("bad", BAD)
def test_normal_scores_rank_what_is_finite_and_leave_out_the_rest(bad):
    scores = normal_scores(np.array([90.0, 91.0, bad, 89.0]))
    assert np.isnan(scores[2])
    np.testing.assert_allclose(scores[[0, 1, 3]], ndtri(np.array([1.5, 2.5, 0.5]) / 3))
    assert np.isnan(normal_scores(np.full(3, bad))).all() and len(normal_scores(np.empty(0))) == 0


@pytest.mark.parametrize("method", OWN)
@pytest.mark.parametrize("batch", [1, 7])
def test_failures_are_recorded_and_never_the_best(method, batch):
    check(run(method, batch=batch))


@pytest.mark.parametrize("method", OWN[1:])
def test_searches_learn_around_failures(method):
    """Cells that do not fail hold 1 of 5 free convolutions on average; later ones hold more, in each of three seeds."""
    assert all(np.nanmean(run(method, seed, budget=150).values[50:]) > 2 for seed in range(3))


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_by_name_survives_failures(method):
    check(methods.search(objective, method=method, budget=35, seed=1))


@pytest.mark.parametrize("method", [*OWN])
def test_a_search_of_which_everything_fails_still_spends_its_budget(method):
    history = baselines.run(method(SPACE, numpy_stream(0, "test")), lambda archs: np.full(len(archs), np.nan), 40, batch=3)
    assert len(history.archs) == 40 and np.isnan(history.values).all()
    with pytest.raises(NagkitError, match="all 40 evaluations failed"):
        history.best()


def test_model_based_search_is_not_trained_on_failures():
    searcher = methods.build("ridge", SPACE, numpy_stream(0, "t"), None)
    archs = SPACE.all()[:200:10]
    searcher.tell(archs, objective(archs))
    assert not fails(searcher.archs).any() and np.isfinite(searcher.scores).all()
    searcher.propose()
    assert len(searcher.scores) == (~fails(archs)).sum() and not fails(searcher.best(5)).any()


def test_a_failure_is_not_asked_for_again():
    for method in OWN:
        searcher = method(SPACE, numpy_stream(0, "test"))
        first = searcher.ask(1)
        searcher.tell(first, np.array([np.nan]))
        later = np.concatenate([searcher.ask(1) for _ in range(30)]) if method is RandomSearch else searcher.ask(1)
        assert not (later == first).all(axis=1).any()


def test_what_came_before_the_first_success_is_no_incumbent_afterwards():
    history = History(np.zeros((5, 1), np.int8), np.array([np.nan, 2.0, np.nan, 1.0, 3.0]))
    assert list(history.incumbents()) == [0, 1, 1, 1, 4]
    assert transfer.incumbent(history.values)[1:].tolist() == [2, 2, 2, 3]


# Two goals ---------------------------------------------------------------------------------------------------------------


def measure(archs):
    three, one = ((np.asarray(archs) == op).sum(axis=1) for op in (nb201.CONV3, nb201.CONV1))
    points = np.stack([three + 0.7 * one, three + 0.1 * one], axis=1).astype(float)
    points[fails(archs), 0] = np.nan
    return points


@pytest.mark.parametrize("method", [fronts.random_search, fronts.evolution, fronts.nsga2])
def test_searches_for_two_goals_survive_failures(method):
    archs = method(SPACE, measure, 60, numpy_stream(0, "test/fronts"))
    assert len(np.unique(archs, axis=0)) == 60
    assert not fails(archs[fronts.front(measure(archs))]).any()


def test_nsga2_turns_away_from_failures():
    """A third or more of random cells fail; of the second half of a run fewer do, in each of three seeds."""
    for seed in range(3):
        archs = fronts.nsga2(SPACE, measure, 200, numpy_stream(seed, "test/fronts"))
        assert fails(archs[100:]).mean() < 0.25


@pytest.mark.parametrize("bad", BAD)
def test_a_failure_is_on_no_front_and_has_no_volume(bad):
    points = np.array([[1.0, 1.0], [bad, 0.1], [5.0, bad]])
    assert list(fronts.front(points)) == [0]
    assert fronts.hypervolume(points, (0.0, 2.0)) == 1.0
    assert len(fronts.front(points[1:])) == 0


# An objective of one's own ---------------------------------------------------------------------------------------------


def test_a_search_on_ones_own_objective_is_a_function_of_its_seed():
    one, same, other = (methods.search(objective, method="evolution", budget=30, seed=seed).archs for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_a_small_budget_takes_a_small_design():
    assert len(methods.search(objective, budget=8, design=4, method="ridge").archs) == 8
    with pytest.raises(NagkitError, match="a budget of 8 is smaller than the initial design of 20"):
        methods.search(objective, budget=8)


def test_an_objective_that_answers_with_another_shape_is_refused():
    with pytest.raises(NagkitError, match=r"values of shape \(\) for 20 architectures"):
        methods.search(lambda archs: 1.0, method="random")


@pytest.mark.parametrize("method", ["random", "local-search", "evolution", "ridge", "diffusionnag"])
def test_suggestions_are_new_and_follow_what_was_evaluated(method):
    archs = SPACE.random(60, numpy_stream(0, "test/suggest"))
    found = methods.suggest(archs, objective(archs), 9, method=method)
    assert found.shape == (9, 6) and len(np.unique(np.concatenate([found, archs]), axis=0)) == 9 + len(np.unique(archs, axis=0))
    if method not in ("random", "local-search"):
        assert np.nan_to_num(objective(found)).mean() > np.nan_to_num(objective(archs)).mean()


def test_the_package_of_searches_is_the_search_itself():
    found = nagkit.search(objective, method="evolution", budget=25, seed=3)
    np.testing.assert_array_equal(found.archs, methods.search(objective, method="evolution", budget=25, seed=3).archs)
