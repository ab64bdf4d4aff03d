"""Pools of a thousand raw draws (paper, Table 3): how good their cells are, and how many different ones.

A pool is a list of draws as the sampler gave them; an invalid draw is a row of -1 and is counted. A method's pools come in
groups, one per training seed of the predictor, and every number is first averaged over the sampling seeds of a group: the
pools of one predictor have that predictor in common, so intervals count predictors.
"""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nagkit import cluster, paths, presets
from nagkit.benchmarks.table import open_benchmark
from nagkit.data.upstream import table_path
from nagkit.report.exhibits import Exhibit, by_profile
from nagkit.report.statistics import mean_ci
from nagkit.rng import numpy_stream
from nagkit.spaces import nb201
from nagkit.studies import published

SPACE = nb201.Space()
DATASETS = ("cifar10", "cifar100")
OURS, OURS_EXACT, XT_EXACT = "Ours, trained prior", "Ours, exact prior", "Guided at x_t, exact prior"
OURS_DIVERSE = "Ours, diverse, trained prior"
SORTED, RANDOM = "Unguided + sorting", "Random cells"
VARIANTS = {
    OURS: ("score", "x0", None),
    OURS_EXACT: ("exact", "x0", None),
    OURS_DIVERSE: ("score", "x0", presets.DIVERSE),
    XT_EXACT: ("exact", "xt", None),
}
"""Prior, guidance rule and `presets.strength` of the pools that are drawn at a strength chosen on the development set."""

_PUBLISHED = "As published"
Groups = list[list[np.ndarray]]
"""Pools by training seed of the predictor (or tie-breaking seed of a null) and sampling seed, int8 `(draws, 6)` each."""


class Pools(NamedTuple):
    """Table 3, or Figure 2: the rows, and the pools of each data set by row."""

    exhibit: Exhibit
    pools: dict[str, dict[str, Groups]]
    accuracy: dict[str, np.ndarray]
    """Test accuracy of every cell, float64 `(15625,)`."""
    published: str
    """Name of the row of the method as published; it says so when steps or draws are fewer. "" when it was left out."""
    oracle: str
    """One line about the benchmark that was asked."""

    def values(self, dataset: str, row: str) -> np.ndarray:
        """Test accuracies of all valid draws of a row, percent, float64."""
        return np.concatenate([self.accuracy[dataset][codes(pool)] for group in self.pools[dataset][row] for pool in group])

    def point(self, dataset: str, row: str) -> tuple[float, float]:
        """Distinct cells and mean accuracy of a row, averaged as in its table."""
        measures = (distinct, average)
        number, mean = (by_group(self.pools[dataset][row], measure, self.accuracy[dataset]).mean() for measure in measures)
        return float(number), float(mean)

    def floor(self, dataset: str) -> float:
        """Where the axis of a histogram may begin: the lower quartile of all cells, percent."""
        return float(np.quantile(self.accuracy[dataset], 0.25))

    @property
    def shown(self) -> list[str]:
        """The rows of the histograms: every pool but the shorter lists."""
        return [row for row in next(iter(self.pools.values())) if not row.endswith(" 100 cells")]


# Jobs -----------------------------------------------------------------------------------------------------------------


def guided_pool(
    dataset: str, training_seed: int, seed: int, prior: str, rule: str, scale: float, n: int
) -> dict[str, np.ndarray]:
    """`n` raw draws as `nagkit sample --guide` makes them, a job for `map_jobs`: `archs` int8 `(n, 6)`, -1 in invalid rows."""
    settings = {"prior_name": prior, "rule": rule, "scale": scale, "training_seed": training_seed}
    return {"archs": presets.sample("nb201", n, seed=seed, dataset=dataset, **settings).archs}


def unguided_pool(seed: int, n: int) -> dict[str, np.ndarray]:
    """`n` raw draws of the trained prior, a job likewise."""
    return {"archs": presets.sample("nb201", n, seed=seed, prior_name="score").archs}


def inputs() -> tuple[Path, ...]:
    """The committed files that a pool rests on."""
    return (*published.inputs(), *sorted((paths.DATA / "checkpoints").glob("ranking_nb201_*.safetensors")))


def draw_guided(jobs: Sequence[tuple], **options) -> list[np.ndarray]:
    names = ("dataset", "training_seed", "seed", "prior", "rule", "scale", "n")
    made = cluster.map_jobs(guided_pool, [dict(zip(names, job, strict=True)) for job in jobs], data=inputs(), **options)
    return [result["archs"] for result in made]


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


def by_group(groups: Groups, measure: Callable, accuracy: np.ndarray) -> np.ndarray:
    """`measure(pool, accuracy)`, averaged over the sampling seeds of every group, float64 `(groups,)`."""
    return np.array([np.mean([measure(pool, accuracy) for pool in group]) for group in groups])


# Table 3 --------------------------------------------------------------------------------------------------------------


def collect(
    name: str, profile: str, seed: int, *, datasets: Sequence[str] = DATASETS, as_published: bool = True, **options
) -> Pools:
    """The pools of Table 3, drawn or found among the finished jobs, for the exhibit `name`; `options` go to `map_jobs`.

    The method as published, whose sampler is slow, is left out unless `as_published`.
    """
    bench = open_benchmark("nb201")
    n, n_training, n_sampling, draws, steps = setting(profile)
    source = table_path() if bench.oracle == "table" else paths.DATA / "surrogates" / "nb201.safetensors"
    files = (source, *inputs(), paths.DATA / "presets.yaml")
    exhibit = Exhibit(name, profile, seed=seed, seeds=n_training * n_sampling, oracle=bench.oracle, data=files)
    accuracy = {dataset: bench.query(SPACE.all(), dataset, split="test") for dataset in datasets}
    training, sampling = range(n_training), [100 * seed + number for number in range(n_sampling)]
    keys = list(product(datasets, VARIANTS, training, sampling))
    strength = {row: presets.strength("nb201", *law) for row, law in VARIANTS.items()}
    jobs = [(dataset, t, s, *VARIANTS[row][:2], strength[row], n) for dataset, row, t, s in keys]
    guided = dict(zip(keys, draw_guided(jobs, **options), strict=True))
    wide = [{"seed": s, "n": 10 * n} for s in sampling]
    unguided = [result["archs"] for result in cluster.map_jobs(unguided_pool, wide, data=inputs(), **options)]
    rounds = -(-draws // published.DRAWS)
    size = min(draws, published.DRAWS)
    runs = [(d, t, 1000 * seed + number) for d in datasets for t in training for number in range(rounds)]
    runs = runs if as_published else []
    made = dict(zip(runs, published.draws(runs, n=size, steps=steps, **options), strict=True))
    label = _PUBLISHED if (draws, steps) == (1000, published.STEPS) else f"{_PUBLISHED}, but {draws} draws, {steps} steps"
    pools: dict[str, dict[str, Groups]] = {}
    for dataset in datasets:
        slow: dict[str, Groups] = {}
        if as_published:
            each = [[made[dataset, t, 1000 * seed + r]["archs"] for r in range(rounds)] for t in training]
            slow[label] = [[np.concatenate(found)[:draws]] for found in each]
        pools[dataset] = {
            **_without_network(dataset, seed, n),
            SORTED: [[_liked(pool, dataset, t, n) for pool in unguided] for t in training],
            **slow,
            **{row: [[guided[dataset, row, t, s] for s in sampling] for t in training] for row in VARIANTS},
        }
    return Pools(exhibit, pools, accuracy, label if as_published else "", bench.describe())


def _without_network(dataset: str, seed: int, n: int, n_seeds: int = 15) -> dict[str, Groups]:
    every = SPACE.all()

    def rng(number: int, role: str) -> np.random.Generator:
        return numpy_stream(100 * seed + number, f"pools/{dataset}/{role}")

    rows: dict[str, Groups] = {RANDOM: [[SPACE.random(n, rng(number, RANDOM))] for number in range(n_seeds)]}
    for name, ranking in (("Largest", SPACE.null_rankings["largest"]), ("Hand rule,", SPACE.null_rankings["hand-rule"])):
        orders = [ranking(every, rng(number, name)) for number in range(n_seeds)]
        rows |= {f"{name} {count:,} cells": [[order[:count]] for order in orders] for count in (n, 100)}
    return rows


def _liked(pool: np.ndarray, dataset: str, training_seed: int, n: int) -> np.ndarray:
    """The `n` draws of a pool that the ranking predictor of `training_seed` scores highest."""
    kept = pool[pool[:, 0] >= 0]
    scores = presets.predictor("nb201", dataset, seed=training_seed).rank(kept).round(4)
    return kept[np.argsort(-scores, kind="stable")[:n]]


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


def setting(profile: str) -> tuple[int, int, int, int, int]:
    """Draws a pool, training seeds, sampling seeds; draws and sampler steps of the method as published."""
    return by_profile(profile, quick=(200, 2, 1, 16, 50), paper=(1000, 3, 5, 1000, published.STEPS))
