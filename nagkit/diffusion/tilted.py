"""Any law over the NAS-Bench-201 cells and its exact denoiser, by enumeration: what guidance aims at, without approximation.

With codes e in {-1, 1} and x = e + sigma z, Bayes gives p(cell | x) ∝ w(cell) exp(<x, e> / sigma^2). A cell is a triple of
edges and another triple, so with u, v the 125 likelihoods of either and W the weights as a 125 × 125 matrix, the posterior
is u_i W_ij v_j, and its sums over cells are matrix products.
"""

import math

import numpy as np
import torch
from torch import Tensor

from nagkit.diffusion.exact import ZERO
from nagkit.errors import NagkitError
from nagkit.spaces import nb201

_LOG2_E = math.log2(math.e)
_TINY = (
    1e-250  # a smaller evidence has lost digits to underflow: where law and likelihood clash so much, sums are redone in logs
)


class TiltedLaw:
    """The law over all cells with probability proportional to exp(scale · values), a denoiser.

    `values` is `(15625,)`, one finite number a cell in the order of `Space.all()`; -inf rules a cell out. At scale 0 the law is
    uniform. Raises `NagkitError` for another shape, nan or +inf, or when every cell is ruled out.
    """

    def __init__(self, values: np.ndarray, scale: float = 1.0):
        values = np.asarray(values, np.float64)
        if values.shape != (nb201.Space.size,) or np.isnan(values).any() or not -np.inf < values.max() < np.inf:
            raise NagkitError(f"a law needs a number below infinity for each of {nb201.Space.size:,} cells, got {values.shape}")
        if not 0 <= scale < np.inf:
            raise NagkitError(f"the scale of a tilted law must be a finite number >= 0, got {scale}")
        log_law = scale * (values - values.max()) if scale else np.zeros(len(values))
        log_law -= np.log(np.exp(log_law).sum())
        self.law = np.exp(log_law)
        """Probability of every cell, float64 `(15625,)`."""
        self._log2_law = torch.from_numpy(log_law * _LOG2_E).view(125, 125)
        self._weights = torch.exp2(self._log2_law)
        triples = nb201.Space().all()[:125, 3:]  # the operations of three edges, in the order of both halves of a code
        self._triples = torch.nn.functional.one_hot(torch.from_numpy(triples.astype(np.int64)), 5).flatten(1).double()

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Posterior mean of the code, `(B, 8, 7)` in [-1, 1]; `sigma` is a number or `(B,)`."""
        return self.moments(x, sigma)[0]

    @torch.no_grad()
    def moments(self, x: Tensor, sigma: float | Tensor, values: np.ndarray | None = None) -> tuple[Tensor, Tensor | None]:
        """Posterior mean of the code and, given `values` `(15625,)`, its posterior covariance with them, `(B, 8, 7)` each.

        That covariance is sigma^2 times the gradient of E[values | x], the function a noise-aware predictor learns.
        """
        sigma = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1).clamp_min(ZERO)
        likelihood = x[:, 1:7, 2:].flatten(1).double() * (2 * _LOG2_E / sigma**2)
        first, last = (half @ self._triples.T for half in likelihood.split(15, dim=1))  # (B, 125), log2
        u, v = (torch.exp2(half - half.amax(dim=1, keepdim=True)) for half in (first, last))
        sums, weighted = self._sums(u, v, self._weights), None
        if values is not None:
            values = torch.from_numpy(np.asarray(values, np.float64)).view(125, 125)
            weighted = self._sums(u, v, self._weights * values)
        clash = torch.nonzero(sums[:, :15].sum(dim=1) < 3 * _TINY)[:, 0]
        for rows in clash.split(64):
            logits = first[rows, :, None] + last[rows, None, :] + self._log2_law
            odds = torch.exp2(logits - logits.amax(dim=(1, 2), keepdim=True))
            sums[rows] = self._of_triples(odds.sum(dim=2), odds.sum(dim=1))
            if weighted is not None:
                odds *= values
                weighted[rows] = self._of_triples(odds.sum(dim=2), odds.sum(dim=1))
        evidence = sums[:, :5].sum(dim=1, keepdim=True)
        mean, slope = sums / evidence, None
        if weighted is not None:
            covariance = (weighted - weighted[:, :5].sum(dim=1, keepdim=True) * mean) / evidence
            slope = torch.zeros_like(x)
            slope[:, 1:7, 2:] = 2 * covariance.view(-1, 6, 5).to(x)
        code = torch.full_like(x, -1.0)
        code[:, 0, 0] = code[:, 7, 1] = 1.0
        code[:, 1:7, 2:] = (2 * mean - 1).view(-1, 6, 5).to(x)
        return code, slope

    def _sums(self, u: Tensor, v: Tensor, weights: Tensor) -> Tensor:
        return self._of_triples(u * (v @ weights.T), v * (u @ weights))

    def _of_triples(self, first: Tensor, last: Tensor) -> Tensor:
        """Sums over the triples that carry each operation on each edge, `(B, 30)`, from sums over the other triple."""
        return torch.cat([first @ self._triples, last @ self._triples], dim=1)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` exact draws, int8 `(n, 6)`."""
        return nb201.Space().all()[rng.choice(len(self.law), n, p=self.law)]
