"""The closed-form denoiser of a law whose rows are independent: no training, no approximation.

With row codes e_k = 2 onehot(k) - 1 and x = e_k + sigma z, Bayes gives p(k | x) ∝ w_k exp(-|x - e_k|^2 / (2 sigma^2)), and
|x - e_k|^2 = const - 4 x_k, so p(. | x) = softmax(2 x / sigma^2 + log w) and E[x_0 | x] = sum_k p(k | x) e_k = 2 p - 1.
"""

import math

import numpy as np
import torch
from torch import Tensor

from nagkit.errors import NagkitError
from nagkit.spaces.base import SearchSpace

_LOG2_E = math.log2(math.e)
_ZERO = 1e-9  # sigma below this counts as no noise; its square is still a normal float32


class ExactDenoiser:
    """E[x_0 | x] for independent rows that carry operation k with probability proportional to `weights[row, k]`.

    `allowed` is bool `(n_nodes, n_ops)`; `weights` has its shape, is not negative and defaults to 1 (the uniform law).
    Operations that are not allowed, or have weight 0, get exactly -1.
    """

    def __init__(self, allowed: np.ndarray, weights: np.ndarray | None = None):
        allowed = np.asarray(allowed, bool)
        weights = np.ones(allowed.shape) if weights is None else np.asarray(weights, np.float64)
        if allowed.ndim != 2 or weights.shape != allowed.shape:
            raise NagkitError(f"allowed and weights must both be (n_nodes, n_ops), got {allowed.shape} and {weights.shape}")
        if not (np.isfinite(weights) & (weights >= 0)).all():
            raise NagkitError("weights must be finite and not negative")
        weights = np.where(allowed, weights, 0.0)
        if not (weights.sum(axis=1) > 0).all():
            raise NagkitError(f"node {int((weights.sum(axis=1) > 0).argmin())} has no allowed operation of positive weight")
        self.law = torch.from_numpy(weights / weights.sum(axis=1, keepdims=True))
        """Probability of every operation in every row, float64 `(n_nodes, n_ops)`."""
        self._log2_law = self.law.log2()

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Posterior mean, `(B, n_nodes, n_ops)` in [-1, 1], differentiable in `x`; `sigma` is a number or `(B,)`."""
        return self.probabilities(x, sigma).mul(2).sub(1)

    def probabilities(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Posterior probability of every operation, `(B, n_nodes, n_ops)`; at sigma = 0 that of the largest entry is 1."""
        log2_law = self._log2_law.to(x)
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1, 1)
        # Softmax in base 2: torch's own is five times as slow on short rows, and its exp wakes every thread for any size.
        logits = torch.addcmul(log2_law, x, 2 * _LOG2_E / sigma.clamp_min(_ZERO) ** 2)
        odds = torch.exp2(logits - logits.detach().amax(dim=2, keepdim=True))
        soft = odds / odds.sum(dim=2, keepdim=True)
        clean = sigma < _ZERO
        if not clean.any():
            return soft
        best = (x + torch.where(log2_law.isinf(), log2_law, 0.0)).argmax(dim=2)
        return torch.where(clean, torch.nn.functional.one_hot(best, x.shape[2]).to(x), soft)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` exact draws from the law as codes, float32 `(n, n_nodes, n_ops)` in {-1, 1}."""
        ops = torch.multinomial(self.law.to(generator.device), n, replacement=True, generator=generator)
        return torch.nn.functional.one_hot(ops.T, self.law.shape[1]).float().mul_(2).sub_(1)


def exact_prior(space: SearchSpace) -> ExactDenoiser:
    """The denoiser of the uniform law over `space`, for spaces whose rows are independent (NB201)."""
    return ExactDenoiser(space.allowed)
