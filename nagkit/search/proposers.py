"""Proposers: where the candidates come from among which an acquisition function chooses.

A proposer is `(search, n) -> archs`, up to n raw candidates, int8 `(m, n_slots)`; `search` shows the space, what was
evaluated, the fitted surrogate and the random streams (`nagkit.search.loop.ModelBased`). Candidates may repeat.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from nagkit.diffusion.samplers import generate
from nagkit.diffusion.score import sinusoid
from nagkit.diffusion.sde import geometric_sigmas
from nagkit.errors import NagkitError
from nagkit.guidance import guide
from nagkit.spaces.base import SearchSpace

SIGMA_MIN = 0.1
"""Smallest noise level on which a noise-aware copy is trained."""

PARENTS = 10
"""Best architectures so far that are mutated."""


def random_pool(search, n: int) -> np.ndarray:
    """Draws from the space's own law."""
    return search.space.random(n, search.rng)


def mutation_pool(search, n: int) -> np.ndarray:
    """Mutants of the best `PARENTS` so far, of one slot and, every other one, of two."""
    parents = search.best(PARENTS)
    mutants = search.space.mutate(parents[search.rng.integers(0, len(parents), n)], search.rng)
    mutants[1::2] = search.space.mutate(mutants[1::2], search.rng)
    return mutants


def mutation_random_pool(search, n: int) -> np.ndarray:
    """Half of each."""
    return np.concatenate([mutation_pool(search, n - n // 2), random_pool(search, n // 2)])


def evolved_pool(search, n: int, *, generations: int) -> np.ndarray:
    """A population that evolves on the surrogate's mean: mutate everyone, keep the better half, `generations` times."""
    population = mutation_random_pool(search, n)
    worth = search.surrogate.posterior(population)[0]
    for _ in range(generations):
        children = search.space.mutate(population, search.rng)
        both, first = np.unique(np.concatenate([population, children]), axis=0, return_index=True)
        values = np.concatenate([worth, search.surrogate.posterior(children)[0]])[first]
        best = np.argsort(-values, kind="stable")[:n]
        population, worth = both[best], values[best]
    return population


class GuidedPool:
    """Guided draws from a prior over the space (paper, Algorithm 2).

    `prior` is a denoiser. With `rule` "x0" the surrogate itself is differentiated at the denoised architecture and needs no
    copy; with "xt" a noise-aware copy, trained on the architectures evaluated so far, is differentiated at the noisy one, as
    in the paper. `scale` is in standard deviations of the scores.
    """

    def __init__(self, prior: Callable, *, rule: str, scale: float, sigma_max: float = 5.0, steps: int = 20):
        self._prior, self._rule, self._scale = prior, rule, scale
        self._sigmas = geometric_sigmas(steps, sigma_max=sigma_max)
        self._copy: NoiseAwareCopy | None = None

    def __call__(self, search, n: int) -> np.ndarray:
        denoiser = guide(self._prior, self._guide_for(search), self._scale, rule=self._rule)
        archs, errors = generate(search.space, denoiser, n, generator=search.generator, sigmas=self._sigmas)
        return archs[errors == ""]

    def _guide_for(self, search) -> Callable:
        if self._rule == "x0":
            if not hasattr(search.surrogate, "value"):
                raise NagkitError("x0 guidance needs a surrogate with a gradient; choose another surrogate, or the rule xt")
            return lambda x, sigma: search.surrogate.value(x).to(x.dtype)
        self._copy = self._copy or NoiseAwareCopy(search.space, search.generator, sigma_max=float(self._sigmas[0]))
        self._copy.fit(search.archs, search.scores)
        return self._copy


class NoiseAwareCopy(nn.Module):
    """A perceptron on noisy codes and their noise level; every `fit` goes on from the weights of the one before."""

    def __init__(self, space: SearchSpace, generator: torch.Generator, *, sigma_max: float, steps: int = 100, batch: int = 128):
        super().__init__()
        self._space, self._generator, self._steps, self._batch = space, generator, steps, batch
        self._range = sigma_max / SIGMA_MIN
        sizes = [space.n_nodes * space.n_ops + 16, 128, 128, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        self._optimiser = torch.optim.Adam(self.parameters(), 3e-3)

    def forward(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """Score of noisy codes `(B, n_nodes, n_ops)` at noise level `sigma`, a number or `(B,)` → `(B,)`."""
        sigma = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1)
        shrunk = x / (1 + sigma.square()).sqrt()[:, None, None]  # unit size at every noise level
        h = torch.cat([shrunk.flatten(1), sinusoid(sigma, 16).expand(len(x), -1)], dim=1)
        for layer in self.layers[:-1]:
            h = nn.functional.silu(layer(h))
        return self.layers[-1](h)[:, 0]

    def fit(self, archs: np.ndarray, scores: np.ndarray) -> None:
        """Regression of `scores (N,)` on noised codes of `archs`, noise levels uniform in their logarithm."""
        codes, targets = self._space.encode(archs), torch.from_numpy(scores).float()
        for _ in range(self._steps):
            rows = torch.randint(len(codes), (self._batch,), generator=self._generator)
            sigma = SIGMA_MIN * self._range ** torch.rand(self._batch, generator=self._generator)
            noise = torch.randn(self._batch, *codes.shape[1:], generator=self._generator)
            loss = (self(codes[rows] + sigma[:, None, None] * noise, sigma) - targets[rows]).square().mean()
            self._optimiser.zero_grad()
            loss.backward()
            self._optimiser.step()
