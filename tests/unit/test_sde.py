"""Noising processes: their stated marginals are those of a simulation, and their noise levels are what samplers need."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from nagkit.diffusion.sde import VE, VP, SubVP, geometric_sigmas, karras_sigmas
from nagkit.errors import NagkitError
from nagkit.rng import torch_stream

PROCESSES = [VE(), VP(), SubVP(), VE(0.5, 2.0), VP(0.5, 4.0)]


@pytest.mark.parametrize("sde", PROCESSES, ids=str)
def test_marginals_match_a_simulation_of_the_process(sde):
    """20,000 Euler-Maruyama paths of 500 steps. Mean within 4.5 standard errors and standard deviation likewise, each plus
    1 % for the step: false alarms below 4e-5 over all cases."""
    n, steps, x0 = 20_000, 500, 0.8
    generator = torch_stream(0, "test/sde")
    x = torch.full((n, 1), x0, dtype=torch.float64)
    if isinstance(sde, VE):  # the paper's marginal has sigma_min already at t = 0
        x += sde.sigma_min * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    dt = sde.T / steps
    for i in range(steps):
        drift, diffusion = sde.sde(x, i * dt + dt / 2)
        x = x + drift * dt + diffusion * math.sqrt(dt) * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        if i + 1 in (steps // 2, steps):
            mean, std = sde.marginal_prob(torch.tensor([[x0]], dtype=x.dtype), (i + 1) * dt)
            assert abs(x.mean() - mean).item() < (4.5 / math.sqrt(n) + 0.01) * std.item()
            assert abs(x.std() / std - 1).item() < 4.5 / math.sqrt(2 * n) + 0.01


@pytest.mark.parametrize("sde", PROCESSES, ids=str)
def test_the_prior_is_the_marginal_at_the_end_of_time(sde):
    _, std = sde.marginal_prob(torch.zeros(1, 1), sde.T)
    assert sde.prior_std() == pytest.approx(std.item(), rel=0.15)
    assert sde.prior_sampling((4, 8, 7), torch_stream(0, "test/prior")).shape == (4, 8, 7)


@pytest.mark.parametrize("sde", PROCESSES, ids=str)
def test_prior_log_density_is_the_gaussian_one(sde):
    z = sde.prior_sampling((3, 8, 7), torch_stream(1, "test/prior")).double()
    expected = norm.logpdf(z.numpy(), scale=sde.prior_std()).sum(axis=(1, 2))
    np.testing.assert_allclose(sde.prior_logp(z).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("sde", PROCESSES, ids=str)
def test_noise_levels_are_standard_deviation_over_alpha_on_the_process_own_times(sde):
    sigmas = sde.sigmas(50)
    one = torch.ones(1, 1, dtype=torch.float64)
    for i, t in ((0, sde.T), (49, sde.t_min)):
        alpha, std = sde.marginal_prob(one, t)
        assert sigmas[i].item() == pytest.approx((std / alpha).item())
    assert sigmas.shape == (51,) and sigmas[-1] == 0 and (sigmas.diff() < 0).all()


def test_times_may_differ_within_a_batch():
    x, t = torch.randn(3, 8, 7, generator=torch_stream(0, "test/batch")), torch.tensor([0.1, 0.5, 0.9])
    for sde in PROCESSES:
        mean, std = sde.marginal_prob(x, t)
        drift, diffusion = sde.sde(x, t)
        for i in range(3):
            mean_i, std_i = sde.marginal_prob(x[i : i + 1], float(t[i]))
            drift_i, diffusion_i = sde.sde(x[i : i + 1], float(t[i]))
            torch.testing.assert_close(mean[i : i + 1], mean_i)
            torch.testing.assert_close(drift[i : i + 1], drift_i)
            torch.testing.assert_close(std.flatten()[i], std_i)
            torch.testing.assert_close(diffusion.flatten()[i], diffusion_i)


@given(steps=st.integers(1, 300), low=st.floats(1e-3, 1.0), ratio=st.floats(1.01, 1e3))
def test_schedules_fall_from_sigma_max_to_sigma_min_and_then_to_zero(steps, low, ratio):
    for schedule in (geometric_sigmas, karras_sigmas):
        sigmas = schedule(steps, low, low * ratio)
        assert sigmas.shape == (steps + 1,) and sigmas[-1] == 0 and (sigmas.diff() < 0).all()
        assert sigmas[0].item() == pytest.approx(low * ratio)
        assert steps == 1 or sigmas[-2].item() == pytest.approx(low)


@pytest.mark.parametrize("bad", [(0.0, 5.0), (-1.0, 5.0), (5.0, 0.1), (1.0, 1.0), (0.1, math.inf), (math.nan, 1.0)])
def test_impossible_noise_ranges_are_refused(bad):
    for make in (VE, VP, SubVP, lambda *b: geometric_sigmas(5, *b), lambda *b: karras_sigmas(5, *b)):
        with pytest.raises(NagkitError, match="need 0 <"):
            make(*bad)


def test_schedules_need_a_step():
    for make in (geometric_sigmas, karras_sigmas, VP().sigmas):
        with pytest.raises(NagkitError, match="steps must be at least 1, got 0"):
            make(0)
