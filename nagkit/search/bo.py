"""Bayesian optimisation of a listed space: a Gaussian process over all of it, expected improvement, ask and tell.

The space is small enough that every architecture is a candidate in every round. The posterior of all of them is kept up to date
by one new row of a Cholesky factor per trained one, so a round costs a few operations an architecture.
"""

import numpy as np
from scipy.special import ndtri

from nagkit.errors import NagkitError
from nagkit.predictors.process import covariance
from nagkit.search import encoding
from nagkit.search.acquisition import expected_improvement
from nagkit.search.baselines import succeeded
from nagkit.spaces.base import SearchSpace, is_listed

LENGTH_SCALE, NOISE = 1.0, 0.1
"""In units of the features' typical distance, and as a share of the signal's standard deviation (development data set)."""

_OFFSET = 4.0  # prior variance of the constant, on a signal of variance 1


class BayesianOptimisation:
    """Gaussian process on the space's features, observed through normal scores, and expected improvement.

    Values are replaced by the normal quantiles of their ranks, so a collapsed network is bad and not infinitely bad, and
    data sets need no unit. The kernel is Matérn 5/2 plus a constant. `prior`, float `(size,)`, is a predictor's score of
    every architecture: standardised, it becomes the prior mean, and its slope is learnt along (a linear kernel); the search
    then starts at the predictor's favourite and needs no random design (TNAS-style). Without it the first `initial`
    architectures are uniform. Ties are broken at random.
    """

    def __init__(self, space: SearchSpace, rng: np.random.Generator, *, prior: np.ndarray | None = None, initial: int = 5):
        if not is_listed(space):
            raise NagkitError(f"{space.name} cannot be listed, so not all of it can be a candidate; use a method that proposes")
        if prior is not None and np.shape(prior) != (space.size,):
            raise NagkitError(f"a prior must score all {space.size} architectures, got an array of shape {np.shape(prior)}")
        self._archs, self._rng, self._initial = space.all(), rng, initial if prior is None else 0
        self._features, self._code = encoding.encode(space, self._archs), space.code
        self._prior = np.zeros(space.size) if prior is None else (prior - np.mean(prior)) / np.std(prior)
        self._free = np.ones(space.size, bool)
        self._trained: list[int] = []
        self._values: list[float] = []
        self._factor = np.empty((0, 0))  # lower Cholesky factor of the trained architectures' covariance
        self._solved = np.empty((32, space.size))  # factor⁻¹ · covariance of trained and all, with room for more
        self._variance = 1 + _OFFSET + self._prior**2

    def ask(self, n: int) -> np.ndarray:
        n = min(n, int(self._free.sum()))
        if not n:
            raise NagkitError(f"all {len(self._free)} architectures are trained; ask for a smaller budget")
        if len(self._trained) < self._initial:
            n = min(n, self._initial - len(self._trained))
            return self._archs[self._rng.choice(np.flatnonzero(self._free), n, replace=False)]
        worth = self._prior
        if self._trained:
            mean, variance = self.posterior()
            worth = expected_improvement(mean, np.sqrt(variance), normal_scores(np.array(self._values)).max(), self._rng)
        worth = np.where(self._free, worth, -np.inf)
        best = np.flatnonzero(worth >= np.partition(worth, -n)[-n])
        return self._archs[best[np.lexsort([self._rng.random(len(best)), -worth[best]])[:n]]]

    def tell(self, archs: np.ndarray, values: np.ndarray) -> None:
        self._free[self._code(archs)] = False
        archs, values = succeeded(archs, values)
        for row, value in zip(self._code(archs), values, strict=True):
            self._append(int(row))
            self._values.append(float(value))

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the normal scores of all architectures, float64 `(size,)` each."""
        residual = normal_scores(np.array(self._values)) - self._prior[self._trained]
        weights = np.linalg.solve(self._factor, residual) if self._trained else residual
        return self._prior + weights @ self._solved[: len(weights)], self._variance

    def _append(self, row: int) -> None:
        """One more row of the factor and of `solved`, and the variance that this architecture takes away everywhere."""
        covariance = self._covariance(row)
        size = len(self._trained)
        if size == len(self._solved):
            self._solved = np.concatenate([self._solved, np.empty_like(self._solved)])
        below = self._solved[:size, row]
        pivot = np.sqrt(max(covariance[row] + NOISE**2 - below @ below, NOISE**2))
        new = self._solved[size] = (covariance - below @ self._solved[:size]) / pivot
        self._factor = np.pad(self._factor, ((0, 1), (0, 1)))
        self._factor[size] = [*below, pivot]
        self._variance = np.maximum(self._variance - new**2, 1e-12)
        self._trained.append(row)

    def _covariance(self, row: int) -> np.ndarray:
        matern = covariance(self._features, self._features[[row]], (LENGTH_SCALE, 0.0))[:, 0].numpy()
        return matern + _OFFSET + self._prior[row] * self._prior


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Normal quantiles of the average ranks of the finite `values`; NaN for the others."""
    values = np.asarray(values, np.float64)
    scores, known = np.full(len(values), np.nan), np.isfinite(values)
    _, group, size = np.unique(values[known], return_inverse=True, return_counts=True)
    rank = np.cumsum(size) - (size - 1) / 2  # average rank of each distinct value, from 1
    scores[known] = ndtri((rank[group] - 0.5) / known.sum())
    return scores
