"""The fitted ImageNet oracles of a space against each other and against measurements, for `notebooks/ofa_calibration`."""

import numpy as np

from nagkit.benchmarks import ofa
from nagkit.benchmarks.table import open_benchmark
from nagkit.data import registry
from nagkit.rng import numpy_stream
from nagkit.study.estimates import bootstrap_ci, kendall_ci
from nagkit.study.results import Results

PREDICTOR, SURROGATE = "predictor", "measured"
RANDOM, CLIMBED = "random", {PREDICTOR: "climbed-predictor", SURROGATE: "climbed-measured"}


def calibrate(results: Results, *, space: str, n: int, generations: int) -> None:
    """How far the two oracles agree, with each other everywhere and with measurements where those are at hand.

    Pools (columns): `n` draws of the space's first law, and where evolutions of `generations` on either oracle end. Metrics:
    "tau between the oracles", "mean" and "largest" of each; "tau with measurements" and "mean minus measured", at every
    measured resolution for the predictor, and for the surrogate where a whole search was left out of its fit; "tau with the
    predictor" and "rmse to the predictor" of the embedded copy, from its data card. Intervals are bootstraps over networks.
    `arrays` keeps "POOL/ORACLE" accuracies, and "levels": resolution, mean of the predictor, mean measured (nan: none here).
    """
    oracles = {PREDICTOR: open_benchmark(space), SURROGATE: open_benchmark(space, "measured-surrogate")}
    seed, real = results.exhibit.seed, all(registry.local(entry).is_file() for entry in registry.select([space]))
    pools = {RANDOM: ofa.SPACE.random(n, numpy_stream(seed, "ofa_calibration"))}
    for name, bench in oracles.items():
        pools[CLIMBED[name]] = climb(bench, n // 5, generations, numpy_stream(seed, f"ofa_calibration/{name}"))
    for pool, archs in pools.items():
        values = {name: bench.query(archs, split="test") for name, bench in oracles.items()}
        results.arrays |= {f"{pool}/{name}": found.astype(np.float32) for name, found in values.items()}
        rng, both = numpy_stream(seed, f"ofa_calibration/bootstrap/{pool}"), ", ".join(one.oracle for one in oracles.values())
        tau = kendall_ci(*values.values(), rng)
        results.add("both", pool, "tau between the oracles", tau, n=len(archs), unit="τ", oracle=both)
        for name, found in values.items():
            where = {"n": len(archs), "unit": "%", "oracle": oracles[name].oracle}
            results.add(name, pool, "mean", bootstrap_ci(found, rng), **where)
            results.add(name, pool, "largest", found.max(), **where)
    results.arrays["levels"] = _levels(results, oracles[PREDICTOR].oracle, pools[RANDOM][:500], real)
    _against_measurements(results, seed, real)
    for size, figures in ofa.card("ofa-surrogate")["resolutions"].items():
        for pool, found in figures.items():
            row, where = f"embedded copy, {pool}", {"n": found["n"], "oracle": "ofa-surrogate"}
            if "kendall_tau" in found:
                results.add(row, str(size), "tau with the predictor", found["kendall_tau"], unit="τ", **where)
            results.add(row, str(size), "rmse to the predictor", found["rmse"], unit="%", **where)


def climb(bench: ofa.ImageNet, n: int, generations: int, rng: np.random.Generator) -> np.ndarray:
    """The population that an evolution on an oracle ends with, distinct networks `(n, n_slots)`."""
    population = ofa.SPACE.random(n, rng)
    for _ in range(generations):
        both = np.unique(np.concatenate([population, ofa.SPACE.mutate(population, rng)]), axis=0)
        population = both[np.argsort(-bench.query(both, split="test"), kind="stable")[:n]]
    return population


def _levels(results: Results, oracle: str, archs: np.ndarray, real: bool) -> np.ndarray:
    levels = []
    for size in ofa.RESOLUTIONS[oracle]:
        mean = float(ofa.open_imagenet(oracle, size).query(archs, split="test").mean())
        measured = float(ofa.measurements(size)[1].mean()) if real and size in ofa.RESOLUTIONS["measured"] else np.nan
        results.add(PREDICTOR, str(size), "mean over random networks", mean, n=len(archs), unit="%")
        levels.append((size, mean, measured))
    return np.array(levels)


def _against_measurements(results: Results, seed: int, real: bool) -> None:
    figures = {name: found for name, found in ofa.card("measured-surrogate")["leave_search_out"].items() if name != "what"}
    for name, found in figures.items():
        where = {"n": found["n"], "oracle": "measured-surrogate"}
        results.add(SURROGATE, _search(name), "rmse to measurements", found["rmse"], unit="%", **where)
        if not real:
            results.add(SURROGATE, _search(name), "tau with measurements", found["kendall_tau"], unit="τ", **where)
    if not real:
        return
    archs, accuracy = ofa.measurements()
    left_out, predicted = ofa.left_out()[1], ofa.open_imagenet("ofa").query(archs, split="test")
    rng = numpy_stream(seed, "ofa_calibration/bootstrap/measured")
    for name, values in zip([name for name in figures if name != "all"], left_out, strict=True):
        took = ~np.isnan(values)
        for row, found in ((PREDICTOR, predicted), (SURROGATE, values)):
            _compare(results, row, _search(name), found[took], accuracy[took], rng)
    took = ~np.isnan(left_out)
    _compare(results, PREDICTOR, _search("all"), predicted, accuracy, rng)
    _compare(results, SURROGATE, _search("all"), left_out[took], np.broadcast_to(accuracy, took.shape)[took], rng)
    for size in ofa.RESOLUTIONS["measured"][:-1]:
        archs, accuracy = ofa.measurements(size)
        _compare(results, PREDICTOR, str(size), ofa.open_imagenet("ofa", size).query(archs, split="test"), accuracy, rng)


def _compare(results: Results, row: str, column: str, found: np.ndarray, accuracy: np.ndarray, rng) -> None:
    where = {"n": len(found), "oracle": "ofa" if row == PREDICTOR else "measured-surrogate"}
    results.add(row, column, "tau with measurements", kendall_ci(found, accuracy, rng), unit="τ", **where)
    results.add(row, column, "mean minus measured", bootstrap_ci(found - accuracy, rng), unit="%", **where)


def _search(key: str) -> str:
    return "224" if key == "all" else f"224, {key.removeprefix('ofa-measured-')}"
