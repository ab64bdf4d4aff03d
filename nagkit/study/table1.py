"""Transferable search among MobileNetV3 networks: every method selects networks, which are measured and the best fine-tuned.

A row is a `Task` that generates, ranks, selects and measures for one data set; what is no grid of rows and columns follows
from their runs. Accuracies are inherited from the supernet, or predicted by its surrogate.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
from scipy import stats

from nagkit.benchmarks import measured, supernet
from nagkit.rng import numpy_stream, torch_stream
from nagkit.sampling import load_predictor
from nagkit.search import baselines, methods
from nagkit.spaces import mbv3
from nagkit.spaces.base import ranked
from nagkit.study import fine_tune, jobs, pool
from nagkit.study.estimates import kendall_ci, mean_ci, welch_difference
from nagkit.study.exhibit import Run
from nagkit.study.jobs import Task
from nagkit.study.results import Results

SPACE = mbv3.Space()
FAVOURITES = 5
"""Networks that the TNAS-style search takes from the predictor's ranking; it finds the other ones by itself."""

# Rows -----------------------------------------------------------------------------------------------------------------


def selected(how: str, n: int, draws: Task | None, datasets: Sequence[str], **protocol) -> Task:
    """A row: `n` networks chosen by `how` from `draws` (a pool, see `nagkit.study.pool`) and measured.

    `how`: "random" or "search" (neither needs draws; the latter is TNAS-style: the predictor's favourites, then Bayesian
    optimisation on measured accuracy), "largest" or "predictor", by which the distinct valid draws are ranked. `protocol`:
    the `oracle` and the draws of its test `images` that are reported, of which a search sees none; `n_predictors`, as many as
    there are training seeds, which runs take in turn; `of`, how many random networks a search begins with.
    """
    asked = supernet.adapted if protocol["oracle"] == measured.ORACLE else measured.file_of
    made = {} if draws is None else {"function": draws.function.__name__, **draws.arguments}
    ranking = pool.guided("mbv3", 1, prior="exact", scale=0.0).files  # the predictors that rank
    files = dict.fromkeys((*map(asked, datasets), *ranking, *(draws.files if draws else ())))
    return Task(select, {"how": how, "n": n, "draws": made, **protocol}, tuple(files))


def of_networks(statistic: Callable[[np.ndarray], float]) -> Callable[[Run], float]:
    """A measure: `statistic` of the accuracies on the first draw of images."""
    return lambda run: float(statistic(run.arrays["accuracy"][0]))


def counted(what: int) -> Callable[[Run], float]:
    """A measure: how many draws (0), valid ones (1) and distinct networks (2) the pool had."""
    return lambda run: float(run.arrays["counts"][what])


# Jobs -----------------------------------------------------------------------------------------------------------------


def select(
    dataset: str, how: str, n: int, draws: Mapping[str, object], seed: int, n_predictors: int, of: int, oracle: str,
    images: Sequence[int],
) -> dict[str, np.ndarray]:  # fmt: skip
    """A job: `archs (n, 20)`, fewer when a pool has fewer; `accuracy (images, n)`; of a pool `counts (3,)`, CPU `seconds`."""
    bench, training_seed, more = measured.open_supernet(oracle, dataset), seed % n_predictors, {}
    if how == "random":
        archs = SPACE.random(n, numpy_stream(seed, "table1/random"))
    elif how == "search":
        archs = _searched(bench, dataset, n, seed, training_seed, of)
    else:
        made = _drawn(dict(draws), dataset, seed, training_seed)
        valid = made["archs"][made["archs"][:, 0] >= 0]
        sizes = supernet.multiply_accumulates(valid)
        archs = (ranked(valid, sizes) if how == "largest" else _favoured(dataset, valid, training_seed))[:n]
        counts = (len(made["archs"]), len(valid), len(np.unique(valid, axis=0)))
        more = {"counts": np.array(counts), "seconds": made["seconds"]}
    accuracy = np.stack([_query(bench, archs, dataset, draw) for draw in (images if oracle == measured.ORACLE else images[:1])])
    return {"archs": archs, "accuracy": accuracy, **more}


def _drawn(arguments: dict[str, object], dataset: str, seed: int, training_seed: int) -> dict[str, np.ndarray]:
    """The pool, a job of its own: unguided draws are made once for all rows and data sets."""
    function = getattr(pool, arguments.pop("function"))
    aim = {"dataset": dataset, "training_seed": training_seed} if arguments.get("guide", True) else {}
    return jobs.run([Task(function, arguments | aim | {"seed": seed})], progress=False)[0].arrays


def _searched(bench, dataset: str, n: int, seed: int, training_seed: int, of: int) -> np.ndarray:
    drawn = SPACE.random(of, numpy_stream(seed, f"table1/{dataset}/favourites"))
    start = _favoured(dataset, drawn, training_seed)[:FAVOURITES]
    streams = (make(seed, f"table1/{dataset}/search") for make in (numpy_stream, torch_stream))
    searcher = methods.build("diffusionnag", SPACE, *streams, proposer="mutation+random")
    query = lambda archs: _query(bench, archs, dataset, 0)  # noqa: E731
    return baselines.run(searcher, query, n, batch=FAVOURITES, design=start).archs


def _favoured(dataset: str, archs: np.ndarray, training_seed: int) -> np.ndarray:
    """The distinct networks of a pool, by the ranking predictor."""
    return ranked(archs, load_predictor("mbv3", dataset, training_seed=training_seed).rank(archs))


def _query(bench: measured.Measured, archs: np.ndarray, dataset: str, draw: int) -> np.ndarray:
    """Accuracies; `draw` chooses the test images where there are any."""
    how = {"draw": draw} if bench.oracle == measured.ORACLE else {}
    return bench.query(archs, dataset, split="test", **how)


# What is no grid ------------------------------------------------------------------------------------------------------


def compare(results: Results, *, ours: Sequence[str], others: Sequence[str], best: int, n_tuned: int) -> None:
    """Tests, other test images, cost, and fine-tuning, from the runs of the grid.

    Metrics: "Welch p of networks", which takes networks for independent, and "of runs"; n counts both samples. "difference by
    draw": the difference of means on each draw of test images, and "difference over draws", whose n counts these. "time": CPU
    seconds of one pool. "fine-tuned accuracy" of the `best` networks of the first run, by `n_tuned` seeds each (0: none), and
    its differences from the first of `ours`, Welch intervals over these networks; "τ with fine-tuning" over all of them.
    """
    runs: dict[str, dict[str, list[Run]]] = {}
    for run in results.runs:
        runs.setdefault(run.column, {}).setdefault(run.row, []).append(run)
    for dataset, rows in runs.items():
        accuracy = {row: np.stack([run.arrays["accuracy"] for run in each]) for row, each in rows.items()}  # (runs, images, n)
        for a, b in product(ours, others):
            samples = {"networks": [accuracy[row][:, 0].ravel() for row in (a, b)]}
            samples["runs"] = [accuracy[row][:, 0].mean(axis=1) for row in (a, b)]
            for what, pair in samples.items():
                p = stats.ttest_ind(*pair, equal_var=False).pvalue
                results.add(f"{a} minus {b}", dataset, f"Welch p of {what}", p, n=sum(map(len, pair)), unit="p")
        for other in others if accuracy[ours[0]].shape[1] > 1 else ():
            gaps = (accuracy[ours[0]] - accuracy[other]).mean(axis=2).T  # (images, runs)
            row = f"{ours[0]} minus {other}"
            for draw, gap in enumerate(gaps, start=1):
                results.add(row, str(draw), f"{dataset} difference by draw", mean_ci(gap), n=len(gap), unit="%")
            results.add(row, dataset, "difference over draws", mean_ci(gaps.mean(axis=1)), n=len(gaps), unit="%")
        if n_tuned:
            _fine_tuned(results, dataset, rows, ours[0], best, n_tuned)
    for row in next(iter(runs.values())):
        seconds = [run.arrays["seconds"] for rows in runs.values() for run in rows[row] if "seconds" in run.arrays]
        if seconds:
            results.add(row, "one pool", "time", float(np.mean(seconds)), n=len(seconds), unit="s")


def _fine_tuned(results: Results, dataset: str, rows: Mapping[str, list[Run]], ours: str, best: int, n_tuned: int) -> None:
    networks: dict[str, float] = {}
    chosen: dict[str, list[str]] = {}
    for row, runs in rows.items():
        accuracy = runs[0].arrays["accuracy"][0]
        top = np.argsort(-accuracy, kind="stable")[:best]
        chosen[row] = SPACE.to_string(runs[0].arrays["archs"][top])
        networks |= dict(zip(chosen[row], accuracy[top].tolist(), strict=True))
    made = results.do([fine_tune.task(dataset, arch, seed) for arch in networks for seed in range(n_tuned)])
    means = np.reshape([each["accuracy"] for each in made], (len(networks), n_tuned)).mean(axis=1)
    tuned = dict(zip(networks, means, strict=True))
    values = {row: np.array([tuned[arch] for arch in archs]) for row, archs in chosen.items()}
    for row, found in values.items():
        results.add(row, dataset, "fine-tuned accuracy", mean_ci(found), n=best, unit="%")
        if row != ours:
            gap = welch_difference(values[ours], found)
            results.add(f"{ours} minus {row}", dataset, "difference of fine-tuned accuracy", gap, n=2 * best, unit="%")
    rng = numpy_stream(results.exhibit.seed, f"table1/bootstrap/{dataset}")
    tau = kendall_ci(np.array(list(networks.values())), means, rng, resamples=2000)
    results.add("fine-tuned", dataset, "τ with fine-tuning", tau, n=len(networks), unit="τ")
