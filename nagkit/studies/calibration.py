"""The ImageNet oracles of the MobileNetV3 space against each other and against measurements."""

from typing import NamedTuple

import numpy as np

from nagkit.benchmarks import ofa
from nagkit.benchmarks.table import open_benchmark
from nagkit.data import registry
from nagkit.report.exhibits import Exhibit, by_profile
from nagkit.report.statistics import bootstrap_ci, kendall_ci
from nagkit.rng import numpy_stream

PUBLISHED, MEASURED = "published predictor", "surrogate of the measurements"
RANDOM, CLIMBED_P, CLIMBED_M = "random", f"climbed on the {PUBLISHED}", f"climbed on the {MEASURED}"


class Calibration(NamedTuple):
    """The rows, and what the figure shows."""

    exhibit: Exhibit
    networks: dict[str, tuple[np.ndarray, np.ndarray]]
    """Per pool, accuracies by the published predictor (or its surrogate) and by the surrogate of the measurements, `(n,)`."""
    levels: dict[int, tuple[float, float]]
    """Per resolution, the mean over random networks of the predictor, and of the measurements there (NaN: none here)."""
    oracles: tuple[str, str]
    """One line about each oracle."""


def ofa_calibration(profile: str = "quick", seed: int = 0, *, progress: bool = True) -> Calibration:
    """How far the two fitted oracles agree, with each other everywhere and with measurements where those are at hand.

    Metrics. "Kendall τ between the oracles" and "mean" of each on three pools: draws of the Once-for-All law, and the ends of
    evolutions on either oracle. "Kendall τ with measurements" and "mean minus measured": the published predictor at
    every measured resolution, and the surrogate of the measurements where a whole search was left out of its fit;
    `column` is the search or the resolution. "Kendall τ with the published predictor" and "RMSE to the published
    predictor": the embedded copy, from its data card. Intervals are bootstraps over networks; n counts networks.
    """
    n, generations = by_profile(profile, quick=(500, 25), paper=(5_000, 100))
    predictor, process = open_benchmark("mbv3"), open_benchmark("mbv3", "measured-surrogate")
    real = all(registry.local(entry).is_file() for entry in registry.select(["mbv3"]))
    files = {*ofa.data(predictor.oracle), *ofa.data(process.oracle), *(ofa.data("measured") if real else ())}
    exhibit = Exhibit("ofa_calibration", profile, seed=seed, oracle=predictor.oracle, data=sorted(files))
    both = {PUBLISHED: predictor, MEASURED: process}
    pools = {RANDOM: ofa.SPACE.random(n, numpy_stream(seed, "ofa_calibration"))}
    for name, bench in both.items():
        pools[f"climbed on the {name}"] = _climb(bench, n // 5, generations, numpy_stream(seed, f"ofa_calibration/{name}"))
    networks = {}
    for pool, archs in pools.items():
        values = networks[pool] = tuple(bench.query(archs, split="test") for bench in both.values())
        rng = numpy_stream(seed, f"ofa_calibration/bootstrap/{pool}")
        agreement, oracles = kendall_ci(*values, rng), ", ".join(bench.oracle for bench in both.values())
        exhibit.add("both", pool, "Kendall τ between the oracles", agreement, n=len(archs), unit="τ", oracle=oracles)
        for name, found in zip(both, values, strict=True):
            where = {"n": len(archs), "unit": "%", "oracle": both[name].oracle}
            exhibit.add(name, pool, "mean", bootstrap_ci(found, rng), **where)
            exhibit.add(name, pool, "largest", found.max(), **where)
    levels = _levels(exhibit, predictor.oracle, pools[RANDOM][:500], real)
    _against_measurements(exhibit, seed, real)
    for size, figures in ofa.card("ofa-surrogate")["resolutions"].items():
        for pool, found in figures.items():
            row, where = f"embedded copy, {pool}", {"n": found["n"], "oracle": "ofa-surrogate"}
            if "kendall_tau" in found:
                tau = found["kendall_tau"]
                exhibit.add(row, f"r = {size}", "Kendall τ with the published predictor", tau, unit="τ", **where)
            exhibit.add(row, f"r = {size}", "RMSE to the published predictor", found["rmse"], unit="%", **where)
    return Calibration(exhibit, networks, levels, tuple(bench.describe() for bench in both.values()))


def _climb(bench: ofa.ImageNet, n: int, generations: int, rng: np.random.Generator) -> np.ndarray:
    """The population that an evolution on an oracle ends with, distinct networks `(n, 20)`."""
    population = ofa.SPACE.random(n, rng)
    for _ in range(generations):
        both = np.unique(np.concatenate([population, ofa.SPACE.mutate(population, rng)]), axis=0)
        population = both[np.argsort(-bench.query(both, split="test"), kind="stable")[:n]]
    return population


def _levels(exhibit: Exhibit, oracle: str, archs: np.ndarray, real: bool) -> dict[int, tuple[float, float]]:
    levels = {}
    for size in ofa.RESOLUTIONS[oracle]:
        mean = float(ofa.open_imagenet(oracle, size).query(archs, split="test").mean())
        measured = float(ofa.measurements(size)[1].mean()) if real and size in ofa.RESOLUTIONS["measured"] else np.nan
        exhibit.add(PUBLISHED, f"r = {size}", "mean over random networks", mean, n=len(archs), unit="%")
        levels[size] = mean, measured
    return levels


def _against_measurements(exhibit: Exhibit, seed: int, real: bool) -> None:
    figures = {name: found for name, found in ofa.card("measured-surrogate")["leave_search_out"].items() if name != "what"}
    for name, found in figures.items():
        where = {"n": found["n"], "oracle": "measured-surrogate"}
        exhibit.add(MEASURED, _search(name), "RMSE to measurements", found["rmse"], unit="%", **where)
        if not real:
            exhibit.add(MEASURED, _search(name), "Kendall τ with measurements", found["kendall_tau"], unit="τ", **where)
    if not real:
        return
    archs, accuracy = ofa.measurements()
    left_out = ofa.left_out()[1]
    predicted = ofa.open_imagenet("ofa").query(archs, split="test")
    rng = numpy_stream(seed, "ofa_calibration/bootstrap/measured")
    searches = [name for name in figures if name != "all"]
    for name, values in zip(searches, left_out, strict=True):
        took = ~np.isnan(values)
        for row, found in ((PUBLISHED, predicted), (MEASURED, values)):
            _compare(exhibit, row, _search(name), found[took], accuracy[took], rng)
    took = ~np.isnan(left_out)
    _compare(exhibit, PUBLISHED, _search("all"), predicted, accuracy, rng)
    _compare(exhibit, MEASURED, _search("all"), left_out[took], np.broadcast_to(accuracy, took.shape)[took], rng)
    for size in ofa.RESOLUTIONS["measured"][:-1]:
        archs, accuracy = ofa.measurements(size)
        _compare(exhibit, PUBLISHED, f"r = {size}", ofa.open_imagenet("ofa", size).query(archs, split="test"), accuracy, rng)


def _compare(exhibit: Exhibit, row: str, column: str, found: np.ndarray, accuracy: np.ndarray, rng) -> None:
    where = {"n": len(found), "oracle": "ofa" if row == PUBLISHED else "measured-surrogate"}
    exhibit.add(row, column, "Kendall τ with measurements", kendall_ci(found, accuracy, rng), unit="τ", **where)
    exhibit.add(row, column, "mean minus measured", bootstrap_ci(found - accuracy, rng), unit="%", **where)


def _search(key: str) -> str:
    return "r = 224" if key == "all" else f"r = 224, {key.removeprefix('ofa-measured-')}"


def verdict(study: Calibration) -> str:
    """What the numbers of `study` say about each oracle, in words."""
    frame = study.exhibit.frame().set_index(["row", "column", "metric"])

    def at(row: str, column: str, metric: str) -> float:
        return frame.loc[(row, column, metric), "value"]

    tau = "Kendall τ with measurements"
    high = ofa.card("measured-surrogate")["measured_range"][1]
    rmse, end = at(MEASURED, "r = 224", "RMSE to measurements"), at(MEASURED, CLIMBED_M, "largest")
    words = [
        f"**Surrogate of the measurements.** With a whole search left out it ranks at τ = {at(MEASURED, 'r = 224', tau):.3f}, "
        f"with a root mean square error of {rmse:.3f} points. Climbing on it ends at {end:.2f} %; the best measurement is "
        f"{high:.2f} %, and what lies between is extrapolation, flagged as such."
    ]
    gap = at(PUBLISHED, RANDOM, "mean") - at(MEASURED, RANDOM, "mean")
    random, top, own = (at(MEASURED, pool, "mean") for pool in (RANDOM, CLIMBED_P, CLIMBED_M))
    alike, alike_top = (at("both", pool, "Kendall τ between the oracles") for pool in (RANDOM, CLIMBED_P))
    words.append(
        f"**Published predictor.** On random networks it lies {gap:.1f} points above the surrogate of the measurements. "
        f"Climbing on it ends at {at(PUBLISHED, CLIMBED_P, 'largest'):.2f} %. To the other oracle those networks are worth "
        f"{top:.2f} % on average, random ones {random:.2f} %, and those where an evolution on itself ends {own:.2f} %. The two "
        f"rank random networks at τ = {alike:.2f} of each other, and those at the top of the predictor at τ = {alike_top:.2f}."
    )
    if (PUBLISHED, "r = 224", tau) in frame.index:
        words.append(f"Against the measurements themselves the predictor ranks at τ = {at(PUBLISHED, 'r = 224', tau):.3f}.")
    means = {size: round(mean, 2) for size, (mean, _) in study.levels.items()}
    odd = [size for size, after in zip(list(means), list(means)[1:], strict=False) if means[size] > means[after]]
    if odd:
        after = min(size for size in means if size > max(odd))
        words.append(
            f"**Resolution.** From r = {max(odd)} to {after} its mean falls from {means[max(odd)]} to {means[after]} %, "
            f"although larger images help a network: its inputs for resolutions up to {max(odd)} were evidently not trained."
        )
        above = {size: (PUBLISHED, f"r = {size}", "mean minus measured") for size in means}
        known = [f"{frame.loc[key, 'value']:.1f} at {size}" for size, key in above.items() if key in frame.index]
        words[-1] += f" Points above the measurements at the same resolution: {', '.join(known)}." if known else ""
    return "\n\n".join(words)
