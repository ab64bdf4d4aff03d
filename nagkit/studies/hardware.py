"""Accuracy against latency and energy on real devices (HW-NAS-Bench): guided generation beside random search, evolution and
NSGA-II at equal queries (not in the paper).

A query measures the CIFAR-10 test accuracy and the cost of one cell. Predictors know only what their own search has measured.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from nagkit import cluster, objectives, paths, presets
from nagkit.benchmarks.table import open_benchmark
from nagkit.data.upstream import table_path
from nagkit.diffusion import samplers
from nagkit.diffusion.tilted import tilted_law
from nagkit.guidance import guide
from nagkit.predictors import objective
from nagkit.report.exhibits import Exhibit, by_profile
from nagkit.report.statistics import mean_ci, paired_difference
from nagkit.rng import numpy_stream, torch_stream
from nagkit.search import fronts
from nagkit.spaces import nb201
from nagkit.spaces.base import ranked
from nagkit.studies import pools

SPACE = nb201.Space()
COSTS = {
    "latency_pixel3": "Pixel 3 latency (ms)",
    "latency_raspi4": "Raspberry Pi 4 latency (ms)",
    "energy_eyeriss": "Eyeriss energy (mJ)",
}
EVOLUTION = "Evolution"
BASELINES = {"Random search": fronts.random_search, EVOLUTION: fronts.evolution, "NSGA-II": fronts.nsga2}
GUIDED, TILTED, RANKED = "Guided at x̂₀", "Tilted denoiser", "Every cell, ranked"
PROPOSERS = (GUIDED, TILTED, RANKED)
"""Where a search with predictors takes its candidates from; the last needs a space that can be listed."""

LIMIT = 0.25
"""The hard limit is this quantile of the cost over the space."""


class Hardware(NamedTuple):
    """The rows, and what the figure shows."""

    exhibit: Exhibit
    clouds: dict[str, dict[str, np.ndarray]]
    """Measured (cost, accuracy) by cost and method, of the first seed."""
    found: dict[str, dict[str, list[np.ndarray]]]
    """(cost, accuracy) of the fronts, by cost, method and seed."""
    best: dict[str, np.ndarray]
    """(cost, accuracy) of the front of the whole space."""
    oracle: str


def figures(cost: str) -> np.ndarray:
    """CIFAR-10 test accuracy and `cost` of every cell, float64 `(15625, 2)`."""
    bench = open_benchmark("nb201")
    return np.stack([bench.column("cifar10", split="test"), bench.column("cifar10", split="test", metric=cost)], axis=1)


def search(
    cost: str, method: str, seed: int, budget: int, rounds: int, scale: float, limit: float | None = None
) -> dict[str, np.ndarray]:
    """One search, a job for `map_jobs`: `archs` int8 `(budget, 6)` in the order of measuring.

    With `limit`, in the unit of the cost, the cells beyond it are worth nothing: baselines see 10 standard deviations of
    accuracy less for each of cost beyond it, which is also the slope of the guides.
    """
    points = figures(cost)
    standard = (points - points.mean(axis=0)) / points.std(axis=0)
    rng = numpy_stream(seed, f"hardware/{cost}/{method}/{limit}")
    if limit is not None:
        bound = (limit - points[:, 1].mean()) / points[:, 1].std()
        standard[:, 0] -= objectives.PENALTY * np.maximum(standard[:, 1] - bound, 0)
    if method in BASELINES:
        measure = lambda archs: standard[SPACE.code(archs)]  # noqa: E731
        alone = {"weights": (0.0,)} if limit is not None and method == EVOLUTION else {}
        return {"archs": BASELINES[method](SPACE, measure, budget, rng, **alone)}
    return {"archs": _with_predictors(points, method, budget, rounds, scale, limit, seed)}


@cache
def _accuracy(archs: bytes, seed: int) -> objective.Fitted:
    """The predictor fitted to the accuracies of the cells `archs`; searches that begin alike share it."""
    cells = np.frombuffer(archs, np.int8).reshape(-1, SPACE.n_slots)
    return objective.fit(cells, figures(next(iter(COSTS)))[SPACE.code(cells), 0], model="propagation", seed=seed)


def _with_predictors(
    points: np.ndarray, method: str, budget: int, rounds: int, scale: float, limit: float | None, seed: int
) -> np.ndarray:
    """Half of the budget at random; then, in rounds, the best predicted of what `method` proposes for each aim."""
    archs = SPACE.random(budget, numpy_stream(seed, "hardware/first"))
    archs = archs[np.sort(np.unique(SPACE.code(archs), return_index=True)[1])][: budget // 2]
    for number in range(rounds):
        measured = points[SPACE.code(archs)]
        accuracy = _accuracy(archs.tobytes(), seed)
        target = objectives.Objective(
            "cost", "", True, objective.fit(archs, measured[:, 1], model="linear", seed=seed), archs, measured[:, 1]
        )
        weights = fronts.WEIGHTS if limit is None else (1.0,)
        until = budget // 2 + (budget - budget // 2) * (number + 1) // rounds
        for i, weight in enumerate(weights):
            aim, _ = objectives.aim(target, accuracy=accuracy.predictor, weight=weight, limit=limit)
            want = len(archs) + (until - len(archs)) // (len(weights) - i)
            archs = _extend(archs, aim, method, want, scale, torch_stream(seed, f"hardware/{method}/{number}/{weight}"))
    return archs


def _extend(archs: np.ndarray, aim: Callable, method: str, want: int, scale: float, generator) -> np.ndarray:
    """`archs` and the best predicted new proposals, up to `want` rows."""
    every = SPACE.all()
    scores = aim(SPACE.encode(every), 0.0).double().numpy()
    seen = set(SPACE.code(archs).tolist())
    for _ in range(5):  # more draws when a pool holds too few new cells
        if method == RANKED:
            candidates = every
        else:
            law = tilted_law(SPACE, scores, scale) if method == TILTED else guide(presets.prior("nb201", "exact"), aim, scale)
            drawn, errors = samplers.generate(SPACE, law, 300, generator=generator)
            candidates = drawn[errors == ""]
        best = ranked(candidates, scores[SPACE.code(candidates)])
        new = [row for row in best if int(SPACE.code(row[None])[0]) not in seen][: want - len(archs)]
        if new:
            archs = np.concatenate([archs, np.stack(new)])
            seen |= set(SPACE.code(np.stack(new)).tolist())
        if len(archs) >= want:
            return archs
    rest = every[~np.isin(np.arange(SPACE.size), list(seen))]
    return np.concatenate([archs, ranked(rest, scores[SPACE.code(rest)])[: want - len(archs)]])


def hardware(profile: str = "quick", seed: int = 0, *, n_workers: int = 1, progress: bool = True) -> Hardware:
    """Fronts of accuracy and cost after an equal number of queries, and the best cell under a hard limit.

    Metrics (column: cost): "hypervolume" in percent of that of the whole space's front, its reference point the worst cost
    and the lower quartile of accuracy; "queries" of the budget; "best under the limit", "second half
    under the limit"; and the differences of guidance at x̂₀ to the other methods, paired by seed.
    """
    options = {"n_workers": n_workers, "progress": progress}
    n_seeds, budget, costs, rounds = by_profile(profile, quick=(2, 40, tuple(COSTS)[:1], 1), paper=(12, 200, tuple(COSTS), 2))
    bench = open_benchmark("nb201")
    source = table_path() if bench.oracle == "table" else paths.DATA / "surrogates" / "nb201.safetensors"
    files = (source, paths.DATA / "presets.yaml")
    exhibit = Exhibit("hardware", profile, seed=seed, seeds=n_seeds, oracle=bench.oracle, data=files)
    seeds, methods = [1000 * seed + number for number in range(n_seeds)], (*BASELINES, *PROPOSERS)
    points = {cost: figures(cost) for cost in costs}
    limits = {cost: float(np.quantile(points[cost][:, 1], LIMIT)) for cost in costs}
    scale = presets.load()["nb201"]["scale"]["objective"]["exact"]
    common = {"budget": budget, "rounds": rounds, "scale": scale}
    jobs = [
        {"cost": cost, "method": method, "seed": number, "limit": limit} | common
        for cost in costs
        for limit in (None, limits[cost])
        for method in methods
        for number in seeds
    ]
    made = iter(cluster.map_jobs(search, jobs, data=files[:1], **options))
    study = Hardware(exhibit, {}, {}, {}, bench.describe())
    for cost in costs:
        value, price = points[cost].T
        label, limit = COSTS[cost], limits[cost]
        whole = points[cost][fronts.front(points[cost])]
        reference = (float(np.quantile(value, 0.25)), float(price.max()))
        study.best[cost] = whole[:, ::-1]
        volumes, bests = {}, {}
        for method in methods:
            rows = [points[cost][SPACE.code(next(made)["archs"])] for _ in seeds]
            volumes[method] = np.array([100 * fronts.hypervolume(one, reference) for one in rows])
            volumes[method] /= fronts.hypervolume(whole, reference)
            study.clouds.setdefault(cost, {})[method] = rows[0][:, ::-1]
            study.found.setdefault(cost, {})[method] = [one[fronts.front(one)][:, ::-1] for one in rows]
            exhibit.add(method, label, "hypervolume", mean_ci(volumes[method]), n=n_seeds, unit="%")
        for method in methods:
            rows = [points[cost][SPACE.code(next(made)["archs"])] for _ in seeds]
            bests[method] = np.array([max(one[one[:, 1] <= limit, 0], default=0.0) for one in rows])
            under = np.array([100 * (one[budget // 2 :, 1] <= limit).mean() for one in rows])
            exhibit.add(method, label, "best under the limit", mean_ci(bests[method]), n=n_seeds, unit="%")
            exhibit.add(method, label, "second half under the limit", mean_ci(under), n=n_seeds, unit="%")
        top = value[price <= limit].max()
        exhibit.add("Best cell of all", label, "best under the limit", top, n=SPACE.size, unit="%")
        for other in methods:
            if other != GUIDED:
                row = f"{GUIDED}, minus {pools.lower(other)}"
                for metric, found in (("hypervolume", volumes), ("best under the limit", bests)):
                    gap = paired_difference(found[GUIDED], found[other])
                    exhibit.add(row, label, f"difference of {metric}", gap, n=n_seeds, unit="%")
        exhibit.add("limit", label, "limit", limit, n=SPACE.size, unit=label.split("(")[1][:-1])
    exhibit.add("budget", "all", "queries", budget, n=1, unit="count")
    return study


def verdict(study: Hardware) -> str:
    """Where guidance finds better fronts than the other methods, in words."""
    rows = study.exhibit.frame().set_index(["row", "column", "metric"])
    paragraphs = []
    for metric in ("hypervolume", "best under the limit"):
        lines = []
        for other in (*BASELINES, TILTED, RANKED):
            row = f"{GUIDED}, minus {pools.lower(other)}"
            gaps = [(COSTS[cost], rows.loc[row, COSTS[cost], f"difference of {metric}"]) for cost in study.best]
            words = "; ".join(f"{label} {pools.spelled(gap)} ({pools.sign(gap)})" for label, gap in gaps)
            lines.append(f"- minus *{pools.lower(other)}*: {words}")
        unit = "percent of the whole space's" if metric == "hypervolume" else "points of test accuracy"
        queries = rows.loc["budget", "all", "queries"]["value"]
        paragraphs.append(
            f"**{metric.capitalize()}** after {queries:.0f} queries, guidance at x̂₀ ({unit}):\n\n" + "\n".join(lines)
        )
    return "\n\n".join(paragraphs)
