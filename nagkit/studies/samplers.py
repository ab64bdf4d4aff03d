"""The protocol of every exhibit: one function each, from a profile and a seed to tidy rows and what its figure needs."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from nagkit import paths, presets
from nagkit.benchmarks.table import open_benchmark
from nagkit.data.upstream import table_path
from nagkit.diffusion import samplers
from nagkit.diffusion.exact import ExactDenoiser
from nagkit.diffusion.sde import geometric_sigmas
from nagkit.errors import unknown
from nagkit.predictors import ranking
from nagkit.report.exhibits import Exhibit, Interval, mean_ci, paired_difference
from nagkit.rng import numpy_stream, torch_stream
from nagkit.search import baselines, transfer
from nagkit.spaces import nb201

SPACE = nb201.Space()
GUIDED = "Guided generation"
UNGUIDED = "Unguided draws, ranked"
NULLS = ("Largest cells", "Hand rule", UNGUIDED, "Every cell, ranked")
WIDE = "dpmpp_2m from σ = 80"


class Transfer(NamedTuple):
    """Table 2: the rows, and for each data set and method the best test accuracy so far, float64 `(seeds, budget)`."""

    exhibit: Exhibit
    curves: dict[str, dict[str, np.ndarray]]
    optimum: dict[str, float]
    oracle: str
    """One line about the benchmark that was asked."""
    first: dict[str, np.ndarray]
    """The first cells that guided generation trains in the first seed, int8 `(4, 6)`."""


def table2(profile: str = "quick", seed: int = 0, *, progress: bool = True) -> Transfer:
    """Transfer to CIFAR-10 and CIFAR-100 on NAS-Bench-201 (paper, Table 2): accuracy by number of trained architectures.

    Searches stop after a budget; rankings are lists made before anything is trained, read from the top. Guided pools are
    raw draws from the exact prior at the preset's strength (`nagkit sample --guide DATASET --seed S`), ranked by the
    predictor that guided them; it also ranks unguided pools, and all 15,625 cells: what a generator replaces where the
    space cannot be listed. Intervals cover search, sampling and tie-breaking seeds, not the predictor's training.

    Metrics, all on test data: "DATASET accuracy" and "DATASET regret" after as many trained architectures as `column`
    says; "DATASET difference", paired by seed; "trained until the optimum", a median over seeds, without a value when
    fewer than half of them get there; "optimum reached"; "architectures listed".
    """
    n_seeds, budget, pool = _setting(profile, quick=(5, 100, 200), paper=(30, 500, 1000))
    bench = open_benchmark("nb201")
    source = table_path() if bench.oracle == "table" else paths.DATA / "surrogates" / "nb201.safetensors"
    files = (source, paths.DATA / ranking.CHECKPOINT, paths.DATA / "presets.yaml")
    exhibit = Exhibit("table2", profile, seed=seed, seeds=n_seeds, oracle=bench.oracle, data=files)
    every, curves, optimum, first = SPACE.all(), {}, {}, {}
    with tqdm(total=2 * n_seeds * 8, desc="table2", unit="run", disable=not progress) as bar:
        for dataset in ("cifar10", "cifar100"):
            accuracy = bench.query(every, dataset, split="test")
            best = optimum[dataset] = bench.optimum(dataset, split="test")
            runs: dict[str, list[np.ndarray]] = {}
            for number in range(n_seeds):
                for method, make in _methods(dataset, 100 * seed + number, budget, pool, every, accuracy).items():
                    archs = make()
                    runs.setdefault(method, []).append(accuracy[SPACE.code(archs)])
                    if method == GUIDED:
                        first.setdefault(dataset, archs[:4])
                    bar.update()
            _transfer_rows(exhibit, dataset, runs, best)
            curves[dataset] = {name: np.stack([_curve(values, budget) for values in lists]) for name, lists in runs.items()}
    return Transfer(exhibit, curves, optimum, bench.describe(), first)


def _methods(dataset: str, seed: int, budget: int, pool: int, every: np.ndarray, accuracy: np.ndarray) -> dict[str, Callable]:
    """For each method of Table 2 a function that returns its architectures in the order in which they are trained."""

    def rng(role: str) -> np.random.Generator:
        return numpy_stream(seed, f"table2/{dataset}/{role}")

    def search(method: type) -> Callable:
        return lambda: (
            baselines.run(method(SPACE, rng(method.__name__)), lambda archs: accuracy[SPACE.code(archs)], budget).archs
        )

    def by_predictor(archs: np.ndarray) -> np.ndarray:
        scores = presets.predictor("nb201", dataset).rank(archs).round(4)  # rounding keeps isomorphic cells tied
        return transfer.ranked(archs, scores, rng=rng("ties"))

    def generated(target: str | None) -> np.ndarray:
        draws = presets.sample("nb201", pool, seed=seed, dataset=target)
        return by_predictor(SPACE.from_string(list(draws["arch"][draws["error"] == ""])))

    return {
        "Random search": search(baselines.RandomSearch),
        "Regularised evolution": search(baselines.RegularizedEvolution),
        "Local search": search(baselines.LocalSearch),
        "Largest cells": lambda: transfer.largest(every, rng("largest")),
        "Hand rule": lambda: transfer.by_hand_rule(every, rng("hand rule")),
        UNGUIDED: lambda: generated(None),
        GUIDED: lambda: generated(dataset),
        "Every cell, ranked": lambda: by_predictor(every),
    }


def _curve(values: np.ndarray, budget: int) -> np.ndarray:
    return transfer.after(values, range(1, budget + 1))


def _transfer_rows(exhibit: Exhibit, dataset: str, runs: dict[str, list[np.ndarray]], best: float) -> None:
    reached = {method: np.stack([transfer.after(values) for values in lists]) for method, lists in runs.items()}
    for method, lists in runs.items():
        n = len(lists)
        for count, values in zip(transfer.COUNTS, reached[method].T, strict=True):
            exhibit.add(method, str(count), f"{dataset} accuracy", mean_ci(values), n=n, unit="%")
            exhibit.add(method, str(count), f"{dataset} regret", mean_ci(best - values), n=n, unit="%")
        until = np.array([float(transfer.trained_until(values, best)) for values in lists])
        middle = float(np.median(until))
        exhibit.add(method, dataset, "trained until the optimum", middle if np.isfinite(middle) else np.nan, n=n, unit="count")
        exhibit.add(method, dataset, "optimum reached", 100 * np.isfinite(until).mean(), n=n, unit="%")
        exhibit.add(method, dataset, "architectures listed", np.mean([len(values) for values in lists]), n=n, unit="count")
    for null in NULLS:
        for count, ours, other in zip(transfer.COUNTS, reached[GUIDED].T, reached[null].T, strict=True):
            gain = paired_difference(ours, other)
            exhibit.add(f"{GUIDED} minus {null.lower()}", str(count), f"{dataset} difference", gain, n=len(ours), unit="%")


def table2_verdict(study: Transfer) -> str:
    """What the numbers of `study` say about the paper's claim, in words."""
    frame = study.exhibit.frame()
    ours = frame[frame["origin"] == "ours"].set_index(["row", "column", "metric"])
    paper = frame[frame["origin"] == "paper"].set_index(["row", "column", "metric"])["value"]
    paragraphs = []
    for dataset, best in study.optimum.items():
        claim = int(paper["DiffusionNAG", dataset, "trained architectures"])
        hits = np.mean(transfer.trained_until(study.curves[dataset][GUIDED], best) <= claim)
        first = ours.loc[GUIDED, "1", f"{dataset} accuracy"]
        theirs = paper["DiffusionNAG", dataset, "accuracy"]
        paragraphs.append(
            f"**{dataset}: the count is {'met' if hits >= 0.5 else 'not met'}.** The paper reaches {theirs:.2f} % after "
            f"training {claim}; here guided generation finds the optimum ({best:.2f} %) by then in {hits:.0%} of "
            f"{first.n} seeds and stands at {first.value:.2f} % after one."
        )
        for null in NULLS:
            row, words = f"{GUIDED} minus {null.lower()}", {}
            for count in map(str, transfer.COUNTS):
                words.setdefault(_sign(ours.loc[row, count, f"{dataset} difference"]), []).append(count)
            said = "; ".join(f"{word} after {', '.join(counts)}" for word, counts in words.items())
            paragraphs.append(f"- Against *{null.lower()}*: {said} trained.")
    paragraphs.append("Intervals cover sampling and ties, not the training of the predictor, of which there is one.")
    return "\n\n".join(paragraphs)


def _sign(gain) -> str:
    if gain.lo == gain.hi == 0:
        return "equal"
    return "better" if gain.lo > 0 else "worse" if gain.hi < 0 else "not distinguishable"


# Samplers against the exact law --------------------------------------------------------------------------------------


class SamplerError(NamedTuple):
    """Sampler comparison: the rows, and the law that was to be sampled, float64 `(6, 5)` (edge, operation)."""

    exhibit: Exhibit
    law: np.ndarray


def figure_samplers(profile: str = "quick", seed: int = 0, *, progress: bool = True) -> SamplerError:
    """Distance of every sampler to a known law, against network calls and time.

    The law has independent edges with weights drawn once from a flat Dirichlet distribution, and its denoiser is
    exact, so what remains is the sampler's own error. The distance is the mean over edges of the total variation between the
    drawn operations and the law; an invalid draw counts as mass outside it. `column` is the number of network calls.
    Metrics: "total variation" (its row "exact draws" is the noise floor of as many independent draws), "validity" by
    threshold decoding, "time" in seconds for 10,000 draws. All start at the paper's sigma = 5 but the row `WIDE`.
    """
    n_seeds, n, steps, pc_steps = _setting(
        profile,
        quick=(4, 3000, (2, 5, 10, 20), (5, 10)),
        paper=(10, 10_000, (2, 3, 5, 10, 20, 30, 50, 100), (2, 5, 10, 20, 50, 100, 200, 500, 1000)),
    )
    exhibit = Exhibit("figure_samplers", profile, seed=seed, seeds=n_seeds)
    law = numpy_stream(0, "figure_samplers/law").dirichlet(np.ones(5), 6)
    weights = SPACE.allowed.astype(float)
    weights[1:7, 2:] = law
    denoiser = ExactDenoiser(SPACE.allowed, weights)
    jobs = [(name, name, 5.0, count) for name in samplers.SAMPLERS for count in (pc_steps if name == "pc" else steps)]
    jobs += [(WIDE, "dpmpp_2m", 80.0, count) for count in steps if count >= 5]
    with tqdm(total=n_seeds * len(jobs), desc="figure_samplers", unit="run", disable=not progress) as bar:
        for row, name, sigma_max, count in jobs:
            error, valid, seconds = np.empty((3, n_seeds))
            # the batch size is spelled because `pc` couples the draws of a batch
            options = {"sampler": name, "sigmas": geometric_sigmas(count, sigma_max=sigma_max), "batch_size": 500}
            for number in range(n_seeds):
                generator = torch_stream(100 * seed + number, f"figure_samplers/{row}/{count}")
                start = time.perf_counter()
                archs, errors = samplers.generate(SPACE, denoiser, n, generator=generator, **options)
                seconds[number] = (time.perf_counter() - start) * 10_000 / n
                error[number], valid[number] = total_variation(archs, law), 100 * (errors == "").mean()
                bar.update()
            calls = str(samplers.network_calls(name, count))
            exhibit.add(row, calls, "total variation", mean_ci(error), n=n_seeds, unit="probability")
            exhibit.add(row, calls, "validity", mean_ci(valid), n=n_seeds, unit="%")
            exhibit.add(row, calls, "time", mean_ci(seconds), n=n_seeds, unit="s")
    floor = [
        total_variation(SPACE.decode(denoiser.sample(n, torch_stream(100 * seed + number, "figure_samplers/floor")))[0], law)
        for number in range(max(n_seeds, 20))
    ]
    spread = Interval(float(np.mean(floor)), *map(float, np.quantile(floor, [0.025, 0.975])))
    exhibit.add("exact draws", "0", "total variation", spread, n=len(floor), unit="probability")
    return SamplerError(exhibit, law)


def samplers_verdict(study: SamplerError) -> str:
    """What the numbers of `study` say, in words: who reaches the noise floor, what is left, and what validity shows."""
    frame = study.exhibit.frame().assign(calls=lambda rows: rows["column"].astype(int)).sort_values("calls")
    error, validity = (frame[frame["metric"] == metric] for metric in ("total variation", "validity"))
    floor = error[error["row"] == "exact draws"].iloc[0]
    sentences = [f"As many exact draws lie {floor.value:.4f} from the law ({floor.lo:.4f} to {floor.hi:.4f}): the noise floor."]
    reached, left = [], []
    for row in error["row"].unique():
        part = error[error["row"] == row]
        above = part["lo"].to_numpy() > floor.hi
        if row != "exact draws":
            stays = part["calls"].to_numpy()[np.flatnonzero(above)[-1] + 1 :] if above.any() else part["calls"].to_numpy()
            last = part.iloc[-1]
            reached += [f"{row} ({stays[0]} calls)"] if len(stays) else []
            left += [] if len(stays) else [f"{row} ({last.value:.4f} after {last.calls} calls)"]
    sentences.append(f"Not distinguishable from it, from some number of calls on: {', '.join(reached) or 'no sampler'}.")
    sentences.append(f"Still above it at the most calls tried here: {', '.join(left) or 'no sampler'}.")
    ends = {row: error[error["row"] == row].iloc[-1] for row in ("dpmpp_2m", WIDE)}
    sentences.append(
        f"`dpmpp_2m` ends at {ends['dpmpp_2m'].value:.4f} when it starts at the paper's σ = 5 and at "
        f"{ends[WIDE].value:.4f} from σ = 80 with the same number of calls."
    )
    worst = validity.loc[validity["value"].idxmin()]
    valid = error.merge(validity[validity["value"] > 99.5], on=["row", "column"])["value_x"].max()
    sentences.append(
        f"The lowest validity is {worst.value:.2f} % ({worst.row}, {worst.calls} calls), while samplers with more than 99.5 % "
        f"valid draws lie up to {valid:.2f} from the law: validity says little about whether the law is right."
    )
    return " ".join(sentences)


def total_variation(archs: np.ndarray, law: np.ndarray) -> float:
    """Mean over slots of the total variation between the draws and `law` `(n_slots, n_ops)`; rows of -1 are off the law."""
    drawn = (np.asarray(archs)[:, :, None] == np.arange(law.shape[1])).mean(axis=0)
    missing = 1 - drawn.sum(axis=1)
    return float((np.abs(drawn - law).sum(axis=1) + missing).mean() / 2)


def _setting(profile: str, **by_profile: tuple) -> tuple:
    if profile not in by_profile:
        raise unknown("profile", profile, by_profile)
    return by_profile[profile]
