"""Gaussian process regression whose kernel is chosen by the evidence: the surrogate for tens to thousands of observations."""

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from nagkit.errors import NagkitError

Kernel = tuple[float, float]
"""Length scale of the Matérn part (0: none) and weight of the linear part."""


def covariance(a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
    """Matérn 5/2 plus a weighted inner product, `(len(a), len(b))`, differentiable in both."""
    length_scale, linear = kernel
    inner = a @ b.T
    if not length_scale:
        return linear * inner
    squared = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1) - 2 * inner
    distance = (5 * squared.clamp_min(1e-12)).sqrt() / length_scale
    return (1 + distance + distance.square() / 3) * torch.exp(-distance) + linear * inner


class Process:
    """A Gaussian process on features `(N, F)`; the mean of the observations is its prior mean.

    `fit` takes the kernel and the noise (variance, as a share of the signal's) of the largest marginal likelihood among
    those given; the signal variance is profiled out. Features should be scaled so that two of them are about √2 apart.
    """

    def __init__(self, kernels: Sequence[Kernel], noises: Sequence[float]):
        self._settings = list(product(kernels, noises))
        if not self._settings:
            raise NagkitError("a process needs at least one kernel and one noise level to choose from")

    def fit(self, features: Tensor, values: Tensor) -> "Process":
        """Condition on `values (N,)` at `features (N, F)`, both float64."""
        self.mean, n = float(values.mean()), len(values)
        residual, best, grams = values - self.mean, -math.inf, {}
        for kernel, noise in self._settings:
            if kernel not in grams:
                grams = {kernel: covariance(features, features, kernel)}
            factor = torch.linalg.cholesky(grams[kernel] + noise * torch.eye(n, dtype=features.dtype))
            weights = torch.cholesky_solve(residual[:, None], factor)[:, 0]
            signal = float(residual @ weights) / n
            evidence = -0.5 * n * math.log(max(signal, 1e-300)) - float(factor.diagonal().log().sum())
            if evidence > best:
                best, self.kernel, self.noise, self.signal = evidence, kernel, noise, signal
                self._factor, self.weights = factor, weights
        self.support = features
        return self

    def __call__(self, features: Tensor) -> Tensor:
        """Posterior mean, `(B,)`, differentiable in `features`."""
        return covariance(features, self.support, self.kernel) @ self.weights + self.mean

    @torch.no_grad()
    def posterior(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and standard deviation of the noiseless value, `(B,)` each."""
        cross = covariance(features, self.support, self.kernel)
        solved = torch.linalg.solve_triangular(self._factor, cross.T, upper=False)
        length_scale, linear = self.kernel
        prior = float(length_scale > 0) + linear * features.square().sum(dim=1)
        variance = self.signal * (prior - solved.square().sum(dim=0)).clamp_min(1e-12)
        return cross @ self.weights + self.mean, variance.sqrt()
