"""How far the accuracies that networks inherit from the supernet can be trusted: validity, repeat noise, depth."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from nagkit.benchmarks import measured, supernet, validity
from nagkit.report.exhibits import Exhibit, by_profile
from nagkit.report.statistics import Interval, bootstrap_ci, kendall_ci, mean_ci
from nagkit.rng import numpy_stream
from nagkit.spaces import mbv3

TAU, NULLS = "Kendall τ with accuracy alone", ("multiply-accumulates", "number of layers")
ALL, DRAWN, TUNED = "inherited, 4,000 images", "inherited, 1,000 images", "fine-tuned for an epoch, 4,000 images"
FIRST = "first attempt: "
"""How rows of the earlier supernet begin."""
CURVE = supernet.CHECKPOINT.with_suffix(".csv")
"""The committed training curve."""
ENOUGH = 0.5
"""τ below which the oracle would have to be another one."""


class Study(NamedTuple):
    """The rows, and what the figure shows."""

    exhibit: Exhibit
    curve: pd.DataFrame
    """`epoch`, `loss`, `smallest`, `largest`: accuracies in percent on the validation images."""
    pairs: pd.DataFrame
    """Of the networks trained alone: accuracies `alone`, `fine-tuned`, `inherited` (percent), `macs` in millions, `layers`."""
    depths: dict[int, np.ndarray]
    """Inherited accuracies of networks with that depth in every stage."""


def supernet_validity(profile: str = "quick", seed: int = 0, *, progress: bool = True) -> Study:
    """Statistics of the committed measurements (`nagkit.benchmarks.validity.build`); the profile sets the resamples.

    Metrics. "Kendall τ with accuracy alone" and "Kendall τ above the null": inherited accuracy and two nulls against
    networks trained alone, bootstrapped over networks; n counts networks. "accuracy": mean of a group of networks.
    "standard deviation" of these. "repeat noise": standard deviation of one network's accuracy from draw to draw of the
    images, as measured, after each draw's mean is taken off (what a ranking sees), and that of independent binomial counts.
    "within the noise": percent of the fresh networks whose two measurements differ by less than 1.96 √2 times the repeat
    noise. "validation accuracy by epoch": the training curve, whose columns are epochs.
    """
    del progress  # every profile takes seconds
    (resamples,) = by_profile(profile, quick=(200,), paper=(5_000,))
    data = [supernet.CHECKPOINT, validity.FILE, validity.FIRST, CURVE]
    exhibit = Exhibit("supernet", profile, seed=seed, oracle=measured.ORACLE, data=data)
    table, earlier = validity.table(), validity.table(validity.FIRST)
    pairs, draws = _pairs(table), _draws(table, "validity")
    rng = numpy_stream(seed, "supernet/bootstrap")
    _ranking(exhibit, "", pairs, draws, rng, resamples)
    _ranking(exhibit, FIRST, _pairs(earlier), _draws(earlier, "validity"), rng, resamples)
    for name in ("trained alone", "fine-tuned", "inherited"):
        values = pairs[name.removeprefix("trained ")]
        _group(exhibit, name, "the networks trained alone", values.to_numpy(), rng)
    inherited = table[(table["kind"] == "inherited") & (table["draw"] == 0) & (table["n_images"] == measured.N_IMAGES)]
    depths = {d: inherited.loc[inherited["group"] == f"depth {d}", "accuracy"].to_numpy() for d in mbv3.DEPTHS}
    _group(exhibit, "inherited", "random networks", inherited.loc[inherited["group"] == "random", "accuracy"].to_numpy(), rng)
    for depth, values in depths.items():
        _group(exhibit, "inherited", f"depth {depth} in every stage", values, rng)
    _noise(exhibit, draws, _draws(table, "fresh"))
    curve = pd.read_csv(CURVE)
    for size in ("smallest", "largest"):
        for epoch, value in zip(curve["epoch"], curve[size], strict=True):
            exhibit.add(f"{size} network", str(epoch), "validation accuracy by epoch", value, n=1, unit="%")
    return Study(exhibit, curve, pairs, depths)


def _pairs(table: pd.DataFrame) -> pd.DataFrame:
    chosen = table[(table["group"] == "validity") & (table["n_images"] > measured.N_IMAGES)]
    pairs = chosen.pivot(index="arch", columns="kind", values="accuracy")
    archs = validity.SPACE.from_string(list(pairs.index))
    return pairs.assign(macs=supernet.multiply_accumulates(archs) / 1e6, layers=(archs >= 0).sum(axis=1))


def _draws(table: pd.DataFrame, group: str) -> np.ndarray:
    """Accuracies `(networks, draws)`."""
    chosen = table[(table["group"] == group) & (table["kind"] == "inherited") & (table["n_images"] == measured.N_IMAGES)]
    return chosen.pivot(index="arch", columns="draw", values="accuracy").to_numpy()


def _ranking(
    exhibit: Exhibit, prefix: str, pairs: pd.DataFrame, draws: np.ndarray, rng: np.random.Generator, resamples: int
) -> None:
    alone, where = pairs["alone"].to_numpy(), {"n": len(pairs), "unit": "τ"}
    scores = {ALL: [pairs["inherited"].to_numpy()], DRAWN: list(draws.T)}
    scores |= {TUNED: [pairs["fine-tuned"].to_numpy()]} if "fine-tuned" in pairs else {}
    if not prefix:  # an earlier supernet had other widths, and other multiply-accumulates
        scores |= {name: [pairs[key].to_numpy()] for name, key in zip(NULLS, ("macs", "layers"), strict=True)}
    rows = [np.arange(len(alone)), *rng.integers(0, len(alone), (resamples, len(alone)))]  # the first row is no resample
    taus = {
        name: np.array([np.mean([stats.kendalltau(values[row], alone[row]).statistic for values in found]) for row in rows])
        for name, found in scores.items()
    }
    for name, found in taus.items():
        exhibit.add(prefix + name, "all", TAU, _percentiles(found), **where)
        if name not in NULLS and not prefix:
            for null in NULLS:
                exhibit.add(name, null, "Kendall τ above the null", _percentiles(found - taus[null]), **where)
    between = np.mean([kendall_ci(*draws.T[[a, b]], rng, resamples=1).mean for a, b in combinations(range(draws.shape[1]), 2)])
    exhibit.add(prefix + "two draws of images", "all", "Kendall τ between measurements", between, **where)


def _percentiles(found: np.ndarray) -> Interval:
    return Interval(float(found[0]), *map(float, np.quantile(found[1:], [0.025, 0.975])))


def _group(exhibit: Exhibit, row: str, column: str, values: np.ndarray, rng: np.random.Generator) -> None:
    where = {"n": len(values), "unit": "%"}
    exhibit.add(row, column, "accuracy", mean_ci(values), **where)
    exhibit.add(row, column, "standard deviation", bootstrap_ci(values, rng, statistic=_sd), **where)
    exhibit.add(row, column, "smallest", values.min(), **where)
    exhibit.add(row, column, "largest", values.max(), **where)


def _sd(values: np.ndarray, axis: int) -> np.ndarray:
    return values.std(axis=axis, ddof=1)


def _noise(exhibit: Exhibit, draws: np.ndarray, fresh: np.ndarray) -> None:
    where, n_draws = {"n": len(draws), "unit": "%"}, draws.shape[1]
    noise = float(np.sqrt(draws.var(axis=1, ddof=1).mean()))
    centred = draws - draws.mean(axis=0)
    ranked = float(np.sqrt(centred.var(axis=1, ddof=1).mean() * len(draws) / (len(draws) - 1)))
    p = draws.mean() / 100
    column = f"{n_draws} draws of 1,000 images"
    exhibit.add("as measured", column, "repeat noise", noise, **where)
    exhibit.add("draw means taken off", column, "repeat noise", ranked, **where)
    exhibit.add("independent binomial counts", column, "repeat noise", 100 * np.sqrt(p * (1 - p) / measured.N_IMAGES), **where)
    within = np.abs(fresh[:, 0] - fresh[:, 1]) < 1.96 * np.sqrt(2) * noise
    where["n"] = len(fresh)
    exhibit.add("fresh networks", "two draws", "within the noise", 100 * within.mean(), **where)
    exhibit.add("fresh networks", "two draws", "largest difference", np.abs(fresh[:, 0] - fresh[:, 1]).max(), **where)


def verdict(study: Study) -> str:
    """What the numbers of `study` say, in words."""
    frame = study.exhibit.frame().set_index(["row", "column", "metric"])

    def at(row: str, column: str, metric: str) -> float:
        return frame.loc[(row, column, metric), "value"]

    def spelled(row: str, column: str, metric: str) -> str:
        value, lo, hi = frame.loc[(row, column, metric), ["value", "lo", "hi"]].astype(float)
        return f"{value:.2f} [{lo:.2f}, {hi:.2f}]"

    tau, n = at(DRAWN, "all", TAU), len(study.pairs)
    words = [
        f"**Ranking.** Against {n} networks trained alone, accuracy inherited on 1,000 images ranks at τ = "
        f"{spelled(DRAWN, 'all', TAU)}, on all 4,000 at {spelled(ALL, 'all', TAU)}: "
        f"{'at or above' if tau >= ENOUGH else 'below'} the {ENOUGH} that was asked for."
    ]
    for null in NULLS:
        value, lo, hi = frame.loc[(DRAWN, null, "Kendall τ above the null"), ["value", "lo", "hi"]].astype(float)
        said = "more" if lo > 0 else "less" if hi < 0 else "not distinguishably more or less"
        words.append(
            f"With the {null} alone τ is {spelled(null, 'all', TAU)}; inherited accuracy says {said} "
            f"(difference {value:+.2f} [{lo:+.2f}, {hi:+.2f}])."
        )
    first = frame.loc[(FIRST + DRAWN, "all", TAU), "n"]
    words.append(
        f"Fine-tuned for an epoch first, networks rank at τ = {spelled(TUNED, 'all', TAU)}. The first attempt, "
        f"a supernet of twice the width, ranked {first} networks of its own width at τ = {spelled(FIRST + DRAWN, 'all', TAU)}."
    )
    noise, kept = "repeat noise", f"{at('fresh networks', 'two draws', 'within the noise'):.0f}"
    column = next(column for _, column, metric in frame.index if metric == noise)
    fresh = frame.loc[("fresh networks", "two draws", "within the noise"), "n"]
    more = (
        f"**Noise.** From one draw of images to the next a network's accuracy moves by {at('as measured', column, noise):.2f} "
        f"points (standard deviation), by {at('draw means taken off', column, noise):.2f} once the common shift of a draw is "
        f"taken off; random networks differ by {at('inherited', 'random networks', 'standard deviation'):.2f}. Of {fresh} "
        f"fresh networks measured twice {kept} % agree within 1.96 √2 times the first figure."
    )
    means = [at("inherited", f"depth {depth} in every stage", "accuracy") for depth in study.depths]
    levels = ", ".join(f"{mean:.1f} % at depth {depth}" for mean, depth in zip(means, study.depths, strict=True))
    last = study.curve.iloc[-1]
    rest = (
        f"**Level.** The largest network has {last['largest']:.1f} % of 160 classes, the smallest {last['smallest']:.1f} %; "
        f"the mean is {levels}. Trained alone the {n} networks have "
        f"{at('trained alone', 'the networks trained alone', 'accuracy'):.1f} %, after a third of the epochs."
    )
    return "\n\n".join([" ".join(words), more, rest])
