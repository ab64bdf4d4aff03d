"""Figures about objectives: what pools are made of, and what accuracy costs. In the style of `nagkit.report.plots`."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nagkit.report import plots
from nagkit.spaces import nb201


def operation_bars(frame: pd.DataFrame, metrics: Mapping[str, str]) -> Figure:
    """Stacked shares of the five operations (percent), one bar a row, one panel a metric with its title, from tidy rows."""
    rows = list(frame["row"].unique())
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(1, len(metrics), figsize=(10.5, 1.6 + 0.3 * len(rows)), squeeze=False, sharey=True)
        for ax, (metric, title) in zip(axes[0], metrics.items(), strict=True):
            wide = frame[frame["metric"] == metric].pivot(index="row", columns="column", values="value").reindex(rows)
            left = np.zeros(len(rows))
            for name, colour in nb201.Space.styles:
                share = wide[name].to_numpy()
                ax.barh(np.arange(len(rows))[::-1], share, left=left, color=colour, height=0.78, label=name)
                left = left + share
            ax.set_yticks(np.arange(len(rows))[::-1], rows)
            ax.set(xlim=(0, 100), xlabel="share of the edges (%)", title=title)
            ax.grid(False)
        plots.legend(figure, axes[0], ncols=5)
    return plots.closed(figure)


def trade_off(
    clouds: Mapping[str, np.ndarray], fronts: Mapping[str, Sequence[np.ndarray]], *, labels: tuple[str, str], best: np.ndarray
) -> Figure:
    """Accuracy against cost: one panel a name of `clouds`, whose cells `(n, 2)` of (cost, accuracy) are small dots.

    `fronts[name]` are the cells on the Pareto front of each seed; `best` is the front of the whole space, a line.
    """
    low = best[:, 1].max() - 25
    points = np.concatenate([*clouds.values(), *(front for found in fronts.values() for front in found)])
    costs = points[points[:, 1] > low, 0]
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(1, len(clouds), figsize=(10.5, 3.9), squeeze=False, sharex=True, sharey=True)
        for i, (ax, (name, cells)) in enumerate(zip(axes[0], clouds.items(), strict=True)):
            ax.plot(*cells.T, ".", ms=3, color="#AAAAAA", label="measured")
            ax.step(*best.T, where="post", color="#111111", lw=1.2, label="front of the whole space")
            for k, front in enumerate(fronts[name]):
                ax.plot(*front.T, plots.MARKERS[0], ms=4, color=plots.PALETTE[0], label="front found" if k == 0 else None)
            ax.set(xlabel=labels[0], ylabel=labels[1] if i == 0 else None, title=name, xscale="log")
            ax.title.set_size(11)
            ax.set_xlim(0.8 * costs.min(), 1.25 * costs.max())
            plots.plain_log(ax.xaxis, [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100], ax.get_xlim()[1])
        axes[0, 0].set_ylim(low, best[:, 1].max() + 1)
        plots.legend(figure, axes[0])
    return plots.closed(figure)
