"""Forward noising processes (Song et al., 2021) and the noise levels at which samplers visit them.

Every process here has Gaussian marginals x_t ~ N(alpha(t) x_0, std(t)^2). Dividing by alpha(t) gives x_0 + sigma z with
sigma = std / alpha: the variance-exploding coordinates in which all denoisers and samplers of the package work. A
process therefore reaches a sampler only as a decreasing sequence of noise levels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nagkit.errors import NagkitError


class SDE:
    """dx = f(x, t) dt + g(t) dw on [0, T]; times are floats or tensors `(B,)`, states `(B, ...)`."""

    T = 1.0
    t_min = 1e-3
    """Smallest time a sampler visits: the score of clean data is singular at t = 0."""

    def alpha(self, t: Tensor) -> Tensor:
        """Factor of x_0 in the mean of x_t."""
        raise NotImplementedError

    def std(self, t: Tensor) -> Tensor:
        """Standard deviation of x_t given x_0."""
        raise NotImplementedError

    def sde(self, x: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """Drift f(x, t), shaped like `x`, and diffusion g(t), shaped to broadcast against it."""
        raise NotImplementedError

    def marginal_prob(self, x0: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """Mean alpha(t) x_0, shaped like `x0`, and standard deviation of x_t, shaped to broadcast against it."""
        t = _time(x0, t)
        return self.alpha(t) * x0, self.std(t)

    def prior_std(self) -> float:
        """Standard deviation of the centred Gaussian that stands for x_T."""
        return 1.0

    def prior_sampling(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draws from N(0, prior_std^2), float32 of `shape`."""
        return self.prior_std() * torch.randn(shape, generator=generator, device=generator.device)

    def prior_logp(self, z: Tensor) -> Tensor:
        """Log density of each `z` under N(0, prior_std^2), `(B,)`."""
        scale = self.prior_std()
        dimensions = z[0].numel()
        return -0.5 * (z / scale).flatten(1).square().sum(dim=1) - dimensions * math.log(scale * math.sqrt(2 * math.pi))

    def sigmas(self, steps: int) -> Tensor:
        """Noise levels std / alpha at `steps` equally spaced times from T to `t_min`, then 0: float64 `(steps + 1,)`."""
        t = torch.linspace(self.T, self.t_min, _positive(steps), dtype=torch.float64)
        return _with_zero(self.std(t) / self.alpha(t))


@dataclass(frozen=True)
class VE(SDE):
    """Variance exploding, the paper's process: dx = g(t) dw with sigma(t) = sigma_min (sigma_max / sigma_min)^t.

    g(t) = sigma(t) sqrt(2 ln(sigma_max / sigma_min)). As in the paper the marginal is N(x_0, sigma(t)^2), that is, x at
    t = 0 already carries noise sigma_min.
    """

    sigma_min: float = 0.1
    sigma_max: float = 5.0
    t_min = 1e-5

    def __post_init__(self):
        _check_range("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def std(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def sde(self, x: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x), self.std(_time(x, t)) * math.sqrt(2 * math.log(self.sigma_max / self.sigma_min))

    def prior_std(self) -> float:
        return self.sigma_max


@dataclass(frozen=True)
class VP(SDE):
    """Variance preserving: dx = -beta(t) x / 2 dt + sqrt(beta(t)) dw with beta(t) linear from beta_min to beta_max.

    alpha(t) = exp(-B(t) / 2) with B(t) the integral of beta from 0 to t, and std(t)^2 = 1 - alpha(t)^2.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self):
        _check_range("beta_min", self.beta_min, "beta_max", self.beta_max)

    def beta(self, t: Tensor) -> Tensor:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def integral(self, t: Tensor) -> Tensor:
        """B(t), the integral of beta from 0 to t."""
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.integral(t))

    def std(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self.integral(t)))

    def sde(self, x: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        beta = self.beta(_time(x, t))
        return -0.5 * beta * x, torch.sqrt(beta)


@dataclass(frozen=True)
class SubVP(VP):
    """Sub-variance-preserving: the drift of `VP` with g(t)^2 = beta(t) (1 - exp(-2 B(t))), so std(t) = 1 - alpha(t)^2."""

    def std(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.integral(t))

    def sde(self, x: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        t = _time(x, t)
        beta = self.beta(t)
        return -0.5 * beta * x, torch.sqrt(-beta * torch.expm1(-2 * self.integral(t)))


def geometric_sigmas(steps: int, sigma_min: float = 0.1, sigma_max: float = 5.0) -> Tensor:
    """`steps` levels from `sigma_max` to `sigma_min`, equally spaced in log sigma, then 0: float64 `(steps + 1,)`."""
    _check_range("sigma_min", sigma_min, "sigma_max", sigma_max)
    return _with_zero(sigma_max * (sigma_min / sigma_max) ** _ramp(steps))


def karras_sigmas(steps: int, sigma_min: float = 0.1, sigma_max: float = 5.0, rho: float = 7.0) -> Tensor:
    """`steps` levels equally spaced in sigma^(1/rho), then 0 (Karras et al., 2022, equation 5): float64 `(steps + 1,)`."""
    _check_range("sigma_min", sigma_min, "sigma_max", sigma_max)
    start, end = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _with_zero((start + _ramp(steps) * (end - start)) ** rho)


def _time(x: Tensor, t: float | Tensor) -> Tensor:
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    return t.reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else t


def _ramp(steps: int) -> Tensor:
    return torch.linspace(0, 1, _positive(steps), dtype=torch.float64)


def _with_zero(levels: Tensor) -> Tensor:
    return torch.cat([levels, levels.new_zeros(1)])


def _positive(steps: int) -> int:
    if steps < 1:
        raise NagkitError(f"steps must be at least 1, got {steps}; the default is 20")
    return steps


def _check_range(low_name: str, low: float, high_name: str, high: float) -> None:
    if not 0 < low < high < math.inf:
        raise NagkitError(f"need 0 < {low_name} < {high_name}, got {low} and {high}")
