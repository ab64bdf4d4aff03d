"""Closed-form denoisers of laws whose rows are independent, or whose stages, or which can be listed: no training.

With row codes e_k = 2 onehot(k) - 1 and x = e_k + sigma z, Bayes gives p(k | x) ∝ w_k exp(-|x - e_k|^2 / (2 sigma^2)), and
|x - e_k|^2 = const - 4 x_k, so p(. | x) = softmax(2 x / sigma^2 + log w) and E[x_0 | x] = sum_k p(k | x) e_k = 2 p - 1.

A row may also be absent, all -1. Its |x - e|^2 is the same constant, so its logit is 0 where operation k has 2 x_k / sigma^2.
In a stage whose first d slots are present, the rows given d are independent, and the depths compete by their evidence.

For a list of whole codes with weights w the same rule reads p(code | x) ∝ w exp(2 <x, [code > 0]> / sigma^2).
"""

import math
from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nagkit.errors import NagkitError, unknown

if TYPE_CHECKING:
    from nagkit.spaces.base import SearchSpace

_LOG2_E = math.log2(math.e)
ZERO = 1e-9  # sigma below this counts as no noise; its square is still a normal float32
_CHUNK = 2**20  # numbers in one intermediate result of a listed law: 8 MB in float64


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


class ListedDenoiser:
    """E[x_0 | x] for a list of codes, `(N, n_nodes, n_ops)` in {-1, 1}, of probabilities proportional to exp(log_law).

    `log_law`, `(N,)` below infinity, defaults to 0 (the uniform law). The posterior over the list is computed in `dtype`, on
    the device of `x`, some rows of `x` at a time so that memory is bounded. Where the list is all pairs of a first and a last
    part of a code, as are those of every product space, the posterior is u_i W_ij v_j with the likelihoods u, v of either part
    and the weights W, and its sums are products of small matrices.
    """

    def __init__(self, codes: Tensor, log_law: np.ndarray | None = None, *, dtype: torch.dtype = torch.float64):
        codes = torch.as_tensor(codes)
        if codes.ndim != 3 or not len(codes):
            raise NagkitError(f"a listed law needs codes (N, n_nodes, n_ops), at least one, got shape {tuple(codes.shape)}")
        self._first, self._last = (part.flatten(1).to(dtype) for part in _halves(codes > 0))
        self._code, self._dtype = codes.shape[1:], dtype
        self._log_law = np.zeros(len(codes))
        self._weigh(self._log_law if log_law is None else self._finite(log_law))

    def tilted(self, values: np.ndarray, scale: float = 1.0) -> "ListedDenoiser":
        """The law times exp(scale · values), `values` `(N,)`: what guidance aims at, exactly; -inf rules an architecture out.

        Raises `NagkitError` for another shape, nan or +inf, when everything is ruled out, and for a negative scale.
        """
        if not 0 <= scale < np.inf:
            raise NagkitError(f"the scale of a tilted law must be a finite number >= 0, got {scale}")
        values = self._finite(values)
        other = copy(self)
        other._weigh(self._log_law + scale * (values - values.max()) if scale else self._log_law)
        return other

    def _finite(self, values: np.ndarray) -> np.ndarray:
        values, n = np.asarray(values, np.float64), len(self._log_law)
        if values.shape != (n,) or np.isnan(values).any() or not -np.inf < values.max() < np.inf:
            raise NagkitError(f"a law needs a number below infinity for each of {n:,} architectures, got {values.shape}")
        return values

    def _weigh(self, log_law: np.ndarray) -> None:
        if not log_law.max() > -np.inf:
            raise NagkitError(f"all {len(log_law):,} architectures are ruled out; give one of them a value above -inf")
        self._log_law = log_law - log_law.max()
        self._log_law -= np.log(np.exp(self._log_law).sum())
        self.law = np.exp(self._log_law)
        """Probability of every architecture, float64 `(N,)`."""
        pairs = len(self._first), len(self._last)
        self._log2_law = torch.from_numpy(self._log_law * _LOG2_E).to(self._dtype).view(pairs)
        self._weights = torch.exp2(self._log2_law)

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Posterior mean, `(B, n_nodes, n_ops)` in [-1, 1], differentiable in `x`; `sigma` is a number or `(B,)`."""
        return self.moments(x, sigma)[0]

    def moments(self, x: Tensor, sigma: float | Tensor, values: np.ndarray | None = None) -> tuple[Tensor, Tensor | None]:
        """Posterior mean of the code and, given `values` `(N,)`, its posterior covariance with them, of the shape of `x` each.

        That covariance is sigma^2 times the gradient of E[values | x], the function a noise-aware predictor learns.
        """
        sigma = torch.as_tensor(sigma, dtype=self._dtype, device=x.device).reshape(-1, 1).clamp_min(ZERO).expand(len(x), 1)
        law = [part.to(x.device) for part in (self._first, self._last, self._weights, self._log2_law)]
        if values is not None:
            values = torch.as_tensor(values, dtype=self._dtype, device=x.device).view(law[2].shape)
        rows = max(1, _CHUNK // sum(self._weights.shape))
        parts = [_moments(a, s, *law, values) for a, s in zip(x.split(rows), sigma.split(rows), strict=True)]
        return tuple(None if part[0] is None else torch.cat(part).unflatten(1, self._code) for part in zip(*parts, strict=True))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` exact draws from the law as codes, float32 `(n, n_nodes, n_ops)` in {-1, 1}."""
        law = torch.from_numpy(self.law).to(generator.device)
        rows = torch.multinomial(law, n, replacement=True, generator=generator).cpu()
        n_last = len(self._last)
        on = torch.cat([self._first[rows // n_last], self._last[rows % n_last]], dim=1)
        return on.unflatten(1, self._code).float().mul_(2).sub_(1).to(generator.device)

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` exact draws from the law as places in the list, int64 `(n,)`."""
        return rng.choice(len(self.law), n, p=self.law)


def _halves(on: Tensor) -> tuple[Tensor, Tensor]:
    """A list of codes as all pairs of a first and a last part, the last changing fastest; one that is none is all last part."""
    first, last = on[:1, :0], on
    for node in range(1, on.shape[1]):
        other = (on[:, :node] != on[0, :node]).flatten(1).any(dim=1).nonzero()
        n_last = int(other[0]) if len(other) else len(on)
        if len(on) % n_last or len(on) // n_last + n_last >= len(first) + len(last):
            continue
        grid = on.unflatten(0, (-1, n_last))  # (first, last, n_nodes, n_ops)
        a, b = grid[:, 0, :node], grid[0, :, node:]
        if (grid[:, :, :node] == a[:, None]).all() and (grid[:, :, node:] == b).all():
            first, last = a, b
    return first, last


def _moments(x: Tensor, sigma: Tensor, first, last, weights, log2_law, values) -> tuple[Tensor, Tensor | None]:
    """`ListedDenoiser.moments` of some rows, as `(B, n_nodes * n_ops)`."""
    likelihood = x.flatten(1).to(weights.dtype) * (2 * _LOG2_E / sigma**2)
    logs = likelihood[:, : first.shape[1]] @ first.T, likelihood[:, first.shape[1] :] @ last.T
    u, v = (torch.exp2(half - half.detach().amax(dim=1, keepdim=True)) for half in logs)

    def sums(of_first: Tensor, of_last: Tensor) -> Tensor:
        """The total, and sums over what carries each operation, `(B, 1 + n_nodes * n_ops)`, from sums over the other part."""
        return torch.cat([of_last.sum(dim=1, keepdim=True), of_first @ first, of_last @ last], dim=1)

    found = [sums(u * (v @ by.T), v * (u @ by)) for by in ((weights,) if values is None else (weights, weights * values))]
    # A smaller evidence has lost digits to underflow: where law and likelihood clash so much, sums are redone in logs.
    clash = torch.nonzero(found[0][:, 0] < torch.finfo(weights.dtype).tiny ** 0.8)[:, 0]
    for rows in clash.split(max(1, _CHUNK // weights.numel())):
        logits = logs[0][rows, :, None] + logs[1][rows, None, :] + log2_law
        odds = torch.exp2(logits - logits.detach().amax(dim=(1, 2), keepdim=True))
        found[0][rows] = sums(odds.sum(dim=2), odds.sum(dim=1))
        if values is not None:
            found[1][rows] = sums((odds * values).sum(dim=2), (odds * values).sum(dim=1))
    evidence, mean = found[0][:, :1], found[0][:, 1:] / found[0][:, :1]
    slope = None if values is None else 2 * (found[1][:, 1:] - found[1][:, :1] * mean) / evidence
    return (2 * mean - 1).to(x), None if slope is None else slope.to(x)


def exact_prior(space: "SearchSpace", law: str | None = None) -> ExactDenoiser | StagewiseDenoiser | ListedDenoiser:
    """The closed-form denoiser of a `law` over `space`, one of its `laws` and by default the first."""
    law = space.laws[0] if law is None else law
    if law not in space.laws:
        raise unknown(f"law over {space.name}", law, space.laws)
    return space.prior(law)
