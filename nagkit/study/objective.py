"""Retargeting as tasks: predictors of objectives fitted to measured architectures, and the pools that they guide.

All objectives of a seed are measured on the same random architectures, in one job, so its pools are paired by seed.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import spearmanr

from nagkit import presets
from nagkit.benchmarks.table import open_benchmark
from nagkit.diffusion import samplers
from nagkit.diffusion.tilted import tilted_law
from nagkit.guidance import guide
from nagkit.predictors import objective
from nagkit.rng import numpy_stream, torch_stream
from nagkit.sampling import load_prior
from nagkit.spaces.base import get_space
from nagkit.study.exhibit import Run
from nagkit.study.jobs import Task


def guided(space: str, dataset: str, objectives: Sequence[str], n: int, *, pairs: int) -> Task:
    """`n` draws for each of the `objectives`, metrics of the benchmark, guided by predictors fitted to `pairs` measurements."""
    scale = presets.strength(space, "exact", "objective")
    arguments = {"space": space, "dataset": dataset, "objectives": list(objectives), "n": n, "pairs": pairs, "scale": scale}
    return Task(fit_and_draw, arguments, open_benchmark(space).files)


def fit_and_draw(
    space: str, dataset: str, objectives: Sequence[str], n: int, pairs: int, scale: float, seed: int
) -> dict[str, np.ndarray]:
    """A job: pools by objective, int8 `(n, n_slots)`, -1 in invalid rows.

    "NAME" is guided at x̂₀, "NAME tilted" drawn by the tilted denoiser of the same scores, and "NAME spearman" is the rank
    correlation of these scores with the benchmark over the (listed) space.
    """
    home, bench = get_space(space), open_benchmark(space)
    every, prior, made = home.all(), load_prior(space, "exact"), {}
    truth = np.stack([bench.column(dataset, split="test", metric=name) for name in objectives], axis=1)
    rows = numpy_stream(seed, "robustness/pairs").permutation(home.size)[:pairs]
    fitted = objective.fit_many(every[rows], truth[rows], space=space, seed=seed)
    for name, one, column in zip(objectives, fitted, truth.T, strict=True):
        scores = one.predictor.rank(every)
        laws = {name: guide(prior, one.predictor, scale), f"{name} tilted": tilted_law(home, scores, scale)}
        for kind, law in laws.items():
            made[kind] = samplers.generate(home, law, n, generator=torch_stream(seed, f"robustness/{name}/{pairs}"))[0]
        made[f"{name} spearman"] = np.array([spearmanr(scores, column).statistic])
    return made


# Measures -------------------------------------------------------------------------------------------------------------


def pool(run: Run, judge: str, n: int | None = None) -> np.ndarray:
    """The valid ones of the first `n` draws of a row, called like its pool; "own-guide" is that of the judge itself."""
    name = {"own-guide": judge, "own-guide tilted": f"{judge} tilted"}.get(run.row, run.row)
    archs = run.arrays["archs" if "archs" in run.arrays else name][:n]
    return archs[(archs >= 0).any(axis=1)]


def judged(benchmark: object, dataset: str, statistic: Callable, judge: str | None = None) -> Callable[[Run], float]:
    """A measure: `statistic` of the draws by the `judge`, a metric of the benchmark; without one by the run's column."""

    def measure(run: Run) -> float:
        by = judge or run.column
        return float(statistic(benchmark.query(pool(run, by), dataset, split="test", metric=by)))

    return measure


def judged_by_all(
    benchmark: object, dataset: str, judges: Sequence[str], statistic: Callable, n: int
) -> Callable[[Run], Mapping[str, float]]:
    """A measure: `statistic` of the first `n` draws by each of the judges, and the "mean" of these."""

    def measure(run: Run) -> Mapping[str, float]:
        found = {}
        for judge in judges:
            values = benchmark.query(pool(run, judge, n), dataset, split="test", metric=judge)
            found[judge] = float(statistic(values))
        return found | {"mean": float(np.mean(list(found.values())))}

    return measure


def own_mean(benchmark: object, dataset: str) -> Callable[[Run], float]:
    """A measure: the mean of the draws by the objective that guided them."""
    return lambda run: judged(benchmark, dataset, np.mean, run.row.removesuffix(" tilted"))(run)


def spearman(run: Run) -> float:
    """How well the fitted predictor of the row's objective ranks the whole space."""
    return run.arrays[f"{run.row.removesuffix(' tilted')} spearman"].item()


def spearmans(run: Run) -> Mapping[str, float]:
    """That of all objectives."""
    return {key.removesuffix(" spearman"): value.item() for key, value in run.arrays.items() if key.endswith(" spearman")}


def distinct(run: Run) -> float:
    """Number of different architectures among the valid draws of the row."""
    return float(len(np.unique(pool(run, run.row), axis=0)))


def shares(archs: np.ndarray, operations: Sequence[str]) -> np.ndarray:
    """Percent of each operation over the slots of architectures whose slots are operations, float64 `(n_ops,)`."""
    return 100 * np.bincount(archs.ravel(), minlength=len(operations)) / max(1, archs.size)


def operation_shares(operations: Sequence[str]) -> Callable[[Run], Mapping[str, float]]:
    """A measure: percent of each operation in the row's pool."""
    return lambda run: dict(zip(operations, shares(pool(run, run.row), operations), strict=True))


def distance_to(other: str, operations: Sequence[str]) -> Callable[[Run], Mapping[str, float]]:
    """A measure: total variation between the operations of the row's pool and of another one of its seed, percentage points."""

    def measure(run: Run) -> Mapping[str, float]:
        ours, theirs = (shares(pool(run._replace(row=name), name), operations) for name in (run.row, other))
        return {other: float(np.abs(ours - theirs).sum() / 2)}

    return measure
