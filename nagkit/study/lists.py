"""Transferable search: every method as the list of architectures that it would train, in order, for `notebooks/table2`.

A list holds distinct architectures, and "training" is a look-up. A search learns from what it trains; every other list is made
before anything is trained and read from the top. A list without an architecture counts as 0 %.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nagkit import open_benchmark
from nagkit.rng import numpy_stream
from nagkit.sampling import load_predictor
from nagkit.search import baselines, bo, transfer
from nagkit.spaces.base import get_space, ranked
from nagkit.study import pool, tidy
from nagkit.study.estimates import UNKNOWN, Interval, mean_ci
from nagkit.study.exhibit import Run
from nagkit.study.jobs import Task
from nagkit.study.results import Results

SEARCHES = {
    "random-search": baselines.RandomSearch,
    "evolution": baselines.RegularizedEvolution,
    "local-search": baselines.LocalSearch,
    "bo": bo.BayesianOptimisation,
    "tnas": bo.BayesianOptimisation,
}
"""Methods that learn from what they train; "tnas" has the meta-trained ranking predictor as its prior mean."""

ALLOWANCE = 0.5
"""Points below the optimum at which an architecture counts as near it."""

# Rows -----------------------------------------------------------------------------------------------------------------


def by_search(space: str, method: str, budget: int) -> Task:
    """One search by one of `SEARCHES`, with `budget` trained architectures."""
    predictors = pool.checkpoints(space, "exact", "ranking") if method == "tnas" else ()
    return Task(search, {"space": space, "method": method, "budget": budget}, (*predictors, *open_benchmark(space).files))


def in_order(task: Task) -> Task:
    """The distinct draws of the pool of `task` (`pool.unguided` or `pool.guided`), as the ranking predictor orders them."""
    files = (*task.files, *pool.checkpoints(task.arguments["space"], "exact", "ranking"))
    return Task(ordered, task.arguments, tuple(dict.fromkeys(files)))


# Jobs -----------------------------------------------------------------------------------------------------------------


def search(space: str, dataset: str, method: str, budget: int, seed: int, training_seed: int = 0) -> dict[str, np.ndarray]:
    """A job: one search on test accuracy, as in the paper."""
    home = get_space(space)
    prior = {"prior": pool.scores(space, dataset, training_seed)} if method == "tnas" else {}
    searcher = SEARCHES[method](home, numpy_stream(seed, f"lists/{dataset}/{method}/{training_seed}"), **prior)
    accuracy = open_benchmark(space).column(dataset, split="test")
    return {"archs": baselines.run(searcher, lambda archs: accuracy[home.code(archs)], budget).archs}


def ordered(space: str, dataset: str, seed: int, training_seed: int, **settings) -> dict[str, np.ndarray]:
    """A job: a pool's distinct valid draws, the highest score first, ties at random; `seconds` of CPU for drawing it."""
    aim = {"dataset": dataset, "training_seed": training_seed} if settings.get("guide", True) else {}
    drawn = pool.sample(space=space, seed=seed, **aim, **settings)
    archs = drawn["archs"][(drawn["archs"] >= 0).any(axis=1)]
    if len(archs):  # rounding keeps isomorphic ones tied
        scores = load_predictor(space, dataset, training_seed=training_seed).rank(archs).round(4)
        archs = ranked(archs, scores, rng=numpy_stream(seed, f"lists/{dataset}/{training_seed}/ties"))
    return drawn | {"archs": archs}


# Measures -------------------------------------------------------------------------------------------------------------


def accuracy_after(counts: Sequence[int]) -> Callable[[Run], Mapping[str, float]]:
    """A measure: best test accuracy after as many trained architectures as each of `counts` says."""
    return lambda run: dict(zip(map(str, counts), transfer.after(_values(run), counts), strict=True))


def regret_after(counts: Sequence[int], benchmark: object) -> Callable[[Run], Mapping[str, float]]:
    """A measure: how far that is below the best of the space, points."""

    def measure(run: Run) -> Mapping[str, float]:
        best = benchmark.optimum(run.column, split="test")
        return {count: best - value for count, value in accuracy_after(counts)(run).items()}

    return measure


def until(benchmark: object, below: float = 0.0) -> Callable[[Run], float]:
    """A measure: architectures trained until the optimum, or `below` points under it, is reached; inf where it never is."""
    return lambda run: float(transfer.trained_until(_values(run), benchmark.optimum(run.column, split="test") - below))


def until_best(run: Run) -> float:
    """Architectures trained until the list's own best."""
    return float(transfer.trained_until(_values(run), _values(run).max()))


def reached(measure: Callable[[Run], float]) -> Callable[[Run], float]:
    """A measure for `estimates.share`: whether `measure`, one of `until`, is finite."""
    return lambda run: float(np.isfinite(measure(run)))


def seconds(run: Run) -> float:
    """CPU seconds of drawing the pool."""
    return float(run.arrays["seconds"].sum())


def _values(run: Run) -> np.ndarray:
    return run.values if len(run.values) else np.zeros(1)


# The factor 35 --------------------------------------------------------------------------------------------------------


def printed_ratios(results: Results) -> None:
    """The paper's numbers of trained architectures divided by DiffusionNAG's, as metric "printed ratio".

    By data set and for the sum of the four, of the methods whose number is printed for all of them.
    """
    paper = tidy.paper_rows("table2").query("metric == 'trained'")
    counts = paper[paper["hi"] != np.inf].pivot(index="row", columns="column", values="value").dropna()
    ours = counts.loc["diffusionnag"]
    for row, theirs in counts.iterrows():
        found = (theirs / ours).to_dict() | {"all four": theirs.sum() / ours.sum()}
        for column, value in found.items():
            said = {"source": "ratio of the paper's numbers of trained architectures", "oracle": ""}
            results.add(row, column, "printed ratio", value, n=1, unit="×", **said)


def ratios(results: Results, metric: str, rows: Sequence[str], ours: Sequence[str], datasets: Sequence[str]) -> None:
    """How many times as many each of `rows` trains as each of `ours` (column), as metric "ratio METRIC".

    Of `metric`, one of `until`, medians over runs are summed over `datasets`. The geometric mean over the training seeds of
    `ours` with a t interval on the logarithm; without a value where in half of the runs one of the two never gets there.
    """
    for other in ours:
        bottom = _sums(results, other, metric, datasets)
        for row in rows:
            top = _sums(results, row, metric, datasets)
            if row != other:
                known = np.isfinite([*top, *bottom]).all()
                mean = Interval(*np.exp(mean_ci(np.log(top / bottom)))) if known else UNKNOWN
                results.add(row, other, f"ratio {metric}", mean, n=len(bottom), unit="×")


def _sums(results: Results, row: str, metric: str, datasets: Sequence[str]) -> np.ndarray:
    """Medians over the runs of each outer seed, or of all where a seed has one run, summed over data sets."""
    found = [results.samples[row, metric, dataset].values for dataset in datasets]
    return np.sum([np.median(values if values.shape[1] > 1 else values.T, axis=1) for values in found], axis=0)
