"""What the predictor should see, and how strongly it should guide (paper, appendix D.6 and the review discussion).

Strengths are in standard deviations of the guiding predictor's scores over the space, so that rules can be compared; the
published unit is given beside it. Top-5 means rank the valid distinct draws by the ranking predictor, as the paper does.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from nagkit import cluster, guidance, paths, presets, strengths
from nagkit.benchmarks.table import Benchmark, open_benchmark
from nagkit.data.upstream import table_path
from nagkit.diffusion import samplers
from nagkit.diffusion.sde import VE
from nagkit.report.exhibits import Exhibit, by_profile
from nagkit.report.plots import NAMES
from nagkit.report.statistics import mean_ci, paired_difference
from nagkit.rng import torch_stream
from nagkit.spaces import nb201
from nagkit.spaces.base import ranked
from nagkit.studies import exact_guidance, pools, published

SPACE = nb201.Space()
XT, NETWORK_X0, X0, CLEAN_XT = "Noise-aware at x_t", "Noise-aware at x̂₀", "Clean at x̂₀", "Clean at x_t"
TILTED = exact_guidance.TILTED
INPUTS = (XT, NETWORK_X0, X0, CLEAN_XT, TILTED)
"""What the predictor sees; the tilted denoiser is exact guidance by the clean one."""

DEVELOPMENT = (exact_guidance.DATASET, exact_guidance.SPLIT)
PUBLISHED_UNIT = 100.0
"""Published strengths act on accuracies in hundredths of a standard deviation of the meta-training accuracies."""

LARGE, SMALL, DECREASING = 15_000, 5_000, (15_000, 10_000, 5_000)
COARSE = (1_000, 10_000, 100_000, 1_000_000)
FINE = (1_000, 2_000, 5_000, 10_000, 15_000, 20_000, 50_000)
SCHEDULES = {
    f"fixed {LARGE}": (LARGE,) * 3,
    f"decreasing {', '.join(map(str, DECREASING))}": DECREASING,
    f"fixed {SMALL}": (SMALL,) * 3,
}
AS_PUBLISHED = "as published"
LAWS = (XT, X0, TILTED)
ROUND = 64
"""Draws a round; three rounds make a pool."""


class Strength(NamedTuple):
    """The rows, and one line about the benchmark that was asked."""

    exhibit: Exhibit
    oracle: str


def denoiser(name: str, dataset: str, training_seed: int, scale: float) -> Callable:
    """The exact prior guided as `name`, one of `INPUTS`, says, at `scale` standard deviations of its predictor's scores."""
    if name in (XT, X0, TILTED):
        kind = {XT: exact_guidance.NETWORK, X0: exact_guidance.X0, TILTED: TILTED}[name]
        return exact_guidance.denoiser(kind, training_seed, scale, dataset)
    prior = presets.prior("nb201", "exact")
    if name == CLEAN_XT:
        ranking = presets.predictor("nb201", dataset, seed=training_seed)
        return guidance.guide(prior, ranking, scale, rule="xt")
    _, unit = exact_guidance.values("noise-aware", training_seed, dataset)
    network = presets.predictor("nb201", dataset, rule="xt", seed=training_seed)

    def clean(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        return network(x, VE().sigma_min)

    return guidance.guide(prior, clean, scale / unit)


def draw(name: str, dataset: str, training_seed: int, seed: int, scale: float, n: int) -> dict[str, np.ndarray]:
    """`n` raw draws by 20 ancestral steps, a job for `map_jobs`: `archs` int8 `(n, 6)`, -1 in invalid rows."""
    generator = torch_stream(seed, f"strength/{name}/{dataset}/{training_seed}/{scale:g}")
    law = denoiser(name, dataset, training_seed, scale)
    return {"archs": samplers.generate(SPACE, law, n, generator=generator)[0]}


def in_deviations(strength: float, training_seed: int, dataset: str) -> float:
    """A published strength in standard deviations of the noise-aware predictor's scores over the space."""
    return strength / PUBLISHED_UNIT * exact_guidance.values("noise-aware", training_seed, dataset)[1]


def top_five(pool: np.ndarray, accuracy: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Accuracies of the five distinct valid draws that rank highest by `scores`, up to `(5,)`."""
    valid = pool[pool[:, 0] >= 0]
    if not len(valid):
        return np.empty(0)
    return accuracy[SPACE.code(ranked(valid, scores[SPACE.code(valid)].round(4))[:5])]


def _start(name: str, profile: str, seed: int, seeds: int) -> tuple[Exhibit, Benchmark]:
    bench = open_benchmark("nb201")
    source = table_path() if bench.oracle == "table" else paths.DATA / "surrogates" / "nb201.safetensors"
    return Exhibit(name, profile, seed=seed, seeds=seeds, oracle=bench.oracle, data=(source, *pools.inputs())), bench


def _draws(jobs: Sequence[tuple], **options) -> list[np.ndarray]:
    names = ("name", "dataset", "training_seed", "seed", "scale", "n")
    made = cluster.map_jobs(draw, [dict(zip(names, job, strict=True)) for job in jobs], data=pools.inputs(), **options)
    return [result["archs"] for result in made]


def _summary(pool: np.ndarray, accuracy: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    top = top_five(pool, accuracy, scores)
    return {
        "max": pools.best(pool, accuracy),
        "mean": pools.average(pool, accuracy),
        "min": pools.worst(pool, accuracy),
        "mean of the top 5": float(top.mean()) if len(top) else np.nan,
    }


# What the predictor sees ----------------------------------------------------------------------------------------------


def predictor_input(profile: str = "quick", seed: int = 0, *, n_workers: int = 1, progress: bool = True) -> Strength:
    """Guidance by a predictor of noisy or of denoised cells (review discussion of the paper; CIFAR-10, 100 raw draws).

    Metrics: "development accuracy" and "development distinct" (column: strength) choose the strength of every row on
    ImageNet16-120, 12-epoch validation; "strength"; "accuracy" (max, mean, min, mean of the top 5) and "distinct cells" of 100
    draws at it, on CIFAR-10; "difference to the noise-aware at x_t", paired by seed, and once averaged by training seed
    first; "curve: mean accuracy" and "curve: distinct cells" of larger pools over all strengths.
    """
    options = {"n_workers": n_workers, "progress": progress}
    n_training, n_sampling, n, scales = by_profile(
        profile, quick=(2, 2, 100, (10.0, 100.0)), paper=(3, 7, 1000, strengths.SCALES)
    )
    exhibit, bench = _start("predictor_input", profile, seed, n_training * n_sampling)
    training = range(n_training)
    keys = list(product((DEVELOPMENT[0], "cifar10"), INPUTS, scales, training))
    jobs = [(name, dataset, t, 10_000 + t if dataset == DEVELOPMENT[0] else t, scale, n) for dataset, name, scale, t in keys]
    swept = dict(zip(keys, _draws(jobs, **options), strict=True))
    truth = {DEVELOPMENT[0]: bench.query(SPACE.all(), DEVELOPMENT[0], split=DEVELOPMENT[1])}
    truth["cifar10"] = bench.query(SPACE.all(), "cifar10", split="test")
    chosen = {}
    for dataset, prefix in ((DEVELOPMENT[0], "development"), ("cifar10", "curve:")):
        for name in INPUTS:
            quality = {}
            for scale in scales:
                found = [swept[dataset, name, scale, t] for t in training]
                quality[scale] = np.array([truth[dataset][pools.codes(one)].sum() / len(one) for one in found])
                cells = np.array([pools.distinct(one) for one in found])
                metric = "accuracy" if prefix == "development" else "mean accuracy"
                pools.add(exhibit, name, f"{scale:g}", f"{prefix} {metric}", quality[scale], "%")
                pools.add(exhibit, name, f"{scale:g}", f"{prefix} distinct cells", cells, "count")
            if prefix == "development":
                chosen[name] = strengths.smallest_good(quality)
                exhibit.add(name, "chosen", "strength", chosen[name], n=n_training, unit="sd")
    runs = list(product(INPUTS, training, range(n_sampling)))
    jobs = [(name, "cifar10", t, 1000 * (seed + 1) + number, chosen[name], 100) for name, t, number in runs]
    drawn = dict(zip(runs, _draws(jobs, **options), strict=True))
    scores = [presets.predictor("nb201", "cifar10", seed=t).rank(SPACE.all()) for t in training]
    every = {
        name: [_summary(drawn[name, t, number], truth["cifar10"], scores[t]) for t in training for number in range(n_sampling)]
        for name in INPUTS
    }
    for name, column in product(INPUTS, ("max", "mean", "min", "mean of the top 5")):
        values = np.array([one[column] for one in every[name]])
        pools.add(exhibit, name, column, "accuracy", values, "%")
        if name != XT:
            gap = values - np.array([one[column] for one in every[XT]])
            row = f"{name}, minus {pools.lower(XT)}"
            exhibit.add(row, column, "difference", mean_ci(gap), n=len(gap), unit="%")
            by_training = gap.reshape(n_training, n_sampling).mean(axis=1)
            exhibit.add(row, column, "difference, by training seed", mean_ci(by_training), n=n_training, unit="%")
    for name in INPUTS:
        counts = [pools.distinct(drawn[name, t, number]) for t in training for number in range(n_sampling)]
        pools.add(exhibit, name, "distinct cells", "distinct cells", np.array(counts), "count")
    return Strength(exhibit, bench.describe())


def predictor_input_verdict(study: Strength) -> str:
    """Whether the predictor must see the noisy architecture, in words."""
    frame = study.exhibit.frame()
    rows = frame[frame["origin"] == "ours"].set_index(["row", "column", "metric"])
    paper = frame[frame["origin"] == "paper"].set_index(["row", "column"])["value"]
    claim = paper["predictor takes A_t", "mean"] - paper["predictor takes A_0", "mean"]
    lines = []
    for name in INPUTS[1:]:
        row = f"{name}, minus {pools.lower(XT)}"
        gap, wide = (rows.loc[row, "mean", metric] for metric in ("difference", "difference, by training seed"))
        cells = [rows.loc[key, "distinct cells", "distinct cells"]["value"] for key in (name, XT)]
        lines.append(
            f"- *{pools.lower(name)}*: pool mean {pools.spelled(gap)} points ({pools.sign(gap)}) in {gap.n} runs, "
            f"{pools.spelled(wide)} ({pools.sign(wide)}) by training seed; "
            f"{cells[0]:.0f} distinct cells against {cells[1]:.0f}."
        )
    gap = rows.loc[f"{X0}, minus {pools.lower(XT)}", "mean", "difference"]
    answer = {
        "higher": "Not for these predictors.",
        "lower": "Yes, for these predictors.",
        "equal": "It makes no difference.",
    }.get(pools.sign(gap), "Not settled by this run.")
    best = {name: max(rows.xs((name, "development accuracy"), level=(0, 2))["value"]) for name in INPUTS[:-1]}
    first = max(best, key=best.get)
    return (
        f"**Must the predictor see the noisy architecture?** {answer} On CIFAR-10, at strengths chosen on ImageNet16-120, "
        f"beside the noise-aware predictor at x_t:\n\n" + "\n".join(lines) + "\n\nThe paper has the predictor of A_t "
        f"{claim:.2f} points above that of A_0; it does not say where the gradient of the latter is taken. On the development "
        f"set the best pool mean of a differentiable guide is that of *{pools.lower(first)}* ({best[first]:.2f} %), and the "
        f"default rule is `{presets.load()['nb201']['rule']}`."
    )


# How strongly ---------------------------------------------------------------------------------------------------------


def guidance_strength(profile: str = "quick", seed: int = 0, *, n_workers: int = 1, progress: bool = True) -> Strength:
    """Validity over a coarse grid, quality over a fine one, and three schedules at equal sampling time (paper, D.6).

    Metrics: "validity" (column: published strength) of the published sampler and of ours; "DATASET: ..." over the fine grid;
    and for the schedules (column: data set) "mean accuracy of the top 5", "standard deviation of the top 5", "pool mean",
    "pool minimum" and "distinct cells" of three rounds of `ROUND` draws; "in standard deviations" of a published strength.
    """
    options = {"n_workers": n_workers, "progress": progress}
    n_seeds, n_published, steps, coarse, fine = by_profile(
        profile, quick=(2, 0, 20, COARSE[1:3], FINE[1:4:2]), paper=(12, 3, published.STEPS, COARSE, FINE)
    )
    exhibit, bench = _start("guidance_strength", profile, seed, n_seeds)
    seeds = [(number % 3, 1000 * seed + number) for number in range(n_seeds)]  # training seed, sampling seed
    truth = {dataset: bench.query(SPACE.all(), dataset, split="test") for dataset in pools.DATASETS}
    scores = {
        (dataset, t): presets.predictor("nb201", dataset, seed=t).rank(SPACE.all()) for dataset in truth for t, _ in seeds
    }
    for strength in sorted({*coarse, *fine}):
        units = np.array([in_deviations(strength, t, "cifar10") for t in range(min(3, n_seeds))])
        pools.add(exhibit, "published strength", str(strength), "in standard deviations", units, "sd")

    def drawn(name: str, dataset: str, strengths: Sequence[float]) -> list[list[np.ndarray]]:
        """`[seed][strength]` pools of `ROUND` draws; equal strengths are different rounds."""
        jobs = [
            (name, dataset, t, number + 100_000 * i, in_deviations(strength, t, dataset), ROUND)
            for t, number in seeds
            for i, strength in enumerate(strengths)
        ]
        made = _draws(jobs, **options)
        return [made[k : k + len(strengths)] for k in range(0, len(made), len(strengths))]

    def as_published(dataset: str, strengths: Sequence[float]) -> list[list[np.ndarray]]:
        made = []
        for i, strength in enumerate(strengths):
            runs = [(dataset, t, number + 100_000 * i) for t, number in seeds[:n_published]]
            made.append(published.draws(runs, strength / PUBLISHED_UNIT, n=ROUND, steps=steps, **options))
        return [[one[k]["archs"] for one in made] for k in range(n_published)]

    for dataset in truth:
        measured = {}
        for name in LAWS:
            for metric, found in _measure(drawn(name, dataset, fine), truth[dataset], scores, dataset, seeds).items():
                for strength, values in zip(fine, found, strict=True):
                    pools.add(exhibit, name, str(strength), f"{dataset}: {metric}", values, _unit(metric))
        for schedule, name in product(SCHEDULES, (*LAWS, *((AS_PUBLISHED,) if n_published else ()))):
            draws = as_published if name == AS_PUBLISHED else lambda *job, name=name: drawn(name, *job)
            whole = [[np.concatenate(rounds)] for rounds in draws(dataset, SCHEDULES[schedule])]
            measured[schedule, name] = _measure(whole, truth[dataset], scores, dataset, seeds)
            for metric, (values,) in measured[schedule, name].items():
                pools.add(exhibit, f"{schedule}, {pools.lower(name)}", dataset, metric, values, _unit(metric))
        large, falling, small = SCHEDULES
        for (schedule, name), other in product(measured, (large, small)):
            for metric in ("mean accuracy of the top 5", "pool mean", "distinct cells"):
                if schedule == falling:
                    gap = paired_difference(*(measured[key, name][metric][0] for key in (falling, other)))
                    n = len(measured[schedule, name][metric][0])
                    row = f"decreasing minus {other}, {pools.lower(name)}"
                    exhibit.add(row, dataset, f"difference of {metric}", gap, n=n, unit=_unit(metric))
    for name in (*LAWS, *((AS_PUBLISHED,) if n_published else ())):
        made = as_published("cifar10", coarse) if name == AS_PUBLISHED else drawn(name, "cifar10", coarse)
        for strength, found in zip(coarse, zip(*made, strict=True), strict=True):
            values = np.array([100 * pools.valid(one) / len(one) for one in found])
            pools.add(exhibit, name, str(strength), "validity", values, "%")
    return Strength(exhibit, bench.describe())


def _measure(made: list[list[np.ndarray]], accuracy, scores, dataset: str, seeds) -> dict[str, list[np.ndarray]]:
    """Measures `[metric][strength]`, one value a seed, of pools `[seed][strength]`."""
    found: dict[str, list[np.ndarray]] = {}
    for column in zip(*made, strict=True):
        tops = [top_five(one, accuracy, scores[dataset, t]) for one, (t, _) in zip(column, seeds, strict=False)]
        measured = {
            "mean accuracy of the top 5": [top.mean() if len(top) else np.nan for top in tops],
            "standard deviation of the top 5": [top.std(ddof=1) if len(top) > 1 else np.nan for top in tops],
            "pool mean": [pools.average(one, accuracy) for one in column],
            "pool minimum": [pools.worst(one, accuracy) for one in column],
            "distinct cells": [pools.distinct(one) for one in column],
        }
        for metric, values in measured.items():
            found.setdefault(metric, []).append(np.array(values))
    return found


def _unit(metric: str) -> str:
    return "count" if metric == "distinct cells" else "%"


def guidance_strength_verdict(study: Strength) -> str:
    """What strength and schedule do, in words."""
    rows = study.exhibit.frame().query("origin == 'ours'").set_index(["row", "column", "metric"])
    names = [name for name in (AS_PUBLISHED, *LAWS) if (name, "validity") in {(key[0], key[2]) for key in rows.index}]
    valid = {name: rows.xs((name, "validity"), level=(0, 2))["value"] for name in names}
    said = [f"{pools.lower(name)} {', '.join(f'{value:.0f} % at {at}' for at, value in valid[name].items())}" for name in names]
    fewest = min((value, name, at) for name in names for at, value in valid[name].items())
    large, falling, small = SCHEDULES
    gains = [
        [rows.loc[f"decreasing minus {other}, {pools.lower(name)}", dataset, "difference of mean accuracy of the top 5"]
         for other in (large, small)]
        for dataset, name in product(pools.DATASETS, names)
    ]  # fmt: skip
    above = sum(all(gain.lo > 0 for gain in pair) for pair in gains)
    below = sum(any(gain.hi < 0 for gain in pair) for pair in gains)
    paragraphs = [
        f"**The claims.** By its interval, the top 5 of decreasing strength is above that of both fixed strengths in {above} "
        f"of the {len(gains)} pairs of guide and data set, and below that of one of them in {below}. The paper has no valid "
        f"draw at two of three strengths; here the fewest are {fewest[0]:.0f} %, {pools.lower(fewest[1])} at {fewest[2]}.",
        f"**Validity** over published strengths: {'; '.join(said)}.",
    ]
    for dataset, name in product(pools.DATASETS, names):
        words = []
        for other in (large, small):
            key = f"decreasing minus {other}, {pools.lower(name)}"
            top, mean = (
                rows.loc[key, dataset, f"difference of {what}"] for what in ("mean accuracy of the top 5", "pool mean")
            )
            words.append(
                f"to *{other}* {pools.spelled(top)} in the top 5 ({pools.sign(top)}) and {pools.spelled(mean)} in the pool "
                f"mean ({pools.sign(mean)})"
            )
        paragraphs.append(
            f"**{NAMES[dataset]}, {pools.lower(name)}.** Decreasing strength, difference {'; '.join(words)} points."
        )
    return "\n\n".join(paragraphs)
