"""Pools of a thousand raw draws (paper, Table 3): how good their cells are, and how many different ones.

A pool is a list of draws as the sampler gave them; an invalid draw is a row of -1 and is counted. A method's pools come in
groups, one per training seed of the predictor, and every number is first averaged over the sampling seeds of a group: the
pools of one predictor have that predictor in common, so intervals count predictors.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nagkit import paths
from nagkit.predictors import images
from nagkit.report.exhibits import Exhibit
from nagkit.report.statistics import mean_ci
from nagkit.spaces import nb201

SPACE = nb201.Space()
DATASETS = ("cifar10", "cifar100")


def inputs() -> tuple[Path, ...]:
    """The committed files that a pool rests on."""
    folder = paths.DATA / "checkpoints"
    kinds = (sorted(folder.glob(f"{kind}_nb201_*.safetensors")) for kind in ("noise-aware", "ranking"))
    return (folder / "score_nb201.safetensors", *sum(kinds, []), images.CODES)


# Measures -------------------------------------------------------------------------------------------------------------


def codes(pool: np.ndarray) -> np.ndarray:
    """Rows in `Space.all()` of the valid draws of a pool."""
    return SPACE.code(pool[pool[:, 0] >= 0])


def of_valid(statistic: Callable) -> Callable:
    """A measure `(pool, accuracy) → float`: `statistic` of the accuracies of the valid draws, nan when there is none."""

    def measure(pool: np.ndarray, accuracy: np.ndarray) -> float:
        values = accuracy[codes(pool)]
        return float(statistic(values)) if len(values) else np.nan

    return measure


best, average, worst = map(of_valid, (np.max, np.mean, np.min))


def distinct(pool: np.ndarray, accuracy: np.ndarray | None = None) -> float:
    """Number of different cells among the valid draws."""
    return float(len(np.unique(codes(pool))))


def valid(pool: np.ndarray, accuracy: np.ndarray | None = None) -> float:
    """Number of valid draws."""
    return float(len(codes(pool)))


def add(exhibit: Exhibit, row: str, column: str, metric: str, values: np.ndarray, unit: str) -> None:
    exhibit.add(row, column, metric, mean_ci(values), n=len(values), unit=unit)


def lower(row: str) -> str:
    """A row's name inside a sentence."""
    return row if row[1:2].isupper() else row[0].lower() + row[1:]


def spelled(entry, form: str = "+.2f") -> str:
    """A number and its interval, as far as there are any."""
    if np.isnan(entry.value):
        return "–"
    return f"{entry.value:{form}}" + ("" if np.isnan(entry.lo) else f" [{entry.lo:{form}}, {entry.hi:{form}}]")


def sign(gap) -> str:
    """A difference in a word: "higher", "lower", "equal", or what an interval that holds 0 (or none at all) allows to say."""
    if np.isnan(gap.lo):
        return "no interval"
    if gap.lo == gap.hi == 0:
        return "equal"
    return "higher" if gap.lo > 0 else "lower" if gap.hi < 0 else "not distinguishable"
