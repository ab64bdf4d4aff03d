"""Bayesian optimisation of NAS-Bench-201 cells: a Gaussian process over the whole space, expected improvement, ask and tell.

The space is small enough that every cell is a candidate in every round. The posterior of all 15,625 is kept up to date by one
new row of a Cholesky factor per trained cell, so a round costs a few million operations.
"""

from functools import cache

import numpy as np
from scipy.special import ndtr, ndtri

from nagkit.errors import NagkitError
from nagkit.spaces import nb201

LENGTH_SCALE, NOISE = 1.0, 0.1
"""In units of the features' typical distance, and as a share of the signal's standard deviation (development data set)."""

_OFFSET = 4.0  # prior variance of the constant, on a signal of variance 1


def features(archs: np.ndarray) -> np.ndarray:
    """What the process sees of a cell, float64 `(B, 46)`: operations on all edges and on live edges, counts, and the hand rule.

    Columns are centred over the space and scaled so that each of the three groups has the same weight.
    """
    return _features()[nb201.Space().code(archs)]


@cache
def _features() -> np.ndarray:
    every = nb201.Space().all()
    live = nb201.live_edges(every)
    chosen = np.eye(5)[every]  # (15625, 6, 5)
    counts = (chosen * live[:, :, None]).sum(axis=1)[:, 1:]
    shape = np.stack([live.any(axis=1), nb201.hand_rule(every)], axis=1)
    groups = [chosen.reshape(len(every), -1), (chosen * live[:, :, None])[:, :, 1:].reshape(len(every), -1)]
    groups.append(np.concatenate([counts, shape], axis=1))
    scaled = [(group - group.mean(axis=0)) / (group.std(axis=0) * np.sqrt(group.shape[1])) for group in groups]
    return np.concatenate(scaled, axis=1) / np.sqrt(len(groups))


class BayesianOptimisation:
    """Gaussian process on `features`, observed through normal scores, and expected improvement over all untrained cells.

    Values are replaced by the normal quantiles of their ranks, so a collapsed network is bad and not infinitely bad, and
    data sets need no unit. The kernel is Matérn 5/2 plus a constant. `prior`, float `(15625,)`, is a predictor's score of
    every cell: standardised, it becomes the prior mean, and its slope is learnt along (a linear kernel); the search then
    starts at the predictor's favourite and needs no random design (TNAS-style). Without it the first `initial` cells are
    uniform. Ties are broken at random.
    """

    def __init__(self, space: nb201.Space, rng: np.random.Generator, *, prior: np.ndarray | None = None, initial: int = 5):
        if prior is not None and np.shape(prior) != (space.size,):
            raise NagkitError(f"a prior must score all {space.size} cells, got an array of shape {np.shape(prior)}")
        self._archs, self._rng, self._initial = space.all(), rng, initial if prior is None else 0
        self._features, self._code = _features(), space.code
        self._norm = np.einsum("bi,bi->b", self._features, self._features)
        self._prior = np.zeros(space.size) if prior is None else (prior - np.mean(prior)) / np.std(prior)
        self._trained: list[int] = []
        self._values: list[float] = []
        self._factor = np.empty((0, 0))  # lower Cholesky factor of the trained cells' covariance
        self._solved = np.empty((32, space.size))  # factor⁻¹ · covariance of trained and all cells, with room for more
        self._variance = self._covariance_diagonal()

    def ask(self, n: int) -> np.ndarray:
        free = np.ones(len(self._archs), bool)
        free[self._trained] = False
        if not free.any():
            raise NagkitError(f"all {len(free)} cells are trained; ask for a smaller budget")
        if len(self._trained) < self._initial:
            n = min(n, self._initial - len(self._trained))
            return self._archs[self._rng.choice(np.flatnonzero(free), n, replace=False)]
        worth = np.where(free, self._acquisition(), -np.inf)
        n = min(n, int(free.sum()))
        best = np.flatnonzero(worth >= np.partition(worth, -n)[-n])
        return self._archs[best[np.lexsort([self._rng.random(len(best)), -worth[best]])[:n]]]

    def tell(self, archs: np.ndarray, values: np.ndarray) -> None:
        for row, value in zip(self._code(archs), values, strict=True):
            self._append(int(row))
            self._values.append(float(value))

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the normal scores of all cells, float64 `(15625,)` each."""
        residual = normal_scores(np.array(self._values)) - self._prior[self._trained]
        weights = np.linalg.solve(self._factor, residual) if self._trained else residual
        return self._prior + weights @ self._solved[: len(weights)], self._variance

    def _acquisition(self) -> np.ndarray:
        if not self._trained:
            return self._prior
        mean, variance = self.posterior()
        spread = np.sqrt(variance)
        gap = mean - normal_scores(np.array(self._values)).max()
        z = gap / spread
        return gap * ndtr(z) + spread * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)

    def _append(self, row: int) -> None:
        """One more row of the factor and of `solved`, and the variance that this cell takes away everywhere."""
        covariance = self._covariance(row)  # (15625,)
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
        squared = self._norm + self._norm[row] - 2 * self._features @ self._features[row]
        distance = np.sqrt(2.5 * np.maximum(squared, 0)) / LENGTH_SCALE
        matern = (1 + distance + distance**2 / 3) * np.exp(-distance)
        return matern + _OFFSET + self._prior[row] * self._prior

    def _covariance_diagonal(self) -> np.ndarray:
        return 1 + _OFFSET + self._prior**2


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Normal quantiles of the average ranks of `values`."""
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    rank = np.cumsum(size) - (size - 1) / 2  # average rank of each distinct value, from 1
    return ndtri((rank[group] - 0.5) / len(values)) if len(values) else values
