"""Guidance: the wrapped denoiser aims at the law p(x)·exp(scale · f(x)), exactly where that can be computed."""

import numpy as np
import pytest
import torch

from nagkit.diffusion.exact import exact_prior
from nagkit.diffusion.samplers import generate
from nagkit.errors import NagkitError
from nagkit.guidance import guide
from nagkit.rng import torch_stream
from nagkit.spaces import nb201

SPACE = nb201.Space()
PRIOR = exact_prior(SPACE)
WEIGHTS = 0.3 * torch.randn(8, 7, generator=torch.Generator().manual_seed(1))


def linear(x, sigma):
    return (x * WEIGHTS).sum(dim=(1, 2))


def noisy(n, sigma, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = SPACE.encode(SPACE.random(n, np.random.default_rng(seed)))
    return codes + sigma * torch.randn(codes.shape, generator=generator)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_x0_guidance_is_the_tilted_posterior_to_first_order(sigma):
    """For f linear in x₀ the tilted law factorises over rows, so its posterior mean is known; errors shrink as scale²."""
    x = noisy(64, sigma)
    errors = []
    for scale in (0.02, 0.01):
        logits = 2 * x / sigma**2 + 2 * scale * WEIGHTS
        tilted = 2 * torch.softmax(logits.masked_fill(~torch.from_numpy(SPACE.allowed), -torch.inf), dim=-1) - 1
        errors.append((guide(PRIOR, linear, scale)(x, sigma) - tilted).abs().max().item())
    assert errors[0] < 1e-3
    assert errors[1] < 0.35 * errors[0] + 1e-6


def test_xt_guidance_adds_the_scaled_gradient_at_the_noisy_input():
    x = noisy(8, 2.0)
    torch.testing.assert_close(guide(PRIOR, linear, 3.0, rule="xt")(x, 2.0), PRIOR(x, 2.0) + 3.0 * 4.0 * WEIGHTS)


def test_guided_denoiser_accepts_a_noise_level_per_row():
    x, sigma = noisy(4, 1.0), torch.tensor([0.5, 1.0, 2.0, 4.0])
    guided = guide(PRIOR, linear, 1.0)
    rows = torch.cat([guided(x[i : i + 1], float(sigma[i])) for i in range(4)])
    torch.testing.assert_close(guided(x, sigma), rows)


def test_zero_scale_is_no_guidance():
    assert guide(PRIOR, linear, 0.0) is PRIOR


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_bad_scales_are_refused(scale):
    with pytest.raises(NagkitError, match="guidance scale must be a finite number >= 0"):
        guide(PRIOR, linear, scale)


def test_unknown_rule_is_refused():
    with pytest.raises(NagkitError, match="unknown guidance rule 'x1'.*x0, xt"):
        guide(PRIOR, linear, 1.0, rule="x1")


def test_guidance_works_under_no_grad_and_leaves_no_graph():
    with torch.no_grad():
        value = guide(PRIOR, linear, 1.0)(noisy(2, 1.0), 1.0)
    assert not value.requires_grad


def test_stronger_guidance_draws_cells_the_predictor_likes_better():
    """Pools of 500: the means differ by tens of standard errors, so a false alarm is out of the question."""
    means = []
    for scale in (0.0, 1.0, 5.0):
        archs, errors = generate(SPACE, guide(PRIOR, linear, scale), 500, generator=torch_stream(0, "test"))
        assert (errors == "").all()
        means.append(linear(SPACE.encode(archs), 0.0).mean().item())
    assert means[0] < means[1] < means[2]
