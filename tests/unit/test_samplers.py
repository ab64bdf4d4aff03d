"""Samplers: order of convergence, the shared contract, bad input, and the pool-drawing front door."""

import math
from functools import cache

import numpy as np
import pytest
import torch

from nagkit.diffusion.exact import ExactDenoiser, exact_prior
from nagkit.diffusion.samplers import (
    SAMPLERS,
    ancestral,
    ddim,
    dpmpp_2m,
    generate,
    get_sampler,
    heun,
    langevin_step,
    network_calls,
    pc,
)
from nagkit.diffusion.sde import geometric_sigmas
from nagkit.errors import NagkitError
from nagkit.rng import torch_stream
from nagkit.spaces.base import get_space

SPACE = get_space("nb201")
PRIOR = exact_prior(SPACE)
SKEWED = ExactDenoiser(np.ones((3, 4)), [[0.5, 0.25, 0.15, 0.1], [0.1, 0.6, 0.29, 0.01], [0.05, 0.15, 0.35, 0.45]])


def start(n: int = 4, sigma: float = 5.0) -> torch.Tensor:
    return sigma * torch.randn((n, 8, 7), generator=torch_stream(0, "test/start"))


@cache
def flow(solver, steps: int) -> torch.Tensor:
    generator = torch_stream(0, "test/order")
    x = SKEWED.sample(50, generator).double()
    x = x + 5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return solver(SKEWED, x, 5.0 ** (1 - torch.linspace(0, 1, steps + 1, dtype=x.dtype)))


@pytest.mark.parametrize(("solver", "order"), [(ddim, 1), (heun, 2), (dpmpp_2m, 2)])
def test_deterministic_solvers_converge_at_their_order(solver, order):
    """Slope of log error against log steps from 32 to 256, down to sigma = 1, where the flow is smooth."""
    steps = np.array([32, 64, 128, 256])
    errors = [(flow(solver, int(n)) - flow(heun, 2048)).norm().item() for n in steps]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(-order, abs=0.1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_network_calls_counts_the_denoiser_calls(name):
    for steps in (1, 7):
        calls = []
        get_sampler(name)(
            lambda x, sigma: calls.append(sigma) or PRIOR(x, sigma),  # noqa: B023
            start(),
            geometric_sigmas(steps),
            generator=torch_stream(0, "test/calls"),
        )
        assert len(calls) == network_calls(name, steps)


@pytest.mark.parametrize("name", SAMPLERS)
def test_callback_sees_every_step_before_it_is_taken(name):
    seen = []
    sigmas = geometric_sigmas(6)
    x = start()
    out = get_sampler(name)(PRIOR, x, sigmas, generator=torch_stream(0, "test/callback"), callback=seen.append)
    assert [step["i"] for step in seen] == list(range(6))
    assert [step["sigma"] for step in seen] == sigmas[:-1].tolist()
    assert all(set(step) == {"i", "sigma", "x", "denoised"} for step in seen)
    for step in seen:
        torch.testing.assert_close(step["denoised"], PRIOR(step["x"], step["sigma"]), rtol=0, atol=0)
    if name != "pc":  # whose callback comes after the corrector has moved x
        torch.testing.assert_close(seen[0]["x"], x, rtol=0, atol=0)
    torch.testing.assert_close(out, seen[-1]["denoised"], rtol=0, atol=0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_positive_last_level_ends_without_fresh_noise(name):
    """From a fixed state the last step must be deterministic: two generators in different states give the same result."""
    sampler, sigmas = get_sampler(name), torch.tensor([0.5, 0.3])
    if name == "pc":  # compare the step after the corrector: the mean of the Euler-Maruyama step
        seen = []
        out = pc(PRIOR, start(), sigmas, generator=torch_stream(0, "test/last"), callback=seen.append)
        expected = torch.lerp(seen[0]["x"], seen[0]["denoised"], 2 * math.log(0.5 / 0.3))
        torch.testing.assert_close(out, expected)
    else:
        first, second = (sampler(PRIOR, start(), sigmas, generator=torch_stream(seed, "test/last")) for seed in (0, 1))
        torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_state_keeps_dtype_and_input_and_carries_no_graph(name):
    x = start().double().requires_grad_()
    before = x.detach().clone()
    out = get_sampler(name)(PRIOR, x, geometric_sigmas(5), generator=torch_stream(0, "test/dtype"))
    assert out.dtype == torch.float64 and not out.requires_grad
    torch.testing.assert_close(x.detach(), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_guided_denoiser_may_take_gradients_inside(name):
    """Guidance towards 3x3 convolutions must raise their share, whichever sampler runs it."""

    def guided(x, sigma):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            denoised = PRIOR(x, sigma)
            (gradient,) = torch.autograd.grad(denoised[:, 1:7, 5].sum(), x)
        return denoised.detach() + sigma**2 * gradient

    archs, errors = generate(SPACE, guided, 200, sampler=name, generator=torch_stream(0, "test/guided"))
    assert (archs[errors == ""] == 3).mean() > 0.4


def test_pc_corrector_takes_the_papers_step():
    generator = torch_stream(0, "test/langevin")
    score, noise = (torch.randn((5, 8, 7), generator=generator) for _ in range(2))
    norms = [np.linalg.norm(a.reshape(5, -1).numpy(), axis=1).mean() for a in (score, noise)]
    assert langevin_step(score, noise, 0.16).item() == pytest.approx(2 * (0.16 * norms[1] / norms[0]) ** 2, rel=1e-5)


def test_pc_applies_corrector_then_predictor():
    x, sigmas, seen = start(), torch.tensor([5.0, 4.0]), []
    pc(PRIOR, x, sigmas, generator=torch_stream(0, "test/pc"), callback=seen.append)
    noise = torch.randn(x.shape, generator=torch_stream(0, "test/pc"))
    score = (PRIOR(x, 5.0) - x) / 25
    step = langevin_step(score, noise, 0.16)
    torch.testing.assert_close(seen[0]["x"], x + step * score + (2 * step).sqrt() * noise)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([1.0], "at least 2 noise levels, got 1"),
        ([], "at least 2 noise levels, got 0"),
        ([1.0, -0.1], "not negative"),
        ([1.0, math.nan], "finite"),
        ([math.inf, 1.0], "finite"),
        ([0.5, 1.0, 0.0], "decrease"),
        ([1.0, 1.0, 0.0], "decrease"),
        ([1.0, 0.0, 0.0], "decrease"),
    ],
)
def test_bad_noise_levels_are_refused(name, sigmas, message):
    with pytest.raises(NagkitError, match=message):
        get_sampler(name)(PRIOR, start(), torch.tensor(sigmas), generator=torch_stream(0, "test/bad"))


def test_stochastic_samplers_refuse_the_global_random_stream():
    for name in ("pc", "euler_maruyama", "ancestral"):
        with pytest.raises(NagkitError, match="generator"):
            get_sampler(name)(PRIOR, start(), geometric_sigmas(3))


def test_unknown_sampler_is_named_with_the_nearest():
    for ask in (get_sampler, lambda name: network_calls(name, 3)):
        with pytest.raises(NagkitError, match="unknown sampler 'hein' .did you mean 'heun'"):
            ask("hein")


def test_generate_is_reproducible_and_draws_exactly_n():
    for n in (1, 100, 101):
        archs, errors = generate(SPACE, PRIOR, n, generator=torch_stream(3, "test/n"), batch_size=50)
        again, _ = generate(SPACE, PRIOR, n, generator=torch_stream(3, "test/n"), batch_size=50)
        assert archs.shape == (n, 6) and archs.dtype == np.int8 and errors.shape == (n,)
        np.testing.assert_array_equal(archs, again)


def test_generate_never_holds_more_than_a_batch():
    sizes = []
    generate(SPACE, lambda x, s: sizes.append(len(x)) or PRIOR(x, s), 100, generator=torch_stream(0, "test/b"), batch_size=40)
    assert sizes == [40] * 20 + [40] * 20 + [20] * 20


def test_generate_starts_at_the_first_noise_level():
    first = []
    generate(SPACE, lambda x, s: first.append((x, s)) or PRIOR(x, s), 2000, steps=1, generator=torch_stream(0, "test/s"))
    assert first[0][1] == 5.0
    assert first[0][0].std().item() == pytest.approx(5.0, rel=0.02)


def test_generate_reports_invalid_draws_and_keeps_them():
    def undecided(x, sigma):
        return torch.full_like(x, -0.2)

    archs, errors = generate(SPACE, undecided, 10, generator=torch_stream(0, "test/invalid"))
    assert (errors == "no operation").all() and (archs == -1).all()
    archs, errors = generate(SPACE, undecided, 10, generator=torch_stream(0, "test/invalid"), decode="argmax")
    assert (errors == "").all() and SPACE.is_valid(archs).all()


@pytest.mark.parametrize("decode", ["threshold", "argmax"])
def test_generate_reports_diverged_draws_whatever_the_decoding(decode):
    archs, errors = generate(
        SPACE, lambda x, s: torch.full_like(x, math.nan), 5, generator=torch_stream(0, "test/nan"), decode=decode
    )
    assert (errors == "not finite").all() and (archs == -1).all()


def test_generate_follows_given_noise_levels():
    seen, levels, stream = [], torch.tensor([5.0, 2.0, 0.5, 0.1]), torch_stream(0, "test/levels")
    generate(SPACE, lambda x, s: seen.append(s) or PRIOR(x, s), 3, sampler="ddim", sigmas=levels, generator=stream)
    assert seen == levels[:-1].tolist()


@pytest.mark.parametrize("bad", [{"n": 0}, {"n": -3}, {"steps": 0}, {"batch_size": 0}])
def test_generate_refuses_empty_requests(bad):
    with pytest.raises(NagkitError, match="at least 1"):
        generate(SPACE, PRIOR, **{"n": 5, "generator": torch_stream(0, "test/bad"), **bad})


def test_generate_refuses_unknown_names():
    for bad in ({"sampler": "euler"}, {"decode": "round"}):
        with pytest.raises(NagkitError, match="unknown"):
            generate(SPACE, PRIOR, 5, generator=torch_stream(0, "test/bad"), **bad)


def test_ancestral_step_is_the_gaussian_posterior():
    """Mean and spread of x_next given x and x_0; 40,000 entries, within 5 standard errors: false alarms below 1e-6."""
    x = torch.full((40_000, 1, 1), 0.7)
    seen = []
    ancestral(
        lambda y, s: seen.append(y) or torch.full_like(y, -0.4),
        x,
        torch.tensor([2.0, 1.2, 0.0]),
        generator=torch_stream(0, "test/posterior"),
    )
    keep = 1.2**2 / 2.0**2
    assert seen[1].mean().item() == pytest.approx(-0.4 + keep * 1.1, abs=5 * 1.2 / 200)
    assert seen[1].std().item() == pytest.approx(1.2 * math.sqrt(1 - keep), rel=5 / math.sqrt(80_000))
