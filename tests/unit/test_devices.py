"""Weights and codes follow x to its device, and numbers do not depend on how many threads there are.

Where there is no GPU, the device is torch's "meta", on which an operation that mixes devices fails as it does on a GPU.
"""

import numpy as np
import pytest
import torch

from nagkit.benchmarks import meta
from nagkit.devices import get_device, threads
from nagkit.diffusion.samplers import generate
from nagkit.diffusion.train import load_score, train_score
from nagkit.errors import NagkitError
from nagkit.guidance import guide
from nagkit.predictors import objective, train
from nagkit.rng import numpy_stream, torch_stream
from nagkit.sampling import PRIORS, load_prior, prepare
from nagkit.spaces.base import SPACES, get_space

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA GPU")
RULES = {"x0": "ranking", "xt": "noise-aware"}


def code(space, n=3):
    return torch.randn(n, space.n_nodes, space.n_ops, generator=torch_stream(0, "test"))


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("rule", RULES)
def test_guided_score_networks_follow_x(name, rule):
    space = get_space(name)
    guided = guide(load_score(space), train.load(RULES[rule], "cifar10", space=space), 1.0, rule=rule)
    x = code(space)
    assert guided(x, 0.5).device == x.device
    assert guided(x.to("meta"), 0.5).device.type == guided(x.to("meta"), torch.full((3,), 0.5).to("meta")).device.type == "meta"


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("model", objective.MODELS)
def test_predictors_of_an_objective_follow_x_on_any_space(name, model):
    space, rng = get_space(name), numpy_stream(0, "test/devices")
    archs = np.unique(space.random(40, rng), axis=0)
    fitted = objective.fit(archs, (archs == archs.max()).sum(axis=1) + rng.random(len(archs)), space=space, model=model)
    assert np.corrcoef(fitted.predictor.rank(archs), (archs == archs.max()).sum(axis=1))[0, 1] > 0.7
    assert fitted.predictor(code(space).to("meta"), 0.0).device.type == "meta"


@pytest.mark.parametrize("name", SPACES)
def test_draws_are_the_same_on_one_thread_and_on_two(name):
    """Also where the machine offers more: sampling takes one thread, and gives the others back."""
    space = get_space(name)
    aim = prepare(name, prior="score", guide="cifar10").denoiser
    found = []
    for n in (1, 2):
        with threads(n):
            found.append(generate(space, aim, 600, steps=6, batch_size=600, generator=torch_stream(0, "test"))[0])
            assert torch.get_num_threads() == n
    np.testing.assert_array_equal(*found)


def test_the_threads_are_given_back_when_sampling_fails():
    def fails(x, sigma):
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt

    with threads(2):
        with pytest.raises(KeyboardInterrupt):
            generate(get_space(), fails, 1, generator=torch_stream(0, "test"))
        assert torch.get_num_threads() == 2


def test_devices_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert get_device().type == get_device("cpu").type == "cpu"
    for wrong in ("gpu", "mps", "meta"):
        with pytest.raises(NagkitError, match=f"unknown device '{wrong}'"):
            get_device(wrong)
    with pytest.raises(NagkitError, match="device 'cuda' is not here: PyTorch sees no CUDA GPU; leave --device out"):
        get_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert get_device() == torch.device("cuda") and get_device("cuda:0").index == 0


@needs_gpu
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("rule", RULES)
def test_guided_sampling_runs_on_a_gpu(name, prior, rule):
    """A guided pool is at least as good there, by the ranking predictor, as one of unguided draws."""
    space, ranker = get_space(name), train.load("ranking", "cifar10", space=name)
    law = load_prior(name, prior)
    pools = [
        generate(space, denoiser, 100, generator=torch_stream(0, "test", "cuda"), decode="argmax")[0]
        for denoiser in (law, guide(law, train.load(RULES[rule], "cifar10", space=space), 30.0, rule=rule))
    ]
    assert ranker.rank(pools[1]).mean() > ranker.rank(pools[0]).mean()


@needs_gpu
@pytest.mark.parametrize("name", SPACES)
def test_training_runs_on_a_gpu_and_begins_with_the_weights_of_a_cpu(name, tmp_path):
    losses = {}
    for device in ("cpu", "cuda"):
        curve = train_score(get_space(name), steps=3, out=tmp_path / f"{device}.safetensors", device=device, progress=False)
        losses[device] = curve["loss"].iloc[-1]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)


@needs_gpu
@pytest.mark.parametrize("kind", train.KINDS)
def test_predictors_are_trained_on_a_gpu(kind):
    space, triplets = get_space("mbv3"), meta.load()
    found = [train.train(kind, triplets, space=space, steps=3, device=device, progress=False) for device in ("cpu", "cuda")]
    scores = [train.bind(model, "cifar10", space=space).rank(triplets.archs[:50]) for model in found]
    np.testing.assert_allclose(*scores, atol=1e-2)
