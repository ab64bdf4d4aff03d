"""Estimates with 95 % intervals: means, bootstraps, paired differences, rank correlations, interquartile means."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from nagkit.errors import NagkitError


class Interval(NamedTuple):
    """An estimate and its 95 % interval."""

    mean: float
    lo: float
    hi: float


def mean_ci(values: np.ndarray) -> Interval:
    """Mean and 95 % t interval over the `n` entries of `values`; a single value has no interval (nan)."""
    values = _sample(values)
    mean, half = float(values.mean()), float(half_width(values))
    return Interval(mean, mean - half, mean + half)


def half_width(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Half the 95 % t interval of the mean over `axis`; nan when it holds a single value."""
    values = np.asarray(values, np.float64)
    n = values.shape[axis]
    if n < 2:
        return np.full(np.delete(values.shape, axis), np.nan)
    return stats.t.ppf(0.975, n - 1) * values.std(axis=axis, ddof=1) / np.sqrt(n)


def bootstrap_ci(values: np.ndarray, rng: np.random.Generator, *, statistic=np.mean, resamples: int = 2000) -> Interval:
    """`statistic(values, axis=-1)` and its 95 % percentile bootstrap interval."""
    values = _sample(values)
    draws = statistic(values[rng.integers(0, len(values), (resamples, len(values)))], axis=-1)
    return Interval(float(statistic(values, axis=-1)), *map(float, np.quantile(draws, [0.025, 0.975])))


def kendall_ci(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, *, resamples: int = 200) -> Interval:
    """Kendall's τ-b between paired values and its 95 % percentile bootstrap interval over the pairs."""
    rows = rng.integers(0, len(a), (resamples, len(a)))
    draws = [stats.kendalltau(a[row], b[row]).statistic for row in rows]
    return Interval(float(stats.kendalltau(a, b).statistic), *map(float, np.quantile(draws, [0.025, 0.975])))


def iqm(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean: the mean of the middle half, robust and still efficient (Agarwal et al., 2021)."""
    return stats.trim_mean(values, 0.25, axis=axis)


def paired_difference(values: np.ndarray, reference: np.ndarray) -> Interval:
    """Mean of `values - reference`, paired seed by seed, and its 95 % t interval."""
    values, reference = _sample(values), _sample(reference)
    if len(values) != len(reference):
        raise NagkitError(f"a paired difference needs as many values as references, got {len(values)} and {len(reference)}")
    return mean_ci(values - reference)


def welch_difference(values: np.ndarray, reference: np.ndarray) -> Interval:
    """Difference of the means of two independent samples and its 95 % interval by Welch's t statistic."""
    values, reference = _sample(values), _sample(reference)
    if min(len(values), len(reference)) < 2:
        raise NagkitError(f"a Welch interval needs two values a sample, got {len(values)} and {len(reference)}")
    interval = stats.ttest_ind(values, reference, equal_var=False).confidence_interval(0.95)
    return Interval(float(values.mean() - reference.mean()), float(interval.low), float(interval.high))


def _sample(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise NagkitError(f"a statistic needs a non-empty list of numbers, got an array of shape {values.shape}")
    return values
