"""Distributions of generated pools, and their quality against their diversity over the guidance strength (paper, Figure 2)."""

from collections.abc import Callable
from itertools import product

import numpy as np
from scipy import stats

from nagkit.report.exhibits import paper_rows
from nagkit.report.plots import NAMES
from nagkit.rng import numpy_stream
from nagkit.studies import pools

SCALES = (0, 1, 3, 10, 30, 100, 300)
TOP = (10, 20, 50, 100, 200, 500, 1000)
"""Numbers of cells at which the null rankings are read."""

BINS = (-np.inf, 50, 80, 85, 90, 91, 92, 93, 94, np.inf), (-np.inf, 20, 50, 58, 64, 67, 70, 71, 72, 73, np.inf)
OTHERS = {
    "imagenet16-120": "ImageNet16-120, development set",
    "ninapro": "NinaPro, no dataset code",
    "darcy": "Darcy flow, no dataset code",
}
"""The data sets of Figure 5: every one in the tables that Figure 2 does not show."""

_RANKS = {"top 1 %": (0, 0.01), "top 5 %": (0, 0.05), "top 20 %": (0, 0.2), "lower half": (0.5, 1)}
_CURVES = {
    "mean accuracy": (pools.average, "%"),
    "distinct cells": (pools.distinct, "count"),
    "valid draws": (pools.valid, "count"),
}


def figure2(profile: str = "quick", seed: int = 0, *, n_workers: int = 1, progress: bool = True) -> pools.Pools:
    """Distributions of the pools of Table 3, and quality against diversity over the guidance strength.

    Metrics, "DATASET ..." each: "share of draws" (column: a range of test accuracy), and for every law (row) and strength
    (column) "mean accuracy", "distinct cells" and "valid draws" of pools of 20 ancestral steps; for the null rankings "mean
    of the top", where the column counts cells. A strength without a valid draw has no mean.
    """
    options = {"n_workers": n_workers, "progress": progress}
    n, n_training, _, _, _ = pools.setting(profile)
    scales, laws = (SCALES, ("exact", "score")) if profile == "paper" else ((0, 10, 100), ("exact",))
    study = pools.collect("figure2", profile, seed, **options)
    keys = list(product(pools.DATASETS, ("x0", "xt"), laws, scales, range(n_training)))
    jobs = [(d, t, 100 * seed, law, rule, float(scale), n) for d, rule, law, scale, t in keys]
    drawn = dict(zip(keys, pools.draw_guided(jobs, **options), strict=True))
    for dataset, edges in zip(pools.DATASETS, BINS, strict=True):
        accuracy = study.accuracy[dataset]
        for row, groups in study.pools[dataset].items():
            for low, high in zip(edges, edges[1:], strict=False):
                values = pools.by_group(groups, pools.of_valid(share(low, high)), accuracy)
                pools.add(study.exhibit, row, _range(low, high), f"{dataset} share of draws", values, "%")
        for rule, law, scale in product(("x0", "xt"), laws, scales):
            groups = [[drawn[dataset, rule, law, scale, t]] for t in range(n_training)]
            row = f"{'x̂₀' if rule == 'x0' else 'x_t'}, {'trained' if law == 'score' else 'exact'} prior"
            for metric, (measure, unit) in _CURVES.items():
                values = pools.by_group(groups, measure, accuracy)
                pools.add(study.exhibit, row, f"{scale:g}", f"{dataset} {metric}", values, unit)
        rng = numpy_stream(100 * seed, f"pools/{dataset}/top")
        nulls = pools.SPACE.null_rankings
        for name, ranking in (("Largest cells", nulls["largest"]), ("Hand rule", nulls["hand-rule"])):
            values = accuracy[pools.SPACE.code(ranking(pools.SPACE.all(), rng))]
            for count in TOP:
                study.exhibit.add(name, str(count), f"{dataset} mean of the top", values[:count].mean(), n=count, unit="%")
    return study


def share(low: float, high: float) -> Callable:
    """A statistic: percent of the values in [low, high)."""
    return lambda values: 100 * ((values >= low) & (values < high)).mean()


def _range(low: float, high: float) -> str:
    return f"below {high:g}" if np.isinf(low) else f"from {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"


def figure2_verdict(study: pools.Pools) -> str:
    """What the curves of `study` say, in words: who holds the paper's mean with how many cells, and against the nulls."""
    frame = study.exhibit.frame().set_index(["row", "metric"])
    claims = paper_rows("table3").set_index(["row", "column"])["value"]
    paragraphs = []
    for dataset in pools.DATASETS:
        claim = claims["DiffusionNAG", f"{dataset} mean"]
        means = frame.xs(f"{dataset} mean accuracy", level="metric")
        cells = frame.xs(f"{dataset} distinct cells", level="metric")
        tops = frame.xs(f"{dataset} mean of the top", level="metric")
        said = []
        for row in dict.fromkeys(means.index):
            held = means.loc[[row], "value"].to_numpy() >= claim
            number, scale = cells.loc[[row], "value"].to_numpy(), means.loc[[row], "column"].to_numpy()
            if held.any():
                at = np.flatnonzero(held)[number[held].argmax()]
                said.append(f"{row}: {number[at]:.0f} (strength {scale[at]})")
            else:
                said.append(f"{row}: never")
        for row in dict.fromkeys(tops.index):
            held = tops.loc[[row], "value"].to_numpy() >= claim
            said.append(f"{pools.lower(row)}: {np.array(TOP)[held].max() if held.any() else 'never'}")
        paragraphs.append(
            f"**{NAMES[dataset]}.** Most distinct cells at which a pool still has the paper's mean of {claim:.2f} %, among the "
            f"strengths and list lengths tried: {'; '.join(said)}."
        )
    return "\n\n".join(paragraphs)


def figure5(profile: str = "quick", seed: int = 0, *, n_workers: int = 1, progress: bool = True) -> pools.Pools:
    """Distributions of the same pools on the remaining data sets (paper, appendix, Figure 5).

    Metrics, "LABEL ..." with the labels of `OTHERS`: "accuracy" (columns max, mean, min), "share of draws" (column: part of all
    15,625 cells by their rank on that data set) and "distinct cells". The method as published is left out.
    """
    options = {"n_workers": n_workers, "progress": progress}
    study = pools.collect("figure5", profile, seed, datasets=tuple(OTHERS), as_published=False, **options)
    for dataset, label in OTHERS.items():
        accuracy = study.accuracy[dataset]
        rank = stats.rankdata(-accuracy, method="average") / len(accuracy)
        for row, groups in study.pools[dataset].items():
            for name, measure in (("max", pools.best), ("mean", pools.average), ("min", pools.worst)):
                pools.add(study.exhibit, row, name, f"{label}: accuracy", pools.by_group(groups, measure, accuracy), "%")
            for name, (low, high) in _RANKS.items():
                inside = pools.of_valid(lambda values, low=low, high=high: 100 * ((values > low) & (values <= high)).mean())
                pools.add(study.exhibit, row, name, f"{label}: share of draws", pools.by_group(groups, inside, rank), "%")
            cells = pools.by_group(groups, pools.distinct, accuracy)
            pools.add(study.exhibit, row, "pool", f"{label}: distinct cells", cells, "count")
    return study


def figure5_verdict(study: pools.Pools) -> str:
    """How far the pools carry over to the remaining data sets, in words."""
    rows = study.exhibit.frame().set_index(["row", "column", "metric"])
    paragraphs = []
    for label in OTHERS.values():
        said = []
        for row in (pools.OURS, pools.OURS_EXACT, pools.SORTED, pools.RANDOM):
            share = rows.loc[row, "top 5 %", f"{label}: share of draws"]
            said.append(f"{pools.lower(row)} {pools.spelled(share, '.1f')} %")
        lists = [row for row in study.shown if row.startswith(("Largest", "Hand rule"))]
        null = max(lists, key=lambda row: rows.loc[row, "mean", f"{label}: accuracy"]["value"])
        ours, mean = (rows.loc[row, "mean", f"{label}: accuracy"] for row in (pools.OURS, null))
        word = "above" if ours.lo > mean.value else "below" if ours.hi < mean.value else "not distinguishable from"
        paragraphs.append(
            f"**{label}.** Draws in the best 5 % of all cells: {'; '.join(said)}. The mean of our pool, "
            f"{pools.spelled(ours, '.2f')} %, is {word} that of the best list without a network ({pools.lower(null)}, "
            f"{mean.value:.2f} %)."
        )
    return "\n\n".join(paragraphs)
