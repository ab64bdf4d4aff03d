"""The general loop of Bayesian optimisation (paper, Algorithm 1): fit a surrogate, propose a pool, choose by acquisition."""

from collections.abc import Callable

import numpy as np
import torch

from nagkit.errors import NagkitError, unknown
from nagkit.search.acquisition import ACQUISITIONS
from nagkit.search.baselines import succeeded, unseen
from nagkit.search.bo import normal_scores
from nagkit.spaces.base import SearchSpace

POOL = 200
"""Candidates in each round."""


class ModelBased:
    """Ask and tell around a surrogate, a proposer and an acquisition function.

    Values become normal scores before the surrogate sees them, so that collapsed networks do not dominate and every oracle has
    the same unit. `ask` refits when something was told since, and returns the best distinct new candidates of the pool; what
    the pool lacks is drawn at random. Without any value yet the first `ask` is random. `watch(pool, mean)`, when given, sees
    the candidates of every round with the surrogate's means, and changes nothing.
    """

    def __init__(
        self, space: SearchSpace, rng: np.random.Generator, generator: torch.Generator, *, surrogate, proposer: Callable,
        acquisition: str, pool: int = POOL, watch: Callable[[np.ndarray, np.ndarray], None] | None = None,
    ):  # fmt: skip
        if acquisition not in ACQUISITIONS:
            raise unknown("acquisition function", acquisition, ACQUISITIONS)
        if pool < 1:
            raise NagkitError(f"a pool counts candidates and must be at least 1, got {pool}")
        self.space, self.rng, self.generator, self.surrogate = space, rng, generator, surrogate
        self.archs, self._values, self.scores = np.empty((0, space.n_slots), np.int8), np.empty(0), np.empty(0)
        self._proposer, self._acquire, self._pool, self._watch = proposer, ACQUISITIONS[acquisition], pool, watch
        self._seen, self._stale = set(), True

    def best(self, n: int) -> np.ndarray:
        """The best `n` architectures so far, best first."""
        return self.archs[np.argsort(-self._values, kind="stable")[:n]]

    def ask(self, n: int) -> np.ndarray:
        chosen = self._choose(n) if len(self.archs) else self.archs
        self._seen.update(row.tobytes() for row in chosen)
        fill = [unseen(self.space, self.rng, self._seen) for _ in range(n - len(chosen))]
        return np.concatenate([chosen, *fill])

    def tell(self, archs: np.ndarray, values: np.ndarray) -> None:
        self._seen.update(row.tobytes() for row in archs)
        archs, values = succeeded(archs, values)
        self.archs = np.concatenate([self.archs, archs])
        self._values = np.concatenate([self._values, values])
        self._stale = True

    def propose(self) -> np.ndarray:
        """Fit the surrogate and draw a pool: distinct candidates that were not evaluated, in the order of drawing."""
        if self._stale:
            self.scores = normal_scores(self._values)
            self.surrogate.fit(self.archs, self.scores)
            self._stale = False
        drawn = self._proposer(self, self._pool)
        first = np.sort(np.unique(drawn, axis=0, return_index=True)[1])
        return drawn[[row for row in first if drawn[row].tobytes() not in self._seen]]

    def _choose(self, n: int) -> np.ndarray:
        pool = self.propose()
        if not len(pool):
            return pool
        mean, sd = self.surrogate.posterior(pool)
        if self._watch is not None:
            self._watch(pool, mean)
        worth = self._acquire(mean, sd, float(self.scores.max()), self.rng)
        return pool[np.argsort(-worth, kind="stable")[:n]]
