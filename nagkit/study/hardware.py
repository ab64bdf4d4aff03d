"""Searches for accuracy and a cost at an equal number of queries, as tasks: one search with one seed is one job.

A query measures both of one architecture. Predictors know only what their own search has measured.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from nagkit import objectives, presets
from nagkit.benchmarks.table import open_benchmark
from nagkit.diffusion import samplers
from nagkit.diffusion.tilted import tilted_law
from nagkit.guidance import guide
from nagkit.predictors import objective
from nagkit.rng import numpy_stream, torch_stream
from nagkit.sampling import load_prior
from nagkit.search import fronts
from nagkit.spaces.base import SearchSpace, get_space, ranked
from nagkit.study.exhibit import Run
from nagkit.study.jobs import Task

BASELINES = {"random-search": fronts.random_search, "evolution": fronts.evolution, "nsga2": fronts.nsga2}
PROPOSERS = ("guided", "tilted", "every-cell")
"""Where a search with predictors takes its candidates from: guidance at x̂₀, the tilted denoiser, or the whole space, ranked."""


def by_method(method: str, space: str, dataset: str, budget: int, *, rounds: int, limit: float | None = None) -> Task:
    """`budget` queries by one of `BASELINES` or `PROPOSERS`, the latter's second half in `rounds`.

    With `limit`, a quantile of the cost over the space, architectures beyond it are worth nothing.
    """
    scale = presets.strength(space, "exact", "objective")
    arguments = {"space": space, "dataset": dataset, "method": method, "budget": budget, "rounds": rounds, "scale": scale}
    return Task(search, arguments | {"limit": limit}, open_benchmark(space).files)


@cache
def plane(space: str, dataset: str, cost: str) -> np.ndarray:
    """Test accuracy and `cost` of every architecture, float64 `(size, 2)`."""
    bench = open_benchmark(space)
    return np.stack([bench.column(dataset, split="test", metric=metric) for metric in ("accuracy", cost)], axis=1)


def bound(space: str, dataset: str, cost: str, limit: float) -> float:
    """The cost that the share `limit` of the space keeps below."""
    return float(np.quantile(plane(space, dataset, cost)[:, 1], limit))


# Job ------------------------------------------------------------------------------------------------------------------


def search(
    space: str, dataset: str, cost: str, method: str, seed: int, budget: int, rounds: int, scale: float,
    limit: float | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """A job: `archs` int8 `(budget, n_slots)` in the order of measuring.

    With a limit, baselines see 10 standard deviations of accuracy less for each of cost beyond it, which is also the slope of
    the guides.
    """
    home, points = get_space(space), plane(space, dataset, cost)
    highest = None if limit is None else bound(space, dataset, cost, limit)
    if method not in BASELINES:
        return {"archs": _with_predictors(home, points, method, budget, rounds, scale, highest, seed)}
    standard = (points - points.mean(axis=0)) / points.std(axis=0)
    if highest is not None:
        beyond = standard[:, 1] - (highest - points[:, 1].mean()) / points[:, 1].std()
        standard[:, 0] -= objectives.PENALTY * np.maximum(beyond, 0)
    alone = {"weights": (0.0,)} if highest is not None and method == "evolution" else {}
    rng = numpy_stream(seed, f"hardware/{cost}/{method}/{highest}")
    return {"archs": BASELINES[method](home, lambda archs: standard[home.code(archs)], budget, rng, **alone)}


@cache
def _accuracy(space: SearchSpace, archs: bytes, values: bytes, seed: int) -> objective.Fitted:
    """The predictor fitted to accuracies; searches that begin alike share it."""
    measured = np.frombuffer(archs, np.int8).reshape(-1, space.n_slots)
    return objective.fit(measured, np.frombuffer(values), space=space, model="propagation", seed=seed)


def _with_predictors(
    space: SearchSpace, points: np.ndarray, method: str, budget: int, rounds: int, scale: float, limit: float | None, seed: int
) -> np.ndarray:
    """Half of the budget at random; then, in rounds, the best predicted of what `method` proposes for each aim."""
    archs = space.random(budget, numpy_stream(seed, "hardware/first"))
    archs = archs[np.sort(np.unique(space.code(archs), return_index=True)[1])][: budget // 2]
    for number in range(rounds):
        value, cost = points[space.code(archs)].T
        accuracy = _accuracy(space, archs.tobytes(), value.tobytes(), seed)
        fitted = objective.fit(archs, cost, space=space, model="linear", seed=seed)
        target = objectives.Objective("cost", "", True, fitted, archs, cost)
        weights = fronts.WEIGHTS if limit is None else (1.0,)
        until = budget // 2 + (budget - budget // 2) * (number + 1) // rounds
        for i, weight in enumerate(weights):
            aim, _ = objectives.aim(target, accuracy=accuracy.predictor, weight=weight, limit=limit)
            want = len(archs) + (until - len(archs)) // (len(weights) - i)
            generator = torch_stream(seed, f"hardware/{method}/{number}/{weight}")
            archs = _extend(space, archs, aim, method, want, scale, generator)
    return archs


def _extend(
    space: SearchSpace, archs: np.ndarray, aim: Callable, method: str, want: int, scale: float, generator: torch.Generator
) -> np.ndarray:
    """`archs` and the best predicted new proposals, up to `want` rows."""
    every = space.all()
    scores = aim(space.encode(every), 0.0).double().numpy()
    laws = {"guided": lambda: guide(load_prior(space, "exact"), aim, scale), "tilted": lambda: tilted_law(space, scores, scale)}
    for _ in range(5):  # more draws when a pool holds too few new ones
        candidates = every
        if method in laws:
            drawn, errors = samplers.generate(space, laws[method](), 300, generator=generator)
            candidates = drawn[errors == ""]
        archs = _best_new(space, archs, candidates, scores, want)
        if len(archs) >= want:
            return archs
    return _best_new(space, archs, every, scores, want)


def _best_new(space: SearchSpace, archs: np.ndarray, candidates: np.ndarray, scores: np.ndarray, want: int) -> np.ndarray:
    """`archs` and the best of the candidates that are not among them, up to `want` rows."""
    best = ranked(candidates, scores[space.code(candidates)])
    new = best[~np.isin(space.code(best), space.code(archs))]
    return np.concatenate([archs, new[: want - len(archs)]])


# Measures -------------------------------------------------------------------------------------------------------------


def measured(space: str, dataset: str) -> Callable[[Run], np.ndarray]:
    """(value, cost) of what a run measured, in its order, float64 `(budget, 2)`."""
    return lambda run: plane(space, dataset, run.column)[get_space(space).code(run.valid)]


def hypervolume(space: str, dataset: str) -> Callable[[Run], float]:
    """A measure: the front's hypervolume in percent of the whole space's.

    Its reference point is the worst cost and the lower quartile of the value.
    """

    def measure(run: Run) -> float:
        points = plane(space, dataset, run.column)
        reference = (float(np.quantile(points[:, 0], 0.25)), float(points[:, 1].max()))
        found = fronts.hypervolume(measured(space, dataset)(run), reference)
        return 100 * found / fronts.hypervolume(points, reference)

    return measure


def best_under(space: str, dataset: str, limit: float) -> Callable[[Run], float]:
    """A measure: the best value among what keeps the limit; 0 where nothing does."""

    def measure(run: Run) -> float:
        value, cost = measured(space, dataset)(run).T
        return float(value[cost <= bound(space, dataset, run.column, limit)].max(initial=0.0))

    return measure


def kept_limit(space: str, dataset: str, limit: float) -> Callable[[Run], float]:
    """A measure: percent of the later half of the queries that kept the limit."""

    def measure(run: Run) -> float:
        cost = measured(space, dataset)(run)[:, 1]
        return 100 * float((cost[len(cost) // 2 :] <= bound(space, dataset, run.column, limit)).mean())

    return measure
