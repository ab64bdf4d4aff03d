"""The closed-form denoiser is Bayes' rule, written out, and its edge cases are exact."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from nagkit.diffusion.exact import ExactDenoiser, exact_prior
from nagkit.errors import NagkitError
from nagkit.rng import torch_stream
from nagkit.spaces.base import get_space

SPACE = get_space("nb201")
PRIOR = exact_prior(SPACE)
ALLOWED = np.array([[True, True, False], [True, True, True]])
WEIGHTS = np.array([[0.8, 0.2, 5.0], [0.1, 0.3, 0.6]])


def noisy(n: int, sigma: float) -> torch.Tensor:
    generator = torch_stream(0, "test/exact")
    x = PRIOR.sample(n, generator)
    return x + sigma * torch.randn(x.shape, generator=generator)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_posterior_mean_equals_bayes_rule_over_all_architectures(sigma):
    """The joint law of two rows, enumerated: weights times Gaussian likelihoods, no row-wise shortcut."""
    denoiser = ExactDenoiser(ALLOWED, WEIGHTS)
    pairs = [(i, j) for i, j in product(range(3), range(3)) if ALLOWED[0, i] and ALLOWED[1, j]]
    codes = torch.full((len(pairs), 2, 3), -1.0, dtype=torch.float64)
    for row, (i, j) in enumerate(pairs):
        codes[row, 0, i] = codes[row, 1, j] = 1.0
    prior = torch.tensor([WEIGHTS[0, i] * WEIGHTS[1, j] for i, j in pairs], dtype=torch.float64)
    x = sigma * torch.randn((20, 2, 3), generator=torch_stream(0, "test/bayes"), dtype=torch.float64)
    distance = (x[:, None] - codes).square().sum(dim=(2, 3))
    posterior = torch.softmax(prior.log() - distance / (2 * sigma**2), dim=1)
    torch.testing.assert_close(denoiser(x, sigma), torch.einsum("bk,kno->bno", posterior, codes))


@given(st.floats(0, 50))
def test_output_is_a_mean_of_codes_at_any_noise(sigma):
    x = noisy(16, sigma)
    p, denoised = PRIOR.probabilities(x, sigma), PRIOR(x, sigma)
    torch.testing.assert_close(p.sum(dim=2), torch.ones(16, 8))
    assert (denoised.abs() <= 1).all()
    assert (denoised[:, ~torch.from_numpy(SPACE.allowed)] == -1).all()


def test_sigma_may_be_a_number_or_one_per_sample():
    x = noisy(3, 1.0)
    sigmas = torch.tensor([0.5, 0.0, 2.0])
    together = PRIOR(x, sigmas)
    for i in range(3):
        for sigma in (float(sigmas[i]), sigmas[i], sigmas[i : i + 1]):
            torch.testing.assert_close(together[i : i + 1], PRIOR(x[i : i + 1], sigma), rtol=0, atol=0)


@pytest.mark.parametrize("sigma", [0.0, 1e-30, 1e-6])
def test_without_noise_the_answer_is_the_nearest_architecture(sigma):
    x = noisy(50, 0.2)
    archs, errors = SPACE.decode(PRIOR(x, sigma))
    assert (errors == "").all()
    np.testing.assert_array_equal(archs, SPACE.decode_argmax(x))


def test_at_zero_noise_an_impossible_operation_never_wins():
    x = torch.zeros(1, 2, 3)
    x[..., 2] = 9.0
    assert ExactDenoiser(ALLOWED, WEIGHTS).probabilities(x, 0.0)[0].tolist() == [[1, 0, 0], [0, 0, 1]]


def test_with_endless_noise_the_answer_is_the_law():
    denoiser = ExactDenoiser(ALLOWED, WEIGHTS)
    p = denoiser.probabilities(torch.zeros(1, 2, 3, dtype=torch.float64), 1e6)
    torch.testing.assert_close(p[0], torch.tensor([[0.8, 0.2, 0], [0.1, 0.3, 0.6]], dtype=torch.float64))
    torch.testing.assert_close(p[0], denoiser.law)


def test_gradient_is_right_and_finite():
    """Compared with finite differences where it is not flat; at low noise and at zero it must stay finite."""
    denoiser = ExactDenoiser(ALLOWED, WEIGHTS)
    x = torch.randn((2, 2, 3), generator=torch_stream(0, "test/gradient"), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: denoiser(y, 0.7), x)
    for sigma in (0.0, 1e-3, 0.1):
        y = noisy(4, sigma).requires_grad_()
        (gradient,) = torch.autograd.grad(PRIOR(y, torch.full((4,), sigma)).square().sum() + 0 * y.sum(), y)
        assert torch.isfinite(gradient).all()


def test_double_precision_stays_double():
    assert PRIOR(noisy(2, 1.0).double(), 1.0).dtype == torch.float64


def test_draws_follow_the_law():
    """Chi-square over the joint law of both rows, 50,000 draws; false alarms 1e-4."""
    n, denoiser = 50_000, ExactDenoiser(ALLOWED, WEIGHTS)
    codes = denoiser.sample(n, torch_stream(0, "test/draws"))
    assert set(codes.unique().tolist()) == {-1.0, 1.0}
    ops = codes.argmax(dim=2).numpy()
    count = np.bincount(3 * ops[:, 0] + ops[:, 1], minlength=9)
    expected = n * np.outer([0.8, 0.2, 0], [0.1, 0.3, 0.6]).ravel()
    assert count[expected == 0].sum() == 0
    live = expected > 0
    assert ((count - expected)[live] ** 2 / expected[live]).sum() < chi2.isf(1e-4, live.sum() - 1)


@pytest.mark.parametrize(
    ("allowed", "weights", "message"),
    [
        (np.ones((2, 3)), np.ones((3, 2)), r"must both be \(n_nodes, n_ops\)"),
        (np.ones(3), None, "must both be"),
        (np.ones((1, 2)), [[1.0, -1.0]], "not negative"),
        (np.ones((1, 2)), [[1.0, np.nan]], "finite"),
        ([[1, 0], [0, 0]], None, "node 1 has no allowed operation"),
        ([[1, 0], [1, 1]], [[0, 1], [1, 1]], "node 0 has no allowed operation"),
    ],
)
def test_impossible_laws_are_refused(allowed, weights, message):
    with pytest.raises(NagkitError, match=message):
        ExactDenoiser(allowed, weights)
