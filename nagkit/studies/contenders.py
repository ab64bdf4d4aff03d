"""The methods of Table 2, each as lists of cells in the order in which it would train them."""

from collections.abc import Callable, Sequence
from time import process_time
from typing import NamedTuple

import numpy as np

from nagkit import cluster, presets
from nagkit.benchmarks.table import open_benchmark
from nagkit.predictors import task
from nagkit.rng import numpy_stream
from nagkit.search import baselines, bo
from nagkit.spaces import nb201
from nagkit.spaces.base import ranked
from nagkit.studies import published

SPACE = nb201.Space()
DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "ninapro": "NinaPro, no dataset code",
    "darcy": "Darcy flow, no dataset code",
    "imagenet16-120": "ImageNet16-120, development set",
}
PAPER = ("cifar10", "cifar100")
"""The data sets that the paper reports too: those of the ratios."""

SEARCHES = {
    "Random search": baselines.RandomSearch,
    "Regularised evolution": baselines.RegularizedEvolution,
    "Local search": baselines.LocalSearch,
    "Bayesian optimisation": bo.BayesianOptimisation,
}
TNAS, SORTED, EVERY = "TNAS-style", "MetaD2A-style", "Every cell, ranked"
PUBLISHED, TRAINED, EXACT = "DiffusionNAG as published", "DiffusionNAG ours, trained prior", "DiffusionNAG ours, exact prior"
OURS, NULLS = (TRAINED, EXACT), ("Largest cells", "Hand rule")


class Setting(NamedTuple):
    """Sizes of a profile. Seeds are per predictor training seed."""

    training: int
    seeds: int
    published_seeds: int
    """Runs of the published method on each data set of `PAPER`, in fours."""
    published_others: int
    """And on each of the other data sets: its 1,000 steps are slow."""
    budget: int
    draws: int
    unguided: int
    steps: int


SETTINGS = {"quick": Setting(1, 3, 4, 4, 20, 64, 200, 10), "paper": Setting(3, 20, 20, 8, 100, 256, 1000, published.STEPS)}


def target(dataset: str) -> str:
    """The data set whose guided pools `dataset` uses: all without a code share one, since the predictor knows no better."""
    return dataset if dataset in task.CODED else "ninapro"


def generate(dataset: str, prior: str, training_seed: int, seeds: list[int], n: int) -> dict[str, np.ndarray]:
    """`n` raw draws for each of `seeds` by our preset, a job: int8 `archs (seeds, n, 6)`, -1 where invalid; CPU `seconds`.

    `dataset` "" draws without guidance.
    """
    archs, start = np.full((len(seeds), n, 6), -1, np.int8), process_time()
    for i, seed in enumerate(seeds):
        pool = presets.sample(
            "nb201", n, seed=seed, prior_name=prior, dataset=dataset or None, training_seed=training_seed if dataset else 0
        )
        archs[i] = pool.archs
    return {"archs": archs, "seconds": np.array([(process_time() - start) / len(seeds)])}


def search(dataset: str, method: str, training_seed: int, streams: list[int], budget: int) -> dict[str, np.ndarray]:
    """One search for each of `streams`, a job: int8 `archs (streams, budget, 6)` in training order."""
    accuracy = open_benchmark("nb201").query(SPACE.all(), dataset, split="test")
    prior = {"prior": _scores(dataset, training_seed)} if method == TNAS else {}
    make = SEARCHES.get(method, bo.BayesianOptimisation)
    found = []
    for stream in streams:
        searcher = make(SPACE, numpy_stream(stream, f"table2/{dataset}/{method}"), **prior)
        found.append(baselines.run(searcher, lambda archs: accuracy[SPACE.code(archs)], budget).archs)
    return {"archs": np.stack(found)}


def _streams(setting: Setting, seed: int) -> list[list[int]]:
    """Seeds of the runs, one list a training seed, all different: sampling is nested in training."""
    return [
        [1000 * seed + block * setting.seeds + number for number in range(setting.seeds)] for block in range(setting.training)
    ]


def generated(setting: Setting, seed: int, names: Sequence[str], options: dict) -> tuple[dict, dict[str, float]]:
    """Pools of raw draws, `[target][row][training seed][run]`, int8 `(m, 6)` valid rows each, and their CPU seconds."""
    streams, targets = _streams(setting, seed), list(dict.fromkeys(map(target, DATASETS)))
    rows = {TRAINED: "score", EXACT: "exact"}
    jobs = [
        {"dataset": name, "prior": prior, "training_seed": block, "seeds": seeds, "n": setting.draws}
        for name in targets
        for prior in rows.values()
        for block, seeds in enumerate(streams)
    ]
    free = [{"dataset": "", "prior": "score", "training_seed": 0, "seeds": seeds, "n": setting.unguided} for seeds in streams]
    made = cluster.map_jobs(generate, jobs + free, **options)
    unguided = [_valid(result["archs"]) for result in made[len(jobs) :]]
    lists: dict[str, dict[str, list]] = {name: {SORTED: unguided} for name in targets}
    seconds = {SORTED: float(np.mean([result["seconds"] for result in made[len(jobs) :]]))}
    for row, prior in rows.items():
        for job, result in zip(jobs, made, strict=False):
            if job["prior"] == prior:
                lists[job["dataset"]].setdefault(row, []).append(_valid(result["archs"]))
        seconds[row] = float(np.mean([r["seconds"] for job, r in zip(jobs, made, strict=False) if job["prior"] == prior]))
    runs = [
        (name, block, 1000 * seed + number)
        for name in targets
        for block in range(setting.training)
        for number in range(setting.published_seeds if name in PAPER else setting.published_others)
    ]
    found = published.pools(runs, steps=setting.steps, n_workers=options["n_workers"], progress=options["progress"])
    pools = {run: pool.archs for run, pool in zip(runs, found, strict=True)}
    for name in targets:
        blocks = [[pools[run] for run in runs if run[:2] == (name, block)] for block in range(setting.training)]
        lists[name][names[0]] = blocks
        lists[name][names[1]] = [[np.concatenate(block[i : i + 4]) for i in range(0, len(block), 4)] for block in blocks]
    mean = float(np.mean([pool.seconds for pool in found]))
    return lists, seconds | {names[0]: mean, names[1]: 4 * mean}


def ordered(dataset: str, pools: dict, setting: Setting, seed: int, names: Sequence[str], options: dict) -> dict[str, list]:
    """What every method trains, in order: `[row][training seed][run]`, int8 `(m, 6)`."""
    streams, every = _streams(setting, seed), SPACE.all()
    common = {"dataset": dataset, "budget": setting.budget}
    jobs = [
        common | {"method": method, "training_seed": block, "streams": seeds}
        for method in (*SEARCHES, TNAS)
        for block, seeds in enumerate(streams)
    ]
    made = [list(result["archs"]) for result in cluster.map_jobs(search, jobs, **options)]
    runs = {method: made[i * len(streams) : (i + 1) * len(streams)] for i, method in enumerate((*SEARCHES, TNAS))}

    def nulls(rank: Callable, role: str) -> list[list[np.ndarray]]:
        return [[rank(every, numpy_stream(stream, f"table2/{dataset}/{role}")) for stream in block] for block in streams]

    def by_predictor(row: str, blocks: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
        return [
            [
                ranked(archs, scores[SPACE.code(archs)], rng=numpy_stream(seed, f"table2/{dataset}/{row}/{block}/{i}"))
                for i, archs in enumerate(lists)
            ]
            for block, (lists, scores) in enumerate(zip(blocks, rankings, strict=True))
        ]

    rankings = [_scores(dataset, block) for block in range(setting.training)]
    runs |= {row: by_predictor(row, pools[row]) for row in (SORTED, *names, *OURS)}
    runs |= dict(zip(NULLS, (nulls(rank, name.replace("-", " ")) for name, rank in SPACE.null_rankings.items()), strict=True))
    return runs | {EVERY: by_predictor(EVERY, [[every] * setting.seeds] * setting.training)}


def _scores(dataset: str, training_seed: int) -> np.ndarray:
    """The ranking predictor's score of every cell; rounding keeps isomorphic cells tied."""
    return presets.predictor("nb201", dataset, seed=training_seed).rank(SPACE.all()).round(4)


def _valid(archs: np.ndarray) -> list[np.ndarray]:
    return [pool[pool[:, 0] >= 0] for pool in archs]
