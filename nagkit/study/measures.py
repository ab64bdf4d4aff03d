"""What is measured of a run: functions `(run) → number`, or several numbers by name, for `Exhibit.metric`."""

from collections.abc import Callable, Sequence

import numpy as np

from nagkit.study.exhibit import Run


def of_valid(statistic: Callable[[np.ndarray], float]) -> Callable[[Run], float]:
    """A measure: `statistic` of the values of the valid draws, nan when there is none."""
    return lambda run: float(statistic(run.values)) if len(run.values) else np.nan


best, mean, worst = map(of_valid, (np.max, np.mean, np.min))


def distinct(run: Run) -> float:
    """Number of different architectures among the valid draws."""
    return float(len(np.unique(run.valid, axis=0)))


def draws(run: Run) -> float:
    """Number of draws, valid or not."""
    return float(len(run.arrays["archs"]))


def valid(run: Run) -> float:
    """Number of valid draws."""
    return float(len(run.valid))


def beyond(ranking: Sequence[float]) -> Callable[[Run], float]:
    """A measure: the pool's mean minus the mean of as many values at the head of `ranking` as the pool has distinct ones."""
    ranking = np.asarray(ranking)
    return lambda run: mean(run) - float(ranking[: max(1, int(distinct(run)))].mean())
