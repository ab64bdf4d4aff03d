"""The dataset-aware predictors: what they see, how they train, and what their checkpoints refuse."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from nagkit.data import io
from nagkit.data.triplets import Triplets
from nagkit.errors import NagkitError
from nagkit.predictors import task, train
from nagkit.predictors.digcn import DirectedGCN
from nagkit.predictors.fit import recipes
from nagkit.predictors.ranking import CellPropagation
from nagkit.predictors.sets import SetEncoder
from nagkit.rng import numpy_stream
from nagkit.spaces import mbv3, nb201

SPACE = nb201.Space()
ALL = SPACE.all()


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


@pytest.fixture
def triplets():
    """300 invented triplets whose accuracy is a task effect minus the hand rule, the ranking predictor's prior."""
    rng = np.random.default_rng(0)
    archs, tasks = SPACE.random(300, rng), rng.integers(0, 60, 300)
    classes = np.stack([rng.choice(600, 20, replace=False) + 1 for _ in range(60)])
    accuracy = 60 - 2 * nb201.hand_rule(archs) + rng.normal(size=60)[tasks]
    return Triplets(archs, accuracy, tasks, classes, np.arange(300))


def test_isomorphic_cells_score_alike():
    classes = nb201.isomorphism_classes()
    with torch.inference_mode():
        scores = CellPropagation(4)(SPACE.encode(ALL), 0.0, torch.zeros(1, 8)).numpy()
    first = scores[np.unique(classes, return_index=True)[1]]
    np.testing.assert_allclose(scores, first[classes], atol=1e-4)


def test_dead_edges_do_not_count():
    cells = np.array([[3, 0, 2, 1, 3, 0], [3, 0, 4, 1, 3, 0]], np.int8)
    assert not nb201.live_edges(cells)[:, 2].any()
    first, second = CellPropagation(4)(SPACE.encode(cells), 0.0, torch.zeros(1, 8))
    assert first.item() == pytest.approx(second.item())


def test_the_code_of_a_set_does_not_depend_on_the_order_of_its_classes():
    features = torch.randn(2, 20, 16)
    encoder = SetEncoder(16)
    torch.testing.assert_close(encoder(features), encoder(features[:, torch.randperm(20)]), atol=1e-5, rtol=1e-4)


def test_a_set_may_have_any_number_of_classes():
    encoder = SetEncoder(16)
    assert encoder(torch.randn(1, 3, 16)).shape == encoder(torch.randn(1, 200, 16)).shape == (1, 56)


@pytest.mark.parametrize("graph", ["closure", "adjacency", "flat"])
def test_noise_aware_predictor_reads_noise_level_code_and_cell(graph):
    model = DirectedGCN(SPACE.adjacency, 7, 16, graph=graph).eval()
    x, code = SPACE.encode(ALL[:4]), torch.randn(1, 56)
    value = model(x, 1.0, code)
    assert value.shape == (4,)
    torch.testing.assert_close(model(x, torch.ones(4), code.expand(4, -1)), value)
    for other in (model(x, 3.0, code), model(x, 1.0, -code), model(SPACE.encode(ALL[100:104]), 1.0, code)):
        assert not torch.allclose(other, value)


def test_official_adjacency_changes_what_the_graph_network_computes():
    torch.manual_seed(1)
    true = DirectedGCN(SPACE.adjacency, 7, 16).eval()
    official = DirectedGCN(nb201.Space("official").adjacency, 7, 16).eval()
    official.load_state_dict(true.state_dict())
    x, code = SPACE.encode(ALL[-50:-40]), torch.zeros(1, 56)
    assert not torch.allclose(true(x, 0.1, code), official(x, 0.1, code))


@pytest.mark.parametrize("kind", ["ranking", "noise-aware"])
def test_interrupted_training_resumes_to_the_same_weights(kind, triplets, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "recipes", lambda *of: {k: replace(r, save_every=2) for k, r in recipes(*of).items()})
    whole = train.train(kind, triplets, steps=6, progress=False)
    draw, calls = train._Batches.draw, []

    def interrupted(self, size):
        calls.append(size)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return draw(self, size)

    monkeypatch.setattr(train._Batches, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.train(kind, triplets, steps=6, state=tmp_path / "run.safetensors", progress=False)
    resumed = train.train(kind, triplets, steps=6, state=tmp_path / "run.safetensors", progress=False)
    assert len(calls) == 6 + 2  # four steps were saved
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_training_leaves_the_global_random_stream_alone(triplets):
    before = torch.get_rng_state()
    train.train("ranking", triplets, steps=1, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_ranking_predictor_learns_the_order_of_invented_accuracies_against_its_prior(triplets):
    model = train.train("ranking", triplets, steps=200, progress=False)
    scores = train.bind(model, "cifar10").rank(triplets.archs)
    assert stats.spearmanr(scores, -nb201.hand_rule(triplets.archs)).statistic > 0.6


def test_the_prior_pulls_cells_without_data_towards_the_hand_rule(triplets, monkeypatch):
    unconvolved = ~np.isin(ALL, (nb201.CONV1, nb201.CONV3)).any(axis=1)
    few = train.train(
        "ranking", triplets, rows=np.flatnonzero(unconvolved[SPACE.code(triplets.archs)]), steps=100, progress=False
    )
    monkeypatch.setattr(train, "_PULL", 0.0)
    free = train.train(
        "ranking", triplets, rows=np.flatnonzero(unconvolved[SPACE.code(triplets.archs)]), steps=100, progress=False
    )
    pulled, unpulled = (
        stats.spearmanr(train.bind(m, "cifar10").rank(ALL), nb201.hand_rule(ALL)).statistic for m in (few, free)
    )
    assert pulled > 0.7
    assert pulled > unpulled + 0.1


def test_validation_shares_neither_cell_nor_task_with_training(triplets):
    training, validation = train.split(triplets)
    classes = nb201.isomorphism_classes()[SPACE.code(triplets.archs)]
    assert len(training) > 100
    assert len(validation) > 5
    assert not set(classes[training]) & set(classes[validation])
    assert not set(triplets.task[training]) & set(triplets.task[validation])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_committed_ranking_predictors_are_standardised_and_know_the_worst_cells(seed):
    scores = train.load("ranking", "cifar10", seed=seed).rank(ALL)
    assert scores.mean() == pytest.approx(0, abs=1e-3)
    assert scores.std() == pytest.approx(1, abs=1e-3)
    live = nb201.live_edges(ALL).any(axis=1)
    assert scores[~live].max() < np.quantile(scores[live], 0.1)


@pytest.mark.parametrize("kind", ["ranking", "noise-aware"])
@pytest.mark.parametrize("dataset", [*task.CODED, task.NO_CODE])
def test_committed_predictors_are_differentiable_for_every_data_set(kind, dataset):
    predictor = train.load(kind, dataset)
    x = SPACE.encode(ALL[5000:5004]).requires_grad_()
    gradient = torch.autograd.grad(predictor(x, 1.0).sum(), x)[0]
    assert torch.isfinite(gradient).all()
    assert gradient[:, 1:7].abs().sum() > 0


def test_foreign_checkpoints_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    io.write_arrays(path, {"a": np.zeros(2)}, {"model": "something else"})
    with pytest.raises(NagkitError, match="no checkpoint of a ranking predictor of nb201; `nagkit train predictor ranking"):
        train.load("ranking", "cifar10", path=path)
    with pytest.raises(NagkitError, match="no checkpoint of a ranking predictor"):
        train.load("ranking", "cifar10", path=train.checkpoint("noise-aware"))
    arrays, metadata = io.read_arrays(train.checkpoint("ranking"))
    io.write_arrays(path, arrays, metadata | {"codes": "0" * 64})
    with pytest.raises(NagkitError, match="trained on other data set codes"):
        train.load("ranking", "cifar10", path=path)
    with pytest.raises(NagkitError, match=r"absent\.safetensors"):
        train.load("ranking", "cifar10", path=tmp_path / "absent.safetensors")


def test_unknown_names_are_refused(triplets):
    with pytest.raises(NagkitError, match="unknown predictor 'rank'"):
        train.load("rank", "cifar10")
    with pytest.raises(NagkitError, match="unknown data set code 'none'"):
        train.train("ranking", triplets, code="none")
    with pytest.raises(NagkitError, match="unknown data set with class features 'aircraft'"):
        train.load("ranking", "aircraft")
    with pytest.raises(NagkitError, match="unknown attention mask 'tree'"):
        train.train("noise-aware", triplets, graph="tree", steps=1)


@pytest.fixture(scope="module")
def networks():
    """600 MBv3 networks on 30 tasks: longer ones are better, and every task has a level of its own."""
    space, rng = mbv3.Space(), numpy_stream(0, "tests/networks")
    archs, tasks = space.random(600, rng), np.repeat(np.arange(30), 20)
    classes = np.stack([rng.permutation(200)[:20] for _ in range(30)])
    accuracy = 40 + (archs >= 0).sum(axis=1) + 3 * rng.standard_normal(30)[tasks] + 0.3 * rng.standard_normal(600)
    return Triplets(archs, accuracy, tasks, classes)


@pytest.mark.parametrize(("kind", "steps"), [("ranking", 100), ("noise-aware", 5)])
def test_predictors_of_the_large_space_learn_and_come_back(kind, steps, networks, tmp_path):
    rows = np.flatnonzero(networks.task < 20)
    model = train.train(kind, networks, space="mbv3", rows=rows, steps=steps, progress=False)
    path = tmp_path / "predictor.safetensors"
    train.save(model, networks, path, space="mbv3", rows=rows, seed=0)
    predictor = train.load(kind, "cifar10", space="mbv3", path=path)
    fresh = mbv3.Space().random(300, numpy_stream(1, "tests/networks"))
    scores = predictor.rank(fresh)
    np.testing.assert_allclose(scores, train.bind(model, "cifar10", space="mbv3").rank(fresh), atol=1e-6)
    assert kind == "noise-aware" or stats.spearmanr(scores, (fresh >= 0).sum(axis=1)).statistic > 0.8
    x = mbv3.Space().encode(fresh[:4]).requires_grad_()
    gradient = torch.autograd.grad(predictor(x, 1.0).sum(), x)[0]
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    with pytest.raises(NagkitError, match="no checkpoint of a .* predictor of nb201"):
        train.load(kind, "cifar10", path=path)
