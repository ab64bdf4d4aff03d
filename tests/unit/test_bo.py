"""Bayesian optimisation: acquisition functions, encodings, surrogates, proposers and methods of one harness."""

import io
import time

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate, stats

from nagkit import cli
from nagkit.diffusion.exact import exact_prior
from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream, torch_stream
from nagkit.search import acquisition, baselines, encoding, methods, proposers, surrogates, tune
from nagkit.search.loop import ModelBased
from nagkit.spaces import mbv3, nb201
from nagkit.spaces.base import get_space

SPACES = {"nb201": nb201.Space(), "mbv3": mbv3.Space()}
each_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


@pytest.fixture(autouse=True)
def embedded_data(monkeypatch, tmp_path):
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))


def draws(space, n, seed=0):
    return space.random(n, numpy_stream(seed, "test/bo"))


def linear(space):
    """A landscape that is linear in the features, of deviation about 1."""
    weights = torch.randn(encoding.encode(space, draws(space, 1)).shape[1], generator=torch_stream(0, "test/bo"))
    return lambda archs: (encoding.encode(space, archs) @ weights.double()).numpy()


# Acquisition functions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "sd", "best"), [(0.0, 1.0, 0.5), (1.0, 0.3, 0.2), (-2.0, 0.5, 0.0)])
def test_expected_improvement_and_its_probability_are_the_integrals(mean, sd, best):
    density = stats.norm(mean, sd).pdf
    top = mean + 12 * sd
    excess = integrate.quad(lambda y: (y - best) * density(y), best, top)[0]
    chance = integrate.quad(density, best, top)[0]
    given = np.array([mean]), np.array([sd]), best, None
    assert acquisition.expected_improvement(*given)[0] == pytest.approx(excess, rel=1e-6)
    assert np.exp(acquisition.probability_of_improvement(*given)[0]) == pytest.approx(chance, rel=1e-6)


def test_the_probability_still_ranks_where_it_underflows():
    worth = acquisition.probability_of_improvement(np.array([-50.0, -60.0]), np.ones(2), 0.0, None)
    assert np.isfinite(worth).all() and worth[0] > worth[1]


def test_thompson_draws_have_the_posteriors_moments():
    """20,000 draws: off by 0.04 in mean or deviation with probability below 1e-7."""
    mean, sd = np.full(20_000, 0.3), np.full(20_000, 1.0)
    worth = acquisition.thompson(mean, sd, 0.0, numpy_stream(0, "test"))
    assert worth.mean() == pytest.approx(0.3, abs=0.04) and worth.std() == pytest.approx(1, abs=0.04)


# Encodings -------------------------------------------------------------------------------------------------------------


def test_relaxed_features_agree_with_the_graph_on_every_cell():
    """The polynomial for live edges is exact on cells: compared with the graph search of `nb201.live_edges`."""
    archs = SPACES["nb201"].all()
    raw = SPACES["nb201"].features((SPACES["nb201"].encode(archs) + 1) / 2).numpy()
    chosen, live = np.eye(5)[archs], nb201.live_edges(archs)
    working = chosen[:, :, 1:] * live[:, :, None]
    expected = np.concatenate([chosen.reshape(len(archs), -1), working.reshape(len(archs), -1), working.sum(axis=1)], axis=1)
    np.testing.assert_allclose(raw, expected, atol=1e-12)


def test_features_of_a_posterior_mean_are_the_expected_features():
    """Multilinear features and independent rows: 20,000 draws agree within 6 standard errors."""
    space = SPACES["nb201"]
    p = torch.rand(1, 8, 7, generator=torch_stream(0, "test"), dtype=torch.float64) * torch.from_numpy(space.allowed)
    p = p / p.sum(dim=2, keepdim=True)
    stream = numpy_stream(0, "test/rows")
    rows = [stream.choice(5, 20_000, p=p[0, i, 2:].numpy()) for i in range(1, 7)]
    sampled = encoding.encode(space, np.stack(rows, axis=1).astype(np.int8))
    expected = encoding.features(space, 2 * p - 1)[0]
    # the polynomial of the counts is multilinear too, so all features agree
    error = (sampled.mean(dim=0) - expected).abs() / (sampled.std(dim=0) / 20_000**0.5).clamp_min(1e-9)
    assert error.max() < 6


@each_space
def test_features_are_scaled_and_differentiable(space):
    """Two random architectures are about √2 apart (mean square of 500 pairs, within a tenth)."""
    x = encoding.encode(space, draws(space, 1000))
    assert (x[:500] - x[500:]).norm(dim=1).square().mean() == pytest.approx(2, rel=0.1)
    code = space.encode(draws(space, 3)).requires_grad_()
    (slope,) = torch.autograd.grad(encoding.features(space, code).square().sum(), code)
    assert torch.isfinite(slope).all() and slope.abs().sum() > 0


def test_paths_of_a_cell_are_those_of_the_drawing():
    archs = np.array([[3, 1, 2, 0, 4, 1]], np.int8)
    found = set(np.flatnonzero(SPACES["nb201"].paths(archs)[0].numpy()))
    one, two = [0], [3 + 5 * 4, 1 + 5 * 1]
    assert found == {*one, *(5 + i for i in two), 30 + 3 + 5 * 2 + 25 * 1}


# Surrogates ------------------------------------------------------------------------------------------------------------


def rank(a, b):
    return stats.kendalltau(a, b).statistic


@each_space
@pytest.mark.parametrize(
    "name", ["ridge", "process", "ensemble", "perceptron-bayesian", "graph-bayesian", "hamiltonian", "botorch"]
)
def test_surrogates_learn_a_linear_landscape(space, name):
    """80 noiseless values rank 200 others at τ above 0.25 (chance: below 0.15 with probability over 0.999)."""
    truth = linear(space)
    archs, others = draws(space, 80), draws(space, 200, seed=1)
    surrogate = methods._surrogate(name, space, torch_stream(0, "test"), {})
    surrogate.fit(archs, (truth(archs) - truth(archs).mean()) / truth(archs).std())
    mean, sd = surrogate.posterior(others)
    assert mean.shape == sd.shape == (200,) and (sd > 0).all()
    assert rank(mean, truth(others)) > 0.25


@each_space
def test_the_value_that_guides_is_the_posterior_mean_at_architectures(space):
    surrogate = surrogates.ProcessSurrogate(space)
    archs = draws(space, 40)
    surrogate.fit(archs, linear(space)(archs))
    np.testing.assert_allclose(surrogate.value(space.encode(archs)).numpy(), surrogate.posterior(archs)[0], atol=1e-9)


def test_hamiltonian_sampling_of_a_linear_network_has_the_posterior_of_the_regression():
    """One weight and one bias without a hidden layer: the samples' mean is near the exact posterior mean."""
    x, y = torch.linspace(-1, 1, 20)[:, None], torch.linspace(-1, 1, 20).numpy() * 0.5
    sampler = surrogates.HamiltonianSurrogate(
        lambda archs: x, lambda x: surrogates.Perceptrons(1, torch_stream(0, "test"), members=8, width=1, depth=0),
        torch_stream(1, "test"), burn_in=300, steps=1200, keep=10, rate=6e-2, noise=0.5,
    )  # fmt: skip
    sampler.fit(None, y.astype(np.float64))
    mean, sd = sampler.posterior(None)
    design = np.stack([x[:, 0].numpy(), np.ones(20)], axis=1)
    precision = design.T @ design / 0.25 + np.eye(2)
    exact = design @ np.linalg.solve(precision, design.T @ y / 0.25)
    exact_sd = np.sqrt(np.einsum("ni,ij,nj->n", design, np.linalg.inv(precision), design))
    np.testing.assert_allclose(mean, exact, atol=0.1)
    np.testing.assert_allclose(sd, exact_sd, rtol=0.5)


# Proposers -------------------------------------------------------------------------------------------------------------


def searching(space, proposer, n=40):
    search = ModelBased(
        space, numpy_stream(0, "test"), torch_stream(0, "test"),
        surrogate=surrogates.ProcessSurrogate(space), proposer=proposer, acquisition="ei", pool=100,
    )  # fmt: skip
    archs = draws(space, n)
    archs = archs[np.sort(np.unique(archs, axis=0, return_index=True)[1])]
    search.tell(archs, linear(space)(archs))
    return search


@each_space
@pytest.mark.parametrize("name", ["mutation", "mutation+random", "evolved", "guided", "guided-copy"])
def test_directed_pools_are_better_than_random_ones_and_hold_nothing_twice(space, name):
    truth = linear(space)
    search = searching(space, methods._proposer(name, space, {}))
    pool = search.propose()
    assert space.is_valid(pool).all() and len(np.unique(pool, axis=0)) == len(pool)
    assert not {row.tobytes() for row in pool} & {row.tobytes() for row in search.archs}
    random = truth(draws(space, 1000, seed=2))
    assert truth(pool).mean() > random.mean() + 4 * random.std() / len(pool) ** 0.5  # 4 standard errors


def test_mutants_differ_from_a_parent_in_at_most_two_slots():
    space = SPACES["nb201"]
    search = searching(space, proposers.mutation_pool)
    mutants = proposers.mutation_pool(search, 60)
    distance = (mutants[:, None] != search.best(proposers.PARENTS)[None]).sum(axis=2).min(axis=1)
    assert (distance <= 2).all() and (distance[::2] <= 1).all()


def test_guidance_without_a_gradient_is_refused():
    space = SPACES["nb201"]
    search = searching(space, proposers.GuidedPool(exact_prior(space), rule="x0", scale=1.0))
    search.surrogate = methods._surrogate("ensemble", space, torch_stream(0, "test"), {})
    with pytest.raises(NagkitError, match="x0 guidance needs a surrogate with a gradient"):
        search.propose()


# Methods ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_spends_its_budget_on_distinct_architectures_after_one_design(method):
    history, asked = methods.run("cifar100", method, 3, budget=30)
    assert len(np.unique(history.archs, axis=0)) == 30 == len(history.values)
    reference, _ = methods.run("cifar100", "random", 3, budget=methods.DESIGN)
    np.testing.assert_array_equal(history.archs[: methods.DESIGN], reference.archs)
    np.testing.assert_array_equal(history.values, asked.query(history.archs))


@pytest.mark.parametrize("method", ["evolution", "bananas", "diffusionnag", "diffusionnag-copy"])
def test_a_method_is_a_function_of_its_seed(method):
    one, same, other = (methods.run("ofa", method, seed, budget=25)[0].archs for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_guided_search_beats_random_search_where_it_should():
    """Linear landscapes are the easy case: after 40 evaluations its incumbent is above that of random search, 4 seeds of 4."""
    for seed in range(4):
        runs = [methods.run("measured-surrogate", method, seed, budget=40)[0] for method in ("diffusionnag", "random")]
        guided, random = (history.values.max() for history in runs)
        assert guided > random


@each_space
def test_another_proposer_brings_its_own_settings(space):
    """With the proposer of the noise-aware copy the method is the one that bears its name, strength included."""
    oracle = methods.DEFAULT_ORACLE[space.name]
    exchanged, _ = methods.run(oracle, "diffusionnag", 0, budget=30, proposer="guided-copy")
    named, _ = methods.run(oracle, "diffusionnag-copy", 0, budget=30)
    np.testing.assert_array_equal(exchanged.archs, named.archs)


def test_the_incumbent_is_the_first_of_equals():
    history = baselines.History(np.zeros((5, 1), np.int8), np.array([1.0, 3.0, 2.0, 3.0, 4.0]))
    assert list(history.incumbents()) == [0, 1, 1, 1, 4]


def test_one_run_of_a_hundred_evaluations_is_quick():
    for oracle in ("ofa", "cifar100"):
        methods.run(oracle, "diffusionnag", 0, budget=25)  # what is loaded once
        start = time.process_time()
        methods.run(oracle, "diffusionnag", 0, budget=100)
        assert time.process_time() - start < 10  # CPU time on one core; 5 s of two on an idle machine


def test_every_candidate_setting_can_be_built_and_each_method_has_as_many():
    assert {len(settings) for settings in methods.CANDIDATES.values()} == {3}
    for method, candidates in methods.CANDIDATES.items():
        for settings in candidates:
            methods.build(method, SPACES["nb201"], numpy_stream(0, "t"), torch_stream(0, "t"), **settings)
    assert min(tune.SEEDS) >= 10_000
    for space, oracle in methods.DEVELOPMENT.items():
        assert methods.ORACLES[oracle][0] == space


# Bad input and the command line ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ofa", "annealing", 0), "unknown search method 'annealing'"),
        (("ofas", "random", 0), "unknown search oracle 'ofas' .did you mean 'ofa'"),
    ],
)
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(NagkitError, match=message):
        methods.run(*arguments)


def test_impossible_settings_are_refused():
    with pytest.raises(NagkitError, match="a budget of 10 is smaller than the initial design of 20"):
        methods.run("ofa", "random", 0, budget=10)
    with pytest.raises(NagkitError, match="unknown acquisition function 'eii'"):
        methods.run("ofa", "diffusionnag", 0, acquisition="eii")
    with pytest.raises(NagkitError, match="method random has no surrogate"):
        methods.run("ofa", "random", 0, acquisition="ei")
    with pytest.raises(NagkitError, match="unknown proposer 'guide'"):
        methods.run("ofa", "diffusionnag", 0, proposer="guide")


def test_the_command_line_writes_one_row_per_evaluation(monkeypatch, tmp_path, capsys):
    out = tmp_path / "run.csv"
    command = "bo --space nb201 --oracle cifar100-honest --method diffusionnag --acquisition ucb --seed 1 --budget 25 --out"
    monkeypatch.setattr("sys.argv", ["nagkit", *command.split(), str(out)])
    cli.main()
    run = pd.read_csv(io.StringIO(out.read_text()))
    assert list(run) == ["evaluation", "arch", "value", "incumbent", "reported", "oracle"]
    assert len(run) == 25 and (run["incumbent"] == run["value"].cummax()).all()
    assert SPACES["nb201"].is_valid(get_space("nb201").from_string(list(run["arch"]))).all()
    assert "surrogate" in capsys.readouterr().err


def test_the_command_line_refuses_another_spaces_oracle(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["nagkit", "bo", "--space", "mbv3", "--oracle", "cifar10"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "oracle cifar10 does not know the space mbv3; choose one of: ofa, " in capsys.readouterr().err
