"""Figures of searches, and of the oracles that they ask; style and rules as in `nagkit.report.plots`."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nagkit.report.plots import MARKERS, NAMES, PALETTE, STYLE, _panels, closed, legend

FEWEST = 5
"""Seeds below which an interval would fill the panel and say nothing."""


def oracle_agreement(
    networks: Mapping[str, tuple[np.ndarray, np.ndarray]],
    levels: Mapping[int, tuple[float, float]],
    *,
    names: tuple[str, str],
    best: float,
) -> Figure:
    """Left: pools of networks by two oracles called `names`, percent; `best` is the best measurement. Right: by resolution.

    `levels[r]` is the mean of the first oracle over random networks and the mean of the measurements at r (NaN: none).
    """
    with plt.rc_context(STYLE):
        figure, (left, right) = _panels(2)
        for i, (pool, (first, second)) in enumerate(networks.items()):
            left.plot(second, first, MARKERS[i], ms=4, alpha=0.5, mew=0, color=PALETTE[i], label=pool)
        left.set_ylim(None, left.get_ylim()[1] + 0.32 * np.ptp(left.get_ylim()))  # room for the legend
        left.axvline(best, color="#777777", lw=1.2, ls=":", label="best measurement")
        left.set(xlabel=f"{names[1]} (%)", ylabel=f"{names[0]} (%)", title="the same networks by both, r = 224")
        sizes = list(levels)
        for i, (label, values) in enumerate(zip((names[0], "measurements"), np.array(list(levels.values())).T, strict=True)):
            there = ~np.isnan(values)
            if there.any():
                style = {"color": PALETTE[3 + i], "marker": MARKERS[3 + i], "ls": ("-", "--")[i], "ms": 7}
                right.plot(np.array(sizes)[there], values[there], label=label, **style)
        right.set(xlabel="input resolution (pixels)", ylabel="mean accuracy (%)", title="mean by resolution")
        right.set_xticks(sizes)
        left.legend(loc="upper left", markerscale=1.6, handletextpad=0.2)
        right.legend(loc="lower right")
    return closed(figure)


def selected_networks(accuracy: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Accuracies of the networks that each method selected, `[data set][row]` float `(runs, networks)`, and their run means."""
    with plt.rc_context(STYLE):
        lines = -(-len(accuracy) // 2)
        rows = list(next(iter(accuracy.values())))
        size = (10.5, 0.8 + lines * (0.9 + 0.3 * len(rows)))
        figure, axes = plt.subplots(lines, 2, figsize=size, squeeze=False, sharey=True)
        for ax, (dataset, each) in zip(axes.flat, accuracy.items(), strict=False):
            for y, values in zip(range(len(rows))[::-1], each.values(), strict=True):
                spread = np.linspace(-0.3, 0.3, values.size)
                ax.plot(values.ravel(), y + spread, ".", color=PALETTE[5], ms=5, alpha=0.5)
                ax.plot(values.mean(axis=1), np.full(len(values), y), "|", color=PALETTE[0], ms=15, mew=2.4)
            ax.set_yticks(range(len(rows))[::-1], rows)
            ax.set_title(NAMES.get(dataset, dataset), fontsize=12)
        figure.supxlabel("accuracy on 1,000 test images (%)", fontsize=12)
    return closed(figure)


def measured_and_tuned(pairs: pd.DataFrame) -> Figure:
    """Measured against fine-tuned accuracy in percent, one panel a data set and one mark a row of `table1.Transfer.pairs`."""
    with plt.rc_context(STYLE):
        datasets = list(pairs["dataset"].unique())
        figure, axes = plt.subplots(1, len(datasets), figsize=(10.5, 3.6), squeeze=False)
        for ax, dataset in zip(axes.flat, datasets, strict=True):
            for i, (row, part) in enumerate(pairs[pairs["dataset"] == dataset].groupby("row", sort=False)):
                colour = PALETTE[i % len(PALETTE)]
                ax.plot(part["measured"], part["tuned"], MARKERS[i], color=colour, ms=6, alpha=0.8, label=row)
            ax.set_title(NAMES.get(dataset, dataset), fontsize=12)
        figure.supxlabel("measured with inherited weights (%)", fontsize=12)
        figure.supylabel("fine-tuned (%)", fontsize=12)
        legend(figure, axes.flat, ncols=3)
    return closed(figure)
