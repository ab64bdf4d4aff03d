"""The training loop: what it descends, averages, saves and refuses."""

from dataclasses import replace
from itertools import repeat

import numpy as np
import pytest
import torch
from torch import nn

from nagkit.errors import NagkitError
from nagkit.predictors.fit import Recipe, fingerprint, fit, own_stream, recipes
from nagkit.spaces.base import SPACES

PLAIN = Recipe(lr=0.1, steps=12, cosine=False, save_every=5)
NOISY = replace(PLAIN, ema=0.9, clip=1.0, warmup=3, cosine=True)


def run(recipe=PLAIN, *, stop=None, **options):
    """A line fitted to random points that torch's global stream gives; `stop` raises in that call of the loss."""
    calls = iter(range(10**6))

    def loss(_):
        if next(calls) == stop:
            raise KeyboardInterrupt
        x = torch.randn(8, 1)
        return (model(x) - 2 * x - 1).square().mean()

    with own_stream(0, "test"):
        model = nn.Linear(1, 1)
        return fit(model, recipe, repeat, loss, progress=False, **options)


def weights(model):
    return [part.clone() for part in model.state_dict().values()]


def equal(a, b):
    return all(torch.equal(*pair) for pair in zip(weights(a), weights(b), strict=True))


@pytest.mark.parametrize("recipe", [PLAIN, NOISY, replace(NOISY, momentum=0.9)], ids=["adamw", "averaged", "momentum"])
def test_it_descends(recipe):
    found = run(replace(recipe, steps=300, cosine=True))
    assert found.weight.item() == pytest.approx(2, abs=0.2) and found.bias.item() == pytest.approx(1, abs=0.2)
    assert not found.training


@pytest.mark.parametrize("recipe", [PLAIN, NOISY, replace(NOISY, momentum=0.9)], ids=["adamw", "averaged", "momentum"])
@pytest.mark.parametrize("stop", [1, 5, 11])
def test_an_interrupted_run_ends_with_the_bits_of_an_uninterrupted_one(recipe, stop, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(recipe, stop=stop, state=tmp_path / "run")
    seen = {}
    assert equal(run(recipe, state=tmp_path / "run", at=seen), run(recipe))
    assert seen["step"] == 12


def test_a_run_may_be_ended_early_and_goes_on_later(tmp_path):
    at = {}
    short = run(replace(PLAIN, save_every=4), at=at, state=tmp_path / "run", after=lambda *_: at["step"] == 4)
    assert at["step"] == 4 and not equal(short, run())
    assert equal(run(state=tmp_path / "run"), run())


def test_the_average_starts_at_the_weights_and_follows_them():
    """After step n it keeps min(ema, (1 + n) / (10 + n)) of itself."""
    seen = []
    with own_stream(0, "test"):
        model = nn.Linear(1, 1)
    expected = weights(model)[0]

    def after(value, average):
        kept = min(0.9, (1 + len(seen)) / (10 + len(seen)))
        expected.lerp_(model.weight.detach(), 1 - kept)
        seen.append((average.weight.clone(), expected.clone()))

    fit(model, replace(PLAIN, ema=0.9), repeat, lambda _: model(torch.ones(1, 1)).sum(), after=after, progress=False)
    assert all(torch.equal(*pair) for pair in seen) and len(seen) == 12


def test_a_loss_without_a_graph_has_left_its_gradients_behind():
    model = nn.Linear(1, 1)

    def loss(_):
        value = model(torch.ones(4, 1)).square().mean()
        value.backward()
        return value.detach()

    before = weights(model)
    fit(model, PLAIN, repeat, loss, progress=False)
    assert not torch.equal(before[0], model.weight)


def test_clipping_bounds_a_step_of_descent():
    recipe = Recipe(lr=1.0, steps=1, momentum=0.0, nesterov=False, clip=0.5, cosine=False)
    model = nn.Linear(1, 1, bias=False)
    before = model.weight.item()
    fit(model, recipe, repeat, lambda _: 100 * model.weight.sum(), progress=False)
    assert before - model.weight.item() == pytest.approx(0.5, rel=1e-4)


def test_what_cannot_go_on_is_named(tmp_path):
    run(state=tmp_path / "run", run="one")
    with pytest.raises(NagkitError, match="checkpoint run belongs to a run with other data or settings; delete it or name"):
        run(state=tmp_path / "run", run="two")
    with pytest.raises(NagkitError, match="the loss is nan in step 1: training diverged; lower lr or add warmup"):
        model = nn.Linear(1, 1)
        fit(model, PLAIN, repeat, lambda _: model.weight.sum() * float("nan"), progress=False)


def test_torchs_own_stream_is_lent_and_given_back():
    before = torch.get_rng_state()
    with own_stream(3, "test") as stream:
        first = torch.rand(2, generator=stream)
    with own_stream(3, "test"):
        assert torch.equal(first, torch.rand(2))
    assert torch.equal(before, torch.get_rng_state())


def test_fingerprints_tell_settings_and_data_apart():
    data = np.arange(4)
    assert fingerprint(["a", PLAIN], data) == fingerprint(["a", replace(PLAIN)], data.copy())
    assert len({fingerprint("a", data), fingerprint("b", data), fingerprint("a", data + 1)}) == 3


@pytest.mark.parametrize("what", ["score", "predictor", "images", "architecture"])
@pytest.mark.parametrize("space", [None, *SPACES])
def test_every_recipe_of_the_file_can_be_read(what, space):
    found = recipes(what, space)
    assert found or (what == "architecture" and space is None)
    assert all((recipe.steps > 0) != (recipe.epochs > 0) and recipe.lr > 0 for recipe in found.values())
