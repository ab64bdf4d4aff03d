"""Searches as tasks, the rows of the figures on Bayesian optimisation: one search by one method with one seed is one job.

An oracle is one of `nagkit.search.methods.ORACLES`: what a search asks, and on which split its incumbent is reported.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from nagkit import paths
from nagkit.search import methods
from nagkit.study.exhibit import Run
from nagkit.study.jobs import Task

# Rows -----------------------------------------------------------------------------------------------------------------


def by_method(method: str, oracles: Sequence[str], budget: int) -> Task:
    """A whole method, one of `methods.METHODS`, with `budget` evaluations."""
    return Task(search, {"method": method, "budget": budget}, files(oracles))


def by_proposer(proposer: str, oracles: Sequence[str], budget: int) -> Task:
    """Candidates from one of `methods.PROPOSERS`, and whatever the proposer the same surrogate: a Gaussian process."""
    return Task(search, {"method": "diffusionnag", "proposer": proposer, "budget": budget}, files(oracles))


@cache
def oracle(name: str) -> methods.Oracle:
    return methods.open_oracle(name)


def sources(columns: Sequence[str]) -> dict[str, str]:
    """Where the numbers of each column come from; a column begins with the name of an oracle."""
    return {column: oracle(column.split()[0]).source for column in columns}


def files(oracles: Sequence[str]) -> tuple[Path, ...]:
    """What searches read: settings and prior of the spaces, and the data of the oracles."""
    found = [(paths.DATA / "checkpoints" / f"score_{oracle(name).space}.safetensors", *oracle(name).files) for name in oracles]
    return (paths.DATA / "presets.yaml", *sorted(set().union(*found)))


# Job ------------------------------------------------------------------------------------------------------------------


def search(
    oracle: str, method: str, seed: int, budget: int, proposer: str | None = None, acquisition: str | None = None
) -> dict[str, np.ndarray]:
    """A job: one search.

    `incumbent` on the reported split (the architecture that is best where it is asked), float64 `(budget,)`, `seconds` of CPU
    time an evaluation after the initial design, and for model-based methods, by round, the mean accuracy of the pool (`pool`),
    the accuracy of its best tenth (`top`) and Kendall's τ of the surrogate in it (`tau`).
    """
    rounds: list[tuple[float, float, float]] = []
    watching = 0.0
    asked = methods.open_oracle(oracle)

    def watch(pool: np.ndarray, mean: np.ndarray) -> None:
        nonlocal watching
        begin = time.process_time()
        values = asked.query(pool)
        with np.errstate(invalid="ignore"):
            tau = kendalltau(mean, values).statistic
        rounds.append((float(values.mean()), float(np.quantile(values, 0.9)), float(tau)))
        watching += time.process_time() - begin

    start = time.process_time()
    options = {key: value for key, value in (("proposer", proposer), ("acquisition", acquisition)) if value}
    history, _ = methods.run(oracle, method, seed, budget=budget, watch=watch, **options)
    seconds = (time.process_time() - start - watching) / (budget - methods.DESIGN)
    reported = history.values if asked.report is None else asked.report(history.archs)
    pool, top, tau = np.array(rounds).reshape(-1, 3).T
    return {"incumbent": reported[history.incumbents()], "seconds": np.array(seconds), "pool": pool, "top": top, "tau": tau}


# Measures -------------------------------------------------------------------------------------------------------------


def incumbent(counts: Sequence[int]) -> Callable[[Run], Mapping[str, float]]:
    """A measure: the reported accuracy of the best so far, after each of `counts` evaluations."""
    return lambda run: {str(count): float(run.arrays["incumbent"][count - 1]) for count in counts}


def regret(counts: Sequence[int]) -> Callable[[Run], Mapping[str, float]]:
    """A measure: how far that is below the best of the space; nothing where the space cannot be listed."""

    def measure(run: Run) -> Mapping[str, float]:
        best = oracle(run.column.split()[0]).optimum
        return {key: best - value for key, value in incumbent(counts)(run).items()} if np.isfinite(best) else {}

    return measure


def at_optimum(counts: Sequence[int]) -> Callable[[Run], Mapping[str, float]]:
    """A measure for `estimates.share`: whether the best of the space is found, to the three decimals of a benchmark."""
    return lambda run: {key: float(value < 5e-4) for key, value in regret(counts)(run).items()}


def mean_of(name: str) -> Callable[[Run], float]:
    """A measure: the mean of one of a job's arrays, such as a number of every round."""
    return lambda run: float(np.nanmean(run.arrays[name]))
