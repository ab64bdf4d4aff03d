"""Estimates with 95 % intervals: means, medians, bootstraps, paired differences, rank correlations, interquartile means."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream

_CORRELATION, _FROM_ZERO = (-1.0, 1.0), (0.0, np.inf)
RANGES = {
    "%": (0.0, 100.0), "probability": (0.0, 1.0), "count": _FROM_ZERO, "s": _FROM_ZERO, "nats": _FROM_ZERO,
    "rank": (1.0, np.inf), "τ": _CORRELATION, "ρ": _CORRELATION,
}  # fmt: skip
"""The values that a quantity of a unit can have; differences are free."""


class Interval(NamedTuple):
    """An estimate and its 95 % interval."""

    mean: float
    lo: float
    hi: float


UNKNOWN = Interval(np.nan, np.nan, np.nan)
Reduce = Callable[..., Interval]
"""What makes an estimate of the numbers of all runs."""


def mean_ci(values: np.ndarray, unit: str = "") -> Interval:
    """Mean and 95 % t interval over the entries of `values`; a single value has no interval (nan).

    An interval that would leave the range of `unit` (`RANGES`) is a percentile bootstrap instead, which cannot.
    """
    values = _sample(values)
    mean, half = float(values.mean()), float(half_width(values))
    low, high = RANGES.get(unit, (-np.inf, np.inf))
    if mean - half < low or mean + half > high:
        return bootstrap_ci(values)
    return Interval(mean, mean - half, mean + half)


def half_width(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Half the 95 % t interval of the mean over `axis`; nan when it holds a single value."""
    values = np.asarray(values, np.float64)
    n = values.shape[axis]
    if n < 2:
        return np.full(np.delete(values.shape, axis), np.nan)
    return stats.t.ppf(0.975, n - 1) * values.std(axis=axis, ddof=1) / np.sqrt(n)


def groups(values: np.ndarray) -> np.ndarray:
    """What an interval counts, of values `(outer seeds, others)`: means of the outer seeds, or with one of them single runs."""
    return values.mean(axis=1) if len(values) > 1 else values[0]


def median(values: np.ndarray) -> Interval:
    """Median, which may rest on infinite entries ("never"): nan when it is infinite itself; without an interval."""
    middle = float(np.median(_sample(values)))
    return Interval(middle if np.isfinite(middle) else np.nan, np.nan, np.nan)


def share(values: np.ndarray) -> Interval:
    """Percentage of the entries that are true, and its 95 % Wilson interval, which never leaves 0 to 100."""
    values = _sample(values) > 0
    interval = stats.binomtest(int(values.sum()), len(values)).proportion_ci(0.95, method="wilson")
    return Interval(100 * float(values.mean()), 100 * float(interval.low), 100 * float(interval.high))


def bootstrap_ci(
    values: np.ndarray, rng: np.random.Generator | None = None, *, statistic=np.mean, resamples: int = 2000
) -> Interval:
    """`statistic(values, axis=-1)` and its 95 % percentile bootstrap interval; without `rng` from a fixed stream."""
    values, rng = _sample(values), rng or numpy_stream(0, "estimates/bootstrap")
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


def iqm_ci(values: np.ndarray) -> Interval:
    """Interquartile mean and its bootstrap interval."""
    return bootstrap_ci(values, statistic=iqm)


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
