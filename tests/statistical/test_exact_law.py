"""Every sampler draws from the exact law when its denoiser is exact.

For the uniform law any sampler passes, broken or not, because nothing distinguishes the operations. So the law here is a
skewed product of three rows of four operations (48 outcomes, one operation impossible), chains start from its exact marginal
x_0 + sigma_max z, and the statistic is Pearson's chi-square over the joint law. Steps are such that the discretisation
shifts the statistic (47 degrees of freedom) by less than 1; a false alarm has probability 1e-5 a test.
"""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from nagkit.diffusion.exact import ExactDenoiser, exact_prior
from nagkit.diffusion.samplers import dpmpp_2m, generate, get_sampler
from nagkit.diffusion.sde import VE, VP, SubVP, geometric_sigmas, karras_sigmas
from nagkit.published import sampler
from nagkit.rng import torch_stream
from nagkit.spaces.base import get_space

LAW = ExactDenoiser(
    [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]], [[0.5, 0.25, 0.15, 0.1], [0.1, 0.6, 0.3, 0.0], [0.05, 0.15, 0.35, 0.45]]
)
JOINT = torch.einsum("i,j,k->ijk", *LAW.law).flatten().numpy()
OUTCOMES = JOINT > 0
FALSE_ALARM = 1e-5


def p_value(solve, sigmas: torch.Tensor, n: int = 20_000) -> float:
    """Chi-square p-value of `n` draws by `solve(denoiser, x, sigmas, generator=...)` against the exact law."""
    generator = torch_stream(0, "test/law")
    x = LAW.sample(n, generator)
    x = x + float(sigmas[0]) * torch.randn(x.shape, generator=generator)
    x = solve(LAW, x, sigmas, generator=generator)
    assert ((x > 0).sum(dim=2) == 1).all()
    count = np.bincount(x.argmax(dim=2).numpy() @ np.array([16, 4, 1]), minlength=64)
    assert count[~OUTCOMES].sum() == 0
    expected = n * JOINT[OUTCOMES]
    return chi2.sf(((count[OUTCOMES] - expected) ** 2 / expected).sum(), OUTCOMES.sum() - 1)


@pytest.mark.parametrize(
    ("name", "steps"), [("pc", 150), ("euler_maruyama", 200), ("ancestral", 200), ("ddim", 100), ("heun", 20), ("dpmpp_2m", 20)]
)
def test_sampler_draws_from_the_exact_law(name, steps):
    assert p_value(get_sampler(name), geometric_sigmas(steps)) > FALSE_ALARM


@pytest.mark.parametrize(
    "sigmas",
    [karras_sigmas(40), VE().sigmas(40), VP().sigmas(100), SubVP().sigmas(100)],
    ids=["karras", "VE", "VP", "sub-VP"],
)
def test_law_does_not_depend_on_the_noise_schedule(sigmas):
    assert p_value(dpmpp_2m, sigmas) > FALSE_ALARM


def test_the_published_sampler_draws_from_the_exact_law():
    def solve(denoiser, x, sigmas, generator):
        start = [x / sigmas[0]]

        def noise():
            return start.pop() if start else torch.randn(x.shape, generator=generator)

        def score(x, sigma):
            return (denoiser(x, sigma) - x) / sigma**2

        return 2 * sampler.sample(score, noise, sigma_max=float(sigmas[0])) - 1

    assert p_value(solve, torch.tensor([5.0]), n=4000) > FALSE_ALARM


def test_a_sampler_with_too_little_noise_is_caught():
    def timid(denoiser, x, sigmas, generator):
        for sigma, after in zip(sigmas.tolist(), sigmas[1:].tolist(), strict=False):
            keep = (after / sigma) ** 2
            fresh = torch.randn(x.shape, generator=generator)
            x = torch.lerp(denoiser(x, sigma), x, keep) + 0.9 * after * math.sqrt(1 - keep) * fresh
        return x

    assert p_value(timid, geometric_sigmas(200)) < 1e-9


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_sampler_that_misstates_the_noise_level_is_caught(factor):
    def mistaken(denoiser, x, sigmas, generator):
        return dpmpp_2m(lambda y, sigma: denoiser(y, factor * sigma), x, sigmas)

    assert p_value(mistaken, geometric_sigmas(20)) < 1e-9


def test_default_pool_is_uniform_over_the_whole_space():
    """All 15,625 cells, 40,000 draws. Pearson's statistic has mean 15,624 and variance 2 x 15,624; within 5 of its standard
    deviations: false alarms below 1e-6."""
    space = get_space("nb201")
    archs, errors = generate(space, exact_prior(space), 40_000, generator=torch_stream(0, "test/uniform"))
    assert (errors == "").all()
    count = np.bincount(space.code(archs), minlength=space.size)
    expected = len(archs) / space.size
    statistic = ((count - expected) ** 2 / expected).sum()
    assert abs(statistic - (space.size - 1)) < 5 * math.sqrt(2 * (space.size - 1))
