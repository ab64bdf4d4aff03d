"""The published sampler, its decoding and its rounds.

Predictor-corrector (Song et al., 2021) on the variance-exploding process: in every step a Langevin corrector, then an
Euler-Maruyama predictor at the *same* time. Scores are functions `(x, sigma) → score`, shaped like `x`, in centred units.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor

from nagkit.diffusion.exact import exact_prior
from nagkit.errors import NagkitError, unknown
from nagkit.published.losses import FLOOR, SIGMA_MIN, sigma
from nagkit.published.networks import gradient
from nagkit.spaces.base import get_space

Score = Callable[[Tensor, float], Tensor]
SWITCHES = {"length": ("1/N", "grid"), "coupling": ("batch", "sample"), "corrector": ("langevin", "none")}
CELL_ERRORS = ("", "not one operation", "misplaced ends", "ends inside")
NETWORK_ERRORS = ("", "several operations", "slot 1 or 2 absent", "slot 4 without slot 3")
SCHEDULES = {
    "published": lambda: count(10_000, -300),
    "balanced": lambda: iter((15_000, 10_000, 5_000)),
    "networks": lambda: iter(range(100_000, 0, -500)),
}
"""Guidance strengths of the rounds: those of the NAS-Bench-201 code, of the review discussion, of the MobileNetV3 code."""


def exact_score(space: str) -> Score:
    """The closed-form score of uniformly random architectures, what a perfectly trained score network would say."""
    denoiser = exact_prior(get_space(space))
    return lambda x, level: (denoiser(x, level) - x) / level**2


def guided(score: Score, guide: Callable[[Tensor, float], Tensor], strength: float) -> Score:
    """`score` plus `strength` times the gradient of what the noise-aware `guide` predicts at `x` itself."""
    return lambda x, level: score(x, level) + strength * gradient(lambda at: guide(at, level), x)


def grid(steps: int, sigma_max: float, floor: float = FLOOR) -> tuple[Tensor, Tensor, Tensor]:
    """Times from 1 to `floor`, their noise levels and diffusion coefficients, float64 `(steps,)`."""
    t = torch.linspace(1, floor, steps, dtype=torch.float64)
    level = sigma(t, sigma_max)
    return t, level, level * math.sqrt(2 * math.log(sigma_max / SIGMA_MIN))


@torch.no_grad()
def sample(
    score: Score, noise: Callable[[], Tensor], *, steps: int = 1000, sigma_max: float = 20.0, floor: float = FLOOR,
    corrector: str = "langevin", snr: float = 0.16, length: str = "1/N", coupling: str = "batch",
    sized_by: Score | None = None, clean: bool = True, callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:  # fmt: skip
    """Samples in units of {0, 1}, as far as they get: shaped like what `noise()` returns, standard normal numbers.

    Published quirks: every predictor step has `length` "1/N" although neighbouring times are (1 - floor) / (N - 1) apart
    ("grid"); the corrector's step follows from norms averaged over the batch ("sample": each by its own), of the guided score
    (`sized_by`: of another); the last mean is returned, without its noise (`clean`). `sigma_max` is that of the NAS-Bench-201
    run; `corrector` "none" is what the MobileNetV3 ones say. `callback(i, corrected, predicted)` sees every step. Raises
    `NagkitError` for fewer than two steps and unknown switches.
    """
    for what, value in {"length": length, "coupling": coupling, "corrector": corrector}.items():
        if value not in SWITCHES[what]:
            raise unknown(f"{what} of the published sampler", value, SWITCHES[what])
    if steps < 2:
        raise NagkitError(f"the published sampler needs at least 2 steps, got {steps}")
    duration = 1 / steps if length == "1/N" else (1 - floor) / (steps - 1)
    x = mean = noise() * sigma_max
    for i, (level, diffusion) in enumerate(torch.stack(grid(steps, sigma_max, floor)[1:], dim=1).tolist()):
        if corrector == "langevin":
            slope, z = score(x, level), noise()
            step = langevin_step(slope if sized_by is None else sized_by(x, level), z, snr, coupling)
            x = x + step * slope + torch.sqrt(2 * step) * z
        corrected = x
        mean = x + diffusion**2 * duration * score(x, level)
        x = mean + diffusion * math.sqrt(duration) * noise()
        if callback is not None:
            callback(i, corrected, x)
    return ((mean if clean else x) + 1) / 2


def langevin_step(slope: Tensor, z: Tensor, snr: float, coupling: str = "batch") -> Tensor:
    """Step 2 (snr |z| / |slope|)² from norms averaged over the batch, or of each sample by itself."""
    sizes = [part.flatten(1).norm(dim=1) for part in (z, slope)]
    above, below = (size.mean() if coupling == "batch" else size[:, None, None] for size in sizes)
    return 2 * (snr * above / below) ** 2


def quantise(x: Tensor, half: str = "on") -> Tensor:
    """Samples in units of {0, 1}, as float64 of {0, 1}: exactly one half is "on" as published (or "off"); infinities pass.

    Raises `NagkitError` for a NaN, at which the published check raises too.
    """
    if half not in ("on", "off"):
        raise unknown("decoding of one half", half, ("on", "off"))
    if torch.isnan(x).any():
        n = int(torch.isnan(x).flatten(1).any(dim=1).sum())
        raise NagkitError(f"{n} of {len(x)} samples hold NaN, at which the published code stops; lower the guidance strength")
    return (x >= 0.5 if half == "on" else x > 0.5).double()


def cells(x: Tensor, half: str = "on") -> tuple[np.ndarray, np.ndarray]:
    """NAS-Bench-201 cells of samples `(B, 8, 7)`, int8 `(B, 6)` (-1 when invalid), and the first of `CELL_ERRORS`."""
    on = quantise(x, half).bool().cpu().numpy()
    ends = ~on[:, 0, 0] | ~on[:, 7, 1]
    checks = [(on.sum(axis=2) != 1).any(axis=1), ends, on[:, 1:7, :2].any(axis=(1, 2))]
    errors = np.select(checks, CELL_ERRORS[1:], default="")
    return np.where(errors[:, None] == "", on[:, 1:7].argmax(axis=2) - 2, -1).astype(np.int8), errors


def networks(x: Tensor, half: str = "on") -> tuple[np.ndarray, np.ndarray]:
    """MobileNetV3 networks of samples `(B, 20, 9)`, int8 `(B, 20)` (-1 where a slot is absent, or all of an invalid one).

    The second array holds the first of `NETWORK_ERRORS` that applies.
    """
    on = quantise(x, half).bool().cpu().numpy()
    present = on.any(axis=2).reshape(-1, 5, 4)
    gaps = (present[..., 3] & ~present[..., 2]).any(axis=1)
    checks = [(on.sum(axis=2) > 1).any(axis=1), ~present[..., :2].all(axis=(1, 2)), gaps]
    errors = np.select(checks, NETWORK_ERRORS[1:], default="")
    valid = (errors == "")[:, None] & on.any(axis=2)
    return np.where(valid, on.argmax(axis=2), -1).astype(np.int8), errors


def rounds(
    draw: Callable[[float], tuple[np.ndarray, np.ndarray]], strengths: str | Iterable[float] = "published", *,
    wanted: int = 10, batch: int = 256, patience: int = 20,
) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:  # fmt: skip
    """Rounds of `draw(strength) → (archs, errors)` until `wanted` distinct valid architectures exist: archs, errors, strengths.

    At most `patience` rounds, times ceil(wanted / batch) where more are wanted than a round draws. `strengths` is one of
    `SCHEDULES` or numbers. Raises `NagkitError` when they run out, as the published MobileNetV3 list does in round 201.
    """
    if isinstance(strengths, str):
        if strengths not in SCHEDULES:
            raise unknown("schedule of strengths", strengths, SCHEDULES)
        strengths = SCHEDULES[strengths]()
    limit = patience * (-(-wanted // batch) if wanted > batch else 1)
    archs, errors, used = [], [], []
    for strength in islice(strengths, limit):
        used.append(float(strength))
        found, why = draw(used[-1])
        archs.append(found)
        errors.append(why)
        if len(distinct(archs, errors)) >= wanted:
            return archs, errors, used
    if len(used) < limit:
        raise NagkitError(
            f"the schedule holds {len(used)} strengths, and round {len(used) + 1} needs another; want fewer than {wanted}"
        )
    return archs, errors, used


def distinct(archs: Sequence[np.ndarray], errors: Sequence[np.ndarray]) -> np.ndarray:
    """The distinct valid architectures of some rounds in the order in which they came (the published code keeps no order)."""
    valid = np.concatenate([found[why == ""] for found, why in zip(archs, errors, strict=True)])
    _, first = np.unique(valid, axis=0, return_index=True)
    return valid[np.sort(first)]
