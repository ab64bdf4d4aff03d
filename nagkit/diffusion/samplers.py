"""Samplers: one function each, all `(denoiser, x, sigmas, *, generator=None, callback=None) -> x`.

A sampler takes `x` at noise level `sigmas[0]` and returns it at `sigmas[-1]`, calling `denoiser(x, sigma) -> E[x_0 | x]`
in variance-exploding coordinates; the score is (denoised - x) / sigma^2. Guidance is a wrapper around the denoiser, so no
sampler knows about it. Rules they share:

- A final level of 0 makes the last step return the denoiser's mean; a final level above 0 makes the last stochastic step
  return its mean, without noise. ("Noise removal": both end without fresh noise.)
- `callback` receives `{"i", "sigma", "x", "denoised"}` once a step, before the step is taken.
- The state has the dtype and device of `x` and carries no graph; a denoiser that needs gradients enables them itself.
- Stochastic samplers need a `generator`; the deterministic ones ignore it.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from nagkit.devices import threads
from nagkit.diffusion.sde import geometric_sigmas
from nagkit.errors import NagkitError, unknown
from nagkit.spaces.base import SearchSpace

Denoiser = Callable[[Tensor, float | Tensor], Tensor]
Callback = Callable[[dict], None]


@torch.no_grad()
def pc(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator=None, callback: Callback | None = None, snr: float = 0.16):
    """Predictor-corrector (Song et al., 2021, algorithm 4), as the paper samples: Langevin, then Euler-Maruyama.

    Two network calls a step; weak order 1. The published sampler itself is `nagkit.published.sampler`. The Langevin step is
    sized by norms averaged over the batch, so samples of one batch are coupled. Not for few calls: at the same number
    of them `ancestral` is nearer to the exact law, and the deterministic solvers are far nearer.
    """

    def corrected(x: Tensor, sigma: float) -> Tensor:
        score = (denoiser(x, sigma) - x) / sigma**2
        noise = _noise(x, generator)
        step = langevin_step(score, noise, snr)
        return x + step * score + torch.sqrt(2 * step) * noise

    return _euler_maruyama(denoiser, x, sigmas, generator, callback, corrected)


@torch.no_grad()
def euler_maruyama(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator=None, callback: Callback | None = None):
    """Euler-Maruyama on the reverse-time SDE (Song et al., 2021, section 4.1) in the time log sigma of the paper's process.

    One network call a step; weak order 1. Not for few steps: it overshoots once neighbouring levels differ by more than
    about a fifth (20 default steps), where `ancestral`, exact in the linear part, does not.
    """
    return _euler_maruyama(denoiser, x, sigmas, generator, callback, lambda x, _: x)


@torch.no_grad()
def ancestral(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator=None, callback: Callback | None = None):
    """Ancestral sampling (Ho et al., 2020, algorithm 2): draw from q(x_next | x, x_0) with x_0 = the denoiser's mean.

    One network call a step; weak order 1. The default: fresh noise forgets early errors, so guidance cannot push a
    sample off the data for good. Not when the law must be exact in few calls: a mean is not a draw, and on skewed laws
    20 steps leave a bias (total variation about 0.03) that `dpmpp_2m` does not have after 10.
    """
    levels = _levels(sigmas)
    for i, (sigma, after) in enumerate(pairwise(levels)):
        denoised = denoiser(x, sigma)
        _report(callback, i, sigma, x, denoised)
        keep = (after / sigma) ** 2
        x = torch.lerp(denoised, x, keep)
        if i < len(levels) - 2:
            x = x.add_(_noise(x, generator), alpha=after * math.sqrt(1 - keep))
    return x


@torch.no_grad()
def ddim(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator=None, callback: Callback | None = None):
    """DDIM with eta = 0 (Song et al., 2021b), equal to Euler steps of the probability-flow ODE in sigma.

    One network call a step; order 1. Not when calls are dear: `dpmpp_2m` has order 2 at the same cost.
    """
    for i, (sigma, after) in enumerate(pairwise(_levels(sigmas))):
        denoised = denoiser(x, sigma)
        _report(callback, i, sigma, x, denoised)
        x = torch.lerp(denoised, x, after / sigma)
    return x


@torch.no_grad()
def heun(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator=None, callback: Callback | None = None):
    """Heun's method on the probability-flow ODE (Karras et al., 2022, algorithm 1).

    Two network calls a step, one in a step to 0; order 2. Not when calls are dear, as with guidance: `dpmpp_2m` has the
    same order at half the calls.
    """
    for i, (sigma, after) in enumerate(pairwise(_levels(sigmas))):
        denoised = denoiser(x, sigma)
        _report(callback, i, sigma, x, denoised)
        if after == 0:
            return denoised
        slope = (x - denoised) / sigma
        ahead = x + (after - sigma) * slope
        slope_ahead = (ahead - denoiser(ahead, after)) / after
        x = x + (after - sigma) * 0.5 * (slope + slope_ahead)
    return x


@torch.no_grad()
def dpmpp_2m(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, generator=None, callback: Callback | None = None):
    """DPM-Solver++(2M) (Lu et al., 2022, algorithm 2): two-step exponential integrator of the probability-flow ODE.

    One network call a step; order 2 (a first-order start, and a first-order last step to 0). Not on very uneven grids:
    it extrapolates the denoiser from the previous step.
    """
    previous, previous_h = None, 0.0
    for i, (sigma, after) in enumerate(pairwise(_levels(sigmas))):
        denoised = denoiser(x, sigma)
        _report(callback, i, sigma, x, denoised)
        if after == 0:
            return denoised
        h = math.log(sigma / after)
        extrapolated = denoised if previous is None else torch.lerp(previous, denoised, 1 + h / (2 * previous_h))
        x = torch.lerp(extrapolated, x, after / sigma)
        previous, previous_h = denoised, h
    return x


SAMPLERS = {sampler.__name__: sampler for sampler in (pc, euler_maruyama, ancestral, ddim, heun, dpmpp_2m)}


def get_sampler(name: str) -> Callable[..., Tensor]:
    """The sampler called `name`, one of `SAMPLERS`."""
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    return SAMPLERS[name]


def network_calls(name: str, steps: int) -> int:
    """Denoiser calls of sampler `name` on a schedule of `steps` steps that ends in 0."""
    get_sampler(name)
    return {"pc": 2 * steps, "heun": 2 * steps - 1}.get(name, steps)


def generate(
    space: SearchSpace, denoiser: Denoiser, n: int, *, generator: torch.Generator, sampler: str = "ancestral", steps: int = 20,
    sigmas: Tensor | None = None, batch_size: int = 512, decode: str = "threshold", progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Draw `n` architectures, int8 `(n, n_slots)`, and say for each why it is invalid, `(n,)` of str (`""` when valid).

    Raw draws: nothing is resampled or filtered; an invalid row is -1 throughout. Starts from N(0, sigmas[0]^2) and follows
    `sigmas`, by default `geometric_sigmas(steps)`. `decode` is "threshold" (the paper's) or "argmax" (the most likely
    allowed operation; only a non-finite sample is invalid). Memory is bounded by `batch_size`. The law does not depend
    on it, but the draws do: batches read one after the other from `generator`, so another batch size reads the same
    stream in another order (and `pc` couples the samples of a batch). Runs on the generator's device, and on one thread of the
    CPU, so that the draws are the same whatever the number of its cores. Raises `NagkitError` for a count below 1, an unknown
    sampler or decoding, and noise levels that do not decrease.
    """
    for name, value in (("n", n), ("steps", steps), ("batch_size", batch_size)):
        if value < 1:
            raise NagkitError(f"{name} must be at least 1, got {value}")
    if decode not in ("threshold", "argmax"):
        raise unknown("decoding", decode, ("threshold", "argmax"))
    solve = get_sampler(sampler)
    levels = _levels(geometric_sigmas(steps) if sigmas is None else sigmas)
    sizes = [min(batch_size, n - start) for start in range(0, n, batch_size)]
    decoded, total = [], len(sizes) * (len(levels) - 1)
    with threads(1), tqdm(total=total, desc=f"sampling ({sampler})", unit="step", disable=not progress) as bar:
        for size in sizes:
            x = torch.randn((size, space.n_nodes, space.n_ops), generator=generator, device=generator.device).mul_(levels[0])
            x = solve(denoiser, x, levels, generator=generator, callback=lambda _: bar.update())
            decoded.append(_decode(space, x, decode))
    archs, errors = map(np.concatenate, zip(*decoded, strict=True))
    return archs, errors


def langevin_step(score: Tensor, noise: Tensor, snr: float) -> Tensor:
    """Langevin step size 2 (snr |noise| / |score|)^2 with batch-mean norms (Song et al., 2021, algorithm 4)."""
    return 2 * (snr * noise.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()) ** 2


def _euler_maruyama(denoiser: Denoiser, x: Tensor, sigmas: Tensor, generator, callback, corrected: Callable) -> Tensor:
    levels = _levels(sigmas)
    for i, (sigma, after) in enumerate(pairwise(levels)):
        x = corrected(x, sigma)
        denoised = denoiser(x, sigma)
        _report(callback, i, sigma, x, denoised)
        if after == 0:
            return denoised
        step = 2 * math.log(sigma / after)  # g(t)^2 |dt| / sigma^2 of the variance-exploding process
        x = torch.lerp(x, denoised, step)
        if i < len(levels) - 2:
            x = x.add_(_noise(x, generator), alpha=sigma * math.sqrt(step))
    return x


def _levels(sigmas: Tensor) -> list[float]:
    levels = [float(sigma) for sigma in sigmas]
    if len(levels) < 2:
        raise NagkitError(f"a sampler needs at least 2 noise levels, got {len(levels)}")
    if not all(math.isfinite(sigma) and sigma >= 0 for sigma in levels):
        raise NagkitError(f"noise levels must be finite and not negative, got {min(levels)} to {max(levels)}")
    if not all(sigma > after for sigma, after in pairwise(levels)):
        raise NagkitError("noise levels must decrease strictly; only the last may be 0")
    return levels


def _noise(x: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        raise NagkitError("a stochastic sampler needs generator=..., for example nagkit.rng.torch_stream(seed, 'sample')")
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def _report(callback: Callback | None, i: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
    if callback is not None:
        callback({"i": i, "sigma": sigma, "x": x, "denoised": denoised})


def _decode(space: SearchSpace, x: Tensor, how: str) -> tuple[np.ndarray, np.ndarray]:
    if how == "threshold":
        return space.decode(x)
    finite = torch.isfinite(x).flatten(1).all(dim=1).cpu().numpy()
    archs = space.decode_argmax(x)
    archs[~finite] = -1
    return archs, np.where(finite, "", "not finite")
