"""Gaussian process regression agrees with the textbook, and its mean can be climbed."""

from itertools import product

import pytest
import torch

from nagkit.errors import NagkitError
from nagkit.predictors.process import Process, covariance
from nagkit.rng import torch_stream

KERNELS, NOISES = [(1.0, 0.0), (2.0, 0.5), (0.0, 1.0)], [1e-3, 1e-1]


@pytest.fixture
def data():
    stream = torch_stream(0, "test/process")
    x = torch.randn(40, 5, generator=stream, dtype=torch.float64) / 5**0.5
    return x, x[:, 0] + 0.3 * x[:, 1] ** 2 + 0.01 * torch.randn(40, generator=stream, dtype=torch.float64)


def test_the_kernel_of_the_largest_evidence_is_chosen(data):
    """Profiling out the signal variance gives the maximum over it of the Gaussian log density, up to a constant."""
    x, y = data
    process = Process(KERNELS, NOISES).fit(x, y)

    def density(kernel, noise):
        gram = covariance(x, x, kernel) + noise * torch.eye(40)
        residual = y - y.mean()
        signal = residual @ torch.linalg.solve(gram, residual) / 40
        return torch.distributions.MultivariateNormal(y.mean().expand(40), signal * gram).log_prob(y)

    assert (process.kernel, process.noise) == max(product(KERNELS, NOISES), key=lambda setting: density(*setting))


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_posterior_is_that_of_the_joint_gaussian(data, kernel):
    x, y = data
    process = Process([kernel], [0.01]).fit(x[:30], y[:30])
    joint = covariance(x, x, kernel)
    seen = joint[:30, :30] + 0.01 * torch.eye(30)
    gain = torch.linalg.solve(seen, joint[:30, 30:]).T
    residual = y[:30] - y[:30].mean()
    signal = residual @ torch.linalg.solve(seen, residual) / 30
    mean, sd = process.posterior(x[30:])
    torch.testing.assert_close(mean, gain @ residual + y[:30].mean())
    torch.testing.assert_close(sd**2, signal * (joint[30:, 30:] - gain @ joint[:30, 30:]).diagonal(), atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(process(x[30:]), mean)


def test_the_mean_has_the_gradient_of_finite_differences_also_on_the_support(data):
    x, y = data
    process = Process([(2.0, 0.5)], [0.01]).fit(x, y)
    at = x[:3].clone().requires_grad_()
    (slope,) = torch.autograd.grad(process(at).sum(), at)
    step = 1e-5 * torch.eye(5, dtype=torch.float64)
    numeric = (process((x[:3, None] + step).flatten(0, 1)) - process((x[:3, None] - step).flatten(0, 1))) / 2e-5
    torch.testing.assert_close(slope, numeric.view(3, 5), atol=1e-4, rtol=1e-4)


def test_a_process_without_a_setting_is_refused():
    with pytest.raises(NagkitError, match="at least one kernel"):
        Process([], [0.1])
