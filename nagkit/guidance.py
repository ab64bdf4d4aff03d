"""Predictor guidance: a wrapper that turns a denoiser into one that aims at architectures a predictor likes.

The target is the law p(x₀)·exp(scale · f(x₀)) for a predictor f (paper, section 2.2). Guided scores add scale · ∇ₓ log-odds,
and because the score is (D(x, σ) - x)/σ², guiding the denoiser D means adding scale · σ² · ∇ₓ. No sampler knows about it.
"""

from collections.abc import Callable

import torch

from nagkit.errors import NagkitError, unknown

RULES = ("x0", "xt")
Predictor = Callable[[torch.Tensor, float | torch.Tensor], torch.Tensor]
"""`(x, sigma) → (B,)`: higher is better, in standard deviations over the space; differentiable in x `(B, n_nodes, n_ops)`."""


def guide(denoiser: Callable, predictor: Predictor, scale: float, *, rule: str = "x0") -> Callable:
    """A denoiser for the law tilted by `scale` times `predictor`.

    `rule="x0"` differentiates the predictor at the denoised x̂₀ = D(x, σ), through the denoiser: to first order this is the
    posterior mean of the tilted law, since σ²·∂D/∂x is the posterior covariance; a predictor of clean architectures
    suffices. The result is clamped to [-1, 1], where every posterior mean lies.
    `rule="xt"` differentiates a noise-aware predictor at the noisy x itself, as the paper does (equation 9), unclamped.

    Raises `NagkitError` for an unknown rule, or a scale that is negative or not finite.
    """
    if rule not in RULES:
        raise unknown("guidance rule", rule, RULES)
    if not 0 <= scale < float("inf"):
        raise NagkitError(f"guidance scale must be a finite number >= 0, got {scale}")
    if scale == 0:
        return denoiser

    def guided(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        variance = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1, 1) ** 2
        x = x.detach()
        with torch.enable_grad():
            at = x.clone().requires_grad_()
            denoised = denoiser(at if rule == "x0" else x, sigma)
            value = predictor(denoised, 0.0) if rule == "x0" else predictor(at, sigma)
            gradient = torch.autograd.grad(value.sum(), at)[0]
        shifted = denoised.detach() + scale * variance * gradient
        return shifted.clamp(-1, 1) if rule == "x0" else shifted

    return guided
