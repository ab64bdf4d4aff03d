"""How far the accuracies that networks inherit from the supernet can be trusted: ranking, noise and level of measurements."""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from nagkit.benchmarks import measured, supernet, validity
from nagkit.rng import numpy_stream
from nagkit.spaces import mbv3
from nagkit.study.estimates import Interval, bootstrap_ci, kendall_ci, mean_ci
from nagkit.study.results import Results

TAU, NULLS = "τ with training alone", ("macs", "layers")
ALL, DRAWN, TUNED = "inherited-4000", "inherited-1000", "fine-tuned-4000"
CURVE = supernet.CHECKPOINT.with_suffix(".csv")
"""The committed training curve."""


def files() -> list:
    """The committed files that the numbers rest on."""
    return [supernet.CHECKPOINT, validity.FILE, validity.FIRST, CURVE]


def assess(results: Results, *, resamples: int) -> None:
    """Statistics of the committed measurements (`nagkit.benchmarks.validity.build`).

    Metrics. "τ with training alone": Kendall's τ of inherited accuracy and of two nulls with the accuracy of networks trained
    alone, bootstrapped over networks, and its differences; n counts networks. "accuracy": mean of a group of networks, and
    "standard deviation", "smallest", "largest" of these. "repeat noise": standard deviation of one network's accuracy from
    draw to draw of the images, as measured, after each draw's mean is taken off (what a ranking sees), and that of independent
    binomial counts. "within the noise": percent of the fresh networks whose two measurements differ by less than 1.96 √2
    times the repeat noise. "validation accuracy by epoch": the training curve, whose columns are epochs.
    """
    table, networks, rng = validity.table(), pairs(), numpy_stream(results.exhibit.seed, "supernet/bootstrap")
    draws = _draws(table, "validity")
    _ranking(results, "", networks, draws, rng, resamples)
    earlier = validity.table(validity.FIRST)
    _ranking(results, "first-", pairs(earlier), _draws(earlier, "validity"), rng, resamples)
    for name in ("alone", "fine-tuned", "inherited"):
        _group(results, name, "trained alone", networks[name].to_numpy(), rng)
    inherited = table[(table["kind"] == "inherited") & (table["draw"] == 0) & (table["n_images"] == measured.N_IMAGES)]
    for group in ("random", *(f"depth {depth}" for depth in mbv3.DEPTHS)):
        _group(results, "inherited", group, inherited.loc[inherited["group"] == group, "accuracy"].to_numpy(), rng)
    _noise(results, draws, _draws(table, "fresh"))
    curve = pd.read_csv(CURVE)
    for size in ("smallest", "largest"):
        for epoch, value in zip(curve["epoch"], curve[size], strict=True):
            results.add(f"{size}-network", str(epoch), "validation accuracy by epoch", value, n=1, unit="%")


def pairs(table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Of the networks trained alone: accuracies `alone`, `fine-tuned`, `inherited` (percent), `macs` in millions, `layers`."""
    table = validity.table() if table is None else table
    chosen = table[(table["group"] == "validity") & (table["n_images"] > measured.N_IMAGES)]
    found = chosen.pivot(index="arch", columns="kind", values="accuracy")
    archs = validity.SPACE.from_string(list(found.index))
    return found.assign(macs=supernet.multiply_accumulates(archs) / 1e6, layers=(archs >= 0).sum(axis=1))


def _draws(table: pd.DataFrame, group: str) -> np.ndarray:
    """Accuracies `(networks, draws)`."""
    chosen = table[(table["group"] == group) & (table["kind"] == "inherited") & (table["n_images"] == measured.N_IMAGES)]
    return chosen.pivot(index="arch", columns="draw", values="accuracy").to_numpy()


def _ranking(
    results: Results, prefix: str, networks: pd.DataFrame, draws: np.ndarray, rng: np.random.Generator, resamples: int
) -> None:
    alone, where = networks["alone"].to_numpy(), {"n": len(networks), "unit": "τ"}
    scores = {ALL: [networks["inherited"].to_numpy()], DRAWN: list(draws.T)}
    scores |= {TUNED: [networks["fine-tuned"].to_numpy()]} if "fine-tuned" in networks else {}
    if not prefix:  # an earlier supernet had other widths, and other multiply-accumulates
        scores |= {name: [networks[name].to_numpy()] for name in NULLS}
    rows = [np.arange(len(alone)), *rng.integers(0, len(alone), (resamples, len(alone)))]  # the first row is no resample
    taus = {
        name: np.array([np.mean([stats.kendalltau(values[row], alone[row]).statistic for values in found]) for row in rows])
        for name, found in scores.items()
    }
    for name, found in taus.items():
        results.add(prefix + name, "all", TAU, _percentiles(found), **where)
        for null in NULLS if name not in NULLS and not prefix else ():
            results.add(f"{name} minus {null}", "all", f"difference of {TAU}", _percentiles(found - taus[null]), **where)
    between = np.mean([kendall_ci(*draws.T[[a, b]], rng, resamples=1).mean for a, b in combinations(range(draws.shape[1]), 2)])
    results.add(prefix + DRAWN, "all", "τ between draws", between, **where)


def _percentiles(found: np.ndarray) -> Interval:
    return Interval(float(found[0]), *map(float, np.quantile(found[1:], [0.025, 0.975])))


def _group(results: Results, row: str, column: str, values: np.ndarray, rng: np.random.Generator) -> None:
    where = {"n": len(values), "unit": "%"}
    results.add(row, column, "accuracy", mean_ci(values), **where)
    results.add(row, column, "standard deviation", bootstrap_ci(values, rng, statistic=_sd), **where)
    results.add(row, column, "smallest", values.min(), **where)
    results.add(row, column, "largest", values.max(), **where)


def _sd(values: np.ndarray, axis: int) -> np.ndarray:
    return values.std(axis=axis, ddof=1)


def _noise(results: Results, draws: np.ndarray, fresh: np.ndarray) -> None:
    centred, p = draws - draws.mean(axis=0), draws.mean() / 100
    noise = {
        "as-measured": np.sqrt(draws.var(axis=1, ddof=1).mean()),
        "means-off": np.sqrt(centred.var(axis=1, ddof=1).mean() * len(draws) / (len(draws) - 1)),
        "binomial": 100 * np.sqrt(p * (1 - p) / measured.N_IMAGES),
    }
    for row, value in noise.items():
        results.add(row, "five draws", "repeat noise", value, n=len(draws), unit="%")
    gaps, where = np.abs(fresh[:, 0] - fresh[:, 1]), {"n": len(fresh), "unit": "%"}
    within = gaps < 1.96 * np.sqrt(2) * noise["as-measured"]
    results.add("fresh", "two draws", "within the noise", 100 * within.mean(), **where)
    results.add("fresh", "two draws", "largest difference", gaps.max(), **where)
