"""Closed-form denoisers of laws whose rows, or whose stages of rows, are independent: no training, no approximation.

With row codes e_k = 2 onehot(k) - 1 and x = e_k + sigma z, Bayes gives p(k | x) ∝ w_k exp(-|x - e_k|^2 / (2 sigma^2)), and
|x - e_k|^2 = const - 4 x_k, so p(. | x) = softmax(2 x / sigma^2 + log w) and E[x_0 | x] = sum_k p(k | x) e_k = 2 p - 1.

A row may also be absent, all -1. Its |x - e|^2 is the same constant, so its logit is 0 where operation k has 2 x_k / sigma^2.
In a stage whose first d slots are present, the rows given d are independent, and the depths compete by their evidence.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nagkit.errors import NagkitError, unknown
from nagkit.spaces.base import SearchSpace

_LOG2_E = math.log2(math.e)
ZERO = 1e-9  # sigma below this counts as no noise; its square is still a normal float32


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
        logits = torch.addcmul(log2_law, x, 2 * _LOG2_E / sigma.clamp_min(ZERO) ** 2)
        odds = torch.exp2(logits - logits.detach().amax(dim=2, keepdim=True))
        soft = odds / odds.sum(dim=2, keepdim=True)
        clean = sigma < ZERO
        if not clean.any():
            return soft
        best = (x + torch.where(log2_law.isinf(), log2_law, 0.0)).argmax(dim=2)
        return torch.where(clean, torch.nn.functional.one_hot(best, x.shape[2]).to(x), soft)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` exact draws from the law as codes, float32 `(n, n_nodes, n_ops)` in {-1, 1}."""
        ops = torch.multinomial(self.law.to(generator.device), n, replacement=True, generator=generator)
        return torch.nn.functional.one_hot(ops.T, self.law.shape[1]).float().mul_(2).sub_(1)


class StagewiseDenoiser:
    """E[x_0 | x] for independent stages: depth d with probability proportional to `depth_weights[d]`, then d independent rows.

    A stage has `weights.shape[1]` slots, of which the first d are present; a present one carries operation k with
    probability proportional to `weights[stage, slot, k]` (not negative, `(n_stages, n_slots, n_ops)`), an absent one is all -1.
    Codes are `(B, n_stages * n_slots, n_ops)`, as those of MBv3.
    """

    def __init__(self, depth_weights: Mapping[int, float], weights: np.ndarray):
        weights = np.asarray(weights, np.float64)
        if weights.ndim != 3 or not (np.isfinite(weights) & (weights >= 0)).all() or not (weights.sum(axis=2) > 0).all():
            raise NagkitError(
                f"weights must be (n_stages, n_slots, n_ops), finite, not negative and positive somewhere in each slot, "
                f"got shape {weights.shape}"
            )
        chance = np.array(list(depth_weights.values()), np.float64)
        if not (np.isfinite(chance) & (chance >= 0)).all() or not chance.sum() > 0:
            raise NagkitError(f"depth weights must be finite, not negative and not all 0, got {dict(depth_weights)}")
        if not all(1 <= depth <= weights.shape[1] for depth in depth_weights):
            raise NagkitError(f"depths must be 1 to {weights.shape[1]} (slots of a stage), got {sorted(depth_weights)}")
        self.law = torch.from_numpy(weights / weights.sum(axis=2, keepdims=True))
        """Probability of every operation in a slot that is present, float64 `(n_stages, n_slots, n_ops)`."""
        self.depth_law = torch.from_numpy(chance / chance.sum())
        """Probability of every depth in `depths`, float64 `(n_depths,)`."""
        self.depths = torch.tensor(list(depth_weights))
        self._log2_law, self._log2_depth_law = self.law.log2(), self.depth_law.log2()
        self._fills = torch.arange(weights.shape[1]) < self.depths[:, None]  # (n_depths, n_slots)

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Posterior mean, `(B, n_nodes, n_ops)` in [-1, 1], differentiable in `x`; `sigma` is a number or `(B,)`."""
        return self.probabilities(x, sigma).mul(2).sub(1)

    def probabilities(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Posterior probability of every operation, `(B, n_nodes, n_ops)`; what a row lacks to 1 is that of being absent."""
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1, 1, 1)
        stages = x.unflatten(1, self.law.shape[:2])  # (B, n_stages, n_slots, n_ops)
        logits = torch.addcmul(self._log2_law.to(x), stages, 2 * _LOG2_E / sigma.clamp_min(ZERO) ** 2)
        top = logits.detach().amax(dim=3, keepdim=True)
        odds = torch.exp2(logits - top)
        total = odds.sum(dim=3, keepdim=True)
        evidence = (top + total.log2()).squeeze(3).cumsum(dim=2)  # log2 p(first d rows present | x) / p(absent | x)
        depth = self._log2_depth_law.to(x) + evidence[..., self.depths - 1]  # (B, n_stages, n_depths)
        depth = torch.exp2(depth - depth.detach().amax(dim=2, keepdim=True))
        present = (depth / depth.sum(dim=2, keepdim=True)) @ self._fills.to(x)  # (B, n_stages, n_slots)
        return (odds / total * present[..., None]).flatten(1, 2)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` exact draws from the law as codes, float32 `(n, n_nodes, n_ops)` in {-1, 1}."""
        n_stages, n_slots, n_ops = self.law.shape
        law, depth_law = self.law.flatten(0, 1).to(generator.device), self.depth_law.to(generator.device)
        ops = torch.multinomial(law, n, replacement=True, generator=generator).T
        depth = torch.multinomial(depth_law, n * n_stages, replacement=True, generator=generator).reshape(n, n_stages)
        present = self._fills.to(generator.device)[depth].flatten(1)  # (n, n_nodes)
        code = torch.nn.functional.one_hot(ops, n_ops) * present[..., None]
        return code.float().mul_(2).sub_(1)


def exact_prior(space: SearchSpace, law: str | None = None) -> ExactDenoiser | StagewiseDenoiser:
    """The denoiser of a `law` over `space`, one of its `laws` and by default the first.

    NB201 has the uniform law; MBv3 that of Once-for-All ("ofa", the paper's training data) and the one uniform over networks.
    """
    law = space.laws[0] if law is None else law
    if law not in space.laws:
        raise unknown(f"law over {space.name}", law, space.laws)
    if space.stages is None:
        return ExactDenoiser(space.allowed)
    return StagewiseDenoiser(space.depth_weights(law), space.allowed.reshape(*space.stages, space.n_ops))
