"""What is measured of a run: functions `(run) → number`, or several numbers by name, for `Exhibit.metric`."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise

import numpy as np
from scipy import stats

from nagkit.spaces.base import get_space
from nagkit.study import pool
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


def validity(run: Run) -> float:
    """Percent of the draws that are valid."""
    return 100 * valid(run) / draws(run)


def per_draw(run: Run) -> float:
    """Mean value of all draws, an invalid one counting zero: what a strength is chosen by."""
    return float(run.values.sum()) / draws(run)


def seconds(run: Run) -> float:
    """CPU seconds that a pool took to draw."""
    return float(run.arrays["seconds"][0])


def shares(edges: Mapping[str, Sequence[float]]) -> Callable[[Run], dict[str, float]]:
    """A measure: percent of the valid draws whose value is in each range [low, high) between the edges of the run's column.

    The first range goes down to -inf and the last up to inf; their names are "below HIGH", "LOW to HIGH", "from LOW".
    """

    def measure(run: Run) -> dict[str, float]:
        inner = list(edges[run.column])
        names = [f"below {inner[0]:g}", *(f"{low:g} to {high:g}" for low, high in pairwise(inner)), f"from {inner[-1]:g}"]
        counts = np.bincount(np.searchsorted(inner, run.values, side="right"), minlength=len(names))
        return dict(zip(names, 100 * counts / max(1, len(run.values)), strict=True))

    return measure


def head(counts: Sequence[int]) -> Callable[[Run], dict[str, float]]:
    """A measure: mean value of as many architectures at the head of the list as each of `counts` says, as far as it goes."""
    return lambda run: {str(count): float(run.values[:count].mean()) for count in counts if count <= len(run.values)}


def ranked_between(space: str, first: float, last: float, benchmark: object, *, split: str = "test") -> Callable[[Run], float]:
    """A measure: percent of the valid draws whose rank in the whole (listed) space is in (first, last]; 0 is before the best.

    Ranks end at 1; equal values share their mean rank. nan when no draw is valid.
    """

    @cache
    def ranks(column: str) -> tuple[np.ndarray, np.ndarray]:
        """The different values of all architectures, rising, and the rank of each."""
        found, counts = np.unique(benchmark.query(get_space(space).all(), column, split=split), return_counts=True)
        better = counts.sum() - counts.cumsum()
        return found, (better + (counts + 1) / 2) / counts.sum()

    def measure(run: Run) -> float:
        values, rank = ranks(run.column)
        at = rank[np.searchsorted(values, run.values)]
        return 100 * float(((at > first) & (at <= last)).mean()) if len(at) else np.nan

    return measure


def beyond(space: str, ranking: str, benchmark: object, *, split: str = "test") -> Callable[[Run], float]:
    """A measure: the pool's mean minus that of as many architectures at the head of a ranking as the pool has distinct ones.

    `ranking` needs no network: one of the `null_rankings` of the space, its ties broken once for all runs.
    """
    order = pool.null_pool(space, ranking, n=get_space(space).size, seed=0)["archs"]
    return lambda run: mean(run) - float(benchmark.query(order[: max(1, int(distinct(run)))], run.column, split=split).mean())


def ordering(space: str, benchmark: object, *, best: float = 1.0, split: str = "test") -> Callable[[Run], float]:
    """A measure: rank correlation (Spearman) of a run's "scores" of all architectures with their values.

    With `best` only among that share of the architectures which has the highest values.
    """
    every = get_space(space).all()

    def measure(run: Run) -> float:
        values = benchmark.query(every, run.column, split=split)
        kept = values >= np.quantile(values, 1 - best)
        return float(stats.spearmanr(run.arrays["scores"][kept], values[kept]).statistic)

    return measure


def optimum_rank(space: str, benchmark: object, *, split: str = "test") -> Callable[[Run], float]:
    """A measure: where the best architecture stands when all are sorted by a run's "scores", ties at their mean rank."""
    every = get_space(space).all()

    def measure(run: Run) -> float:
        values, scores = benchmark.query(every, run.column, split=split), run.arrays["scores"]
        score = scores[values == values.max()].max()
        return float((scores > score).sum() + ((scores == score).sum() + 1) / 2)

    return measure


def at_optimum(space: str, benchmark: object, *, split: str = "test") -> Callable[[Run], float]:
    """A measure: number of draws of a pool that are the best architecture of the space, or as good."""
    every = get_space(space).all()
    return lambda run: float((run.values == benchmark.query(every, run.column, split=split).max()).sum())
