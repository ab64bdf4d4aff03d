"""Acquisition functions: how much a candidate is worth evaluating, from the mean and deviation a surrogate gives it."""

import numpy as np
from scipy.special import log_ndtr, ndtr

BETA = 0.5
"""Deviations that the upper confidence bound adds, the factor of the published code."""


def expected_improvement(mean: np.ndarray, sd: np.ndarray, best: float, rng: np.random.Generator) -> np.ndarray:
    """Mean excess over `best` (Mockus, 1975), float64 `(B,)`."""
    z = (mean - best) / sd
    return sd * (z * ndtr(z) + np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))


def probability_of_improvement(mean: np.ndarray, sd: np.ndarray, best: float, rng: np.random.Generator) -> np.ndarray:
    """Logarithm of the probability to exceed `best` (Kushner, 1964), which still ranks where the probability underflows."""
    return log_ndtr((mean - best) / sd)


def upper_confidence_bound(mean: np.ndarray, sd: np.ndarray, best: float, rng: np.random.Generator) -> np.ndarray:
    """Mean plus `BETA` deviations (Srinivas et al., 2010)."""
    return mean + BETA * sd


def thompson(mean: np.ndarray, sd: np.ndarray, best: float, rng: np.random.Generator) -> np.ndarray:
    """One draw per candidate from its own posterior: independent Thompson sampling (White et al., 2021)."""
    return mean + sd * rng.standard_normal(len(mean))


ACQUISITIONS = {
    "ei": expected_improvement,
    "pi": probability_of_improvement,
    "ucb": upper_confidence_bound,
    "its": thompson,
}
"""Functions `(mean, sd, best, rng) → (B,)` by name; higher is better."""
