"""What the published code minimises, and how a step of it changes the weights."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from nagkit.errors import unknown

SIGMA_MIN, FLOOR = 0.1, 1e-5
REDUCTIONS = ("mean", "sum")


def times(u: Tensor, floor: float = FLOOR) -> Tensor:
    """Times in `[floor, 1)` from uniform numbers; the published code never trains below 1e-5."""
    return u * (1 - floor) + floor


def sigma(t: float | Tensor, sigma_max: float = 5.0) -> float | Tensor:
    """Noise level at time `t` of the variance-exploding process, 0.1 (sigma_max / 0.1)^t.

    `sigma_max` is 5 in both training configurations of NAS-Bench-201 and in that of the MobileNetV3 guide, 1 in that of the
    MobileNetV3 score network, and 20 in the configuration of the published NAS-Bench-201 sampling run.
    """
    return SIGMA_MIN * (sigma_max / SIGMA_MIN) ** t


def score_loss(score: Callable[[Tensor, Tensor], Tensor], x: Tensor, level: Tensor, z: Tensor, reduce: str = "mean") -> Tensor:
    """Denoising score matching: (level × score + z)² of `x + level z`, for noise levels `(B,)`.

    `reduce` "mean" over all entries (published), or half the "sum" of a sample, averaged over samples.
    """
    if reduce not in REDUCTIONS:
        raise unknown("reduction", reduce, REDUCTIONS)
    spread = level[:, None, None]
    error = (spread * score(x + spread * z, level) + z).square()
    return error.mean() if reduce == "mean" else error.flatten(1).sum(dim=1).mul(0.5).mean()


def guide_loss(guide: Callable[[Tensor, Tensor], Tensor], x: Tensor, level: Tensor, z: Tensor | float, label: Tensor) -> Tensor:
    """Mean squared error of the label predicted from `x + level z`; `z` 0 trains on clean architectures."""
    noisy = x + level[:, None, None] * z if isinstance(z, Tensor) else x
    return (guide(noisy, level) - label).square().mean()


def label_scale(accuracy: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation (n - 1) of the accuracies in the training `rows`."""
    chosen = np.asarray(accuracy, np.float64)[rows]
    return float(chosen.mean()), float(chosen.std(ddof=1))


def labels(accuracy: np.ndarray, rows: np.ndarray, divisor: float = 100.0) -> np.ndarray:
    """Labels of all accuracies, (accuracy - mean) / sd / `divisor`, with mean and sd of the training `rows`; float64.

    The published divisor of 100 makes one standard deviation of accuracy 0.01, which is why its guidance strength is 10,000.
    """
    mean, deviation = label_scale(accuracy, rows)
    return (np.asarray(accuracy, np.float64) - mean) / deviation / divisor


def rate(step: int, peak: float, warmup: int, first: int = 0) -> float:
    """Learning rate of step 0, 1, …: linear up to `peak` over `warmup` steps; step 0 has rate 0 as published (`first` 0)."""
    return peak * min(1.0, (step + first) / warmup) if warmup else peak


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Adam:
    """The published optimiser; `update` sets its rate in every step."""
    return torch.optim.Adam(parameters, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)


def update(loss: Tensor, optimiser: torch.optim.Optimizer, lr: float, clip: float = 1.0) -> Tensor:
    """One step at rate `lr`; the norm of the gradient, which is clipped at `clip`, before clipping."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    optimiser.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.step()
    return norm


def decay(update: int, limit: float = 0.9999, first: int = 1) -> float:
    """Decay of the moving average at its `update` 0, 1, …: min(limit, (1 + n) / (10 + n)), n from `first` (published 1)."""
    n = update + first
    return min(limit, (1 + n) / (10 + n))


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    """Move the parameters of `average` towards those of `model`, keeping the share `keep`."""
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - keep)
