"""Figures in one style: colour-blind safe (Okabe & Ito, 2008), readable at half page width, units on every axis.

Every function returns a closed matplotlib figure: a notebook shows it once, as the value of its cell.
"""

import re
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from nagkit.report.statistics import half_width
from nagkit.spaces.base import get_space

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)), (0, (6, 2)), "-", (0, (2, 2)))
STYLE = {
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "font.size": 12,
    "grid.color": "#E3E3E3",
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
}
NAMES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet16-120": "ImageNet16-120",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "nb201": "NAS-Bench-201",
    "mbv3": "MobileNetV3",
}


def label(name: str) -> str:
    """A key of the results as readers know it: data sets by their names, other words as they are."""
    return re.sub(r"[\w-]+", lambda word: NAMES.get(word[0], word[0]), name)


def search_curves(
    curves: Mapping[str, Mapping[str, np.ndarray]],
    *,
    optimum: Mapping[str, float],
    paper: pd.DataFrame | None = None,
    floor: Mapping[str, float] | None = None,
) -> Figure:
    """Best test accuracy against trained architectures, one panel a data set.

    `curves[dataset][method]` is the incumbent in percent, float `(seeds, budget)`; bands are 95 % t intervals of the
    mean, cut at the optimum. `paper` holds the paper's tidy rows of Table 2: each method whose trained architectures it
    counts becomes a marker, hollow for a bound. `floor[dataset]` is the lower end of the accuracy axis.
    """
    with plt.rc_context(STYLE):
        figure, axes = _panels(len(curves))
        for ax, (dataset, methods) in zip(axes, curves.items(), strict=True):
            for i, (method, values) in enumerate(methods.items()):
                _band(ax, np.arange(1, values.shape[1] + 1), values, i, method, top=optimum[dataset])
            ax.axhline(optimum[dataset], color="#777777", lw=1, ls=":")
            ax.text(
                0.3, optimum[dataset], "optimum", va="bottom", color="#777777", fontsize=10, transform=ax.get_yaxis_transform()
            )
            budget = max(values.shape[1] for values in methods.values())
            low = (floor or {}).get(dataset, ax.get_ylim()[0])
            ax.set(xscale="log", xlim=(0.93, budget * 1.15), ylim=(low, optimum[dataset] + 0.09 * (optimum[dataset] - low)))
            plain_log(ax.xaxis, [1, 3, 5, 10, 20, 50, 100, 200, 500], budget)
            if paper is not None:
                _paper_markers(ax, paper[paper["column"] == dataset], budget)
            seeds = {len(values) for values in methods.values()}
            ax.set_title(f"{NAMES.get(dataset, dataset)}, n = {'/'.join(map(str, sorted(seeds)))} seeds")
            ax.set(xlabel="architectures trained", ylabel="best test accuracy (%)")
        legend(figure, axes)
    return closed(figure)


def intervals(frame: pd.DataFrame, *, label: str, zero: float | None = None) -> Figure:
    """Values and 95 % intervals of tidy rows, one line a row, one panel a column; `zero` is a reference line."""
    columns, rows = list(frame["column"].unique()), list(frame["row"].unique())
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(columns), figsize=(10.5, 1.3 + 0.36 * len(rows)), squeeze=False, sharey=True, sharex=True
        )
        for ax, column in zip(axes[0], columns, strict=True):
            part = frame[frame["column"] == column].set_index("row").reindex(rows)
            y = np.arange(len(rows))[::-1]
            ax.hlines(y, part["lo"], part["hi"], color=PALETTE[0], lw=3, alpha=0.45)
            ax.plot(part["value"], y, "o", color=PALETTE[0], ms=6)
            if zero is not None:
                ax.axvline(zero, color="#777777", lw=1.2, ls=":")
            ax.set_yticks(y, [" ".join(NAMES.get(word, word) for word in row.split(" ")) for row in rows])
            ax.set_title(NAMES.get(column, column), fontsize=12)
        figure.supxlabel(label, fontsize=12)
    return closed(figure)


def curves(frame: pd.DataFrame, panels: Mapping[str, str], *, xlabel: str, log: bool = True, floor: str = "") -> Figure:
    """Values and 95 % intervals against a numeric `column`, from tidy rows: one panel a metric, one line a row.

    `panels` maps metrics to the labels of their vertical axes; rows that begin with `floor` are thin grey reference lines.
    """
    rows = list(frame[frame["metric"].isin(panels)]["row"].unique())
    with plt.rc_context(STYLE):
        figure, axes = _panels(len(panels))
        for ax, (metric, label) in zip(axes, panels.items(), strict=True):
            part = frame[frame["metric"] == metric]
            for i, row in enumerate(rows):
                line = part[part["row"] == row]
                if not len(line):
                    continue
                x, order = line["column"].astype(float).to_numpy(), line["column"].astype(float).argsort()
                y, lo, hi = (line[name].to_numpy()[order] for name in ("value", "lo", "hi"))
                thin = bool(floor) and row.startswith(floor)
                colour = "#777777" if thin else PALETTE[i % len(PALETTE)]
                ax.plot(
                    x[order], y, color=colour, ls=DASHES[i % len(DASHES)], lw=1.2 if thin else 2, ms=0 if thin else 5.5,
                    marker=MARKERS[i % len(MARKERS)], label=row,
                )  # fmt: skip
                if line["n"].min() > 2:  # the interval of two seeds hides everything else
                    ax.fill_between(x[order], lo, hi, color=colour, alpha=0.15, lw=0)
            ax.set(xlabel=xlabel, ylabel=label)
            low, high = part["value"].min(), part["value"].max()
            if high > low:  # the lines, and not the bands, say what is shown
                ax.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
            if log:
                ax.set_xscale("log")
                plain_log(ax.xaxis, sorted(part["column"].astype(float).unique()), np.inf)
        legend(figure, axes, ncols=3 if max(map(len, rows)) < 36 else 2)
    return closed(figure)


def sampler_error(frame: pd.DataFrame, *, floor: str = "exact draws") -> Figure:
    """Distance to the exact law against network calls and against time, from the tidy rows of `figure_samplers`.

    Columns are network calls; the row called `floor` (any column) is what the same number of exact draws gives.
    """
    error, time = (frame[frame["metric"] == metric] for metric in ("total variation", "time"))
    with plt.rc_context(STYLE):
        figure, axes = _panels(2, sharey=True)
        samplers = [name for name in error["row"].unique() if name != floor]
        for i, name in enumerate(samplers):
            rows = error[error["row"] == name]
            calls = rows["column"].astype(int).to_numpy()
            seconds = time[time["row"] == name].set_index("column")["value"].reindex(rows["column"]).to_numpy()
            for ax, x in ((axes[0], calls), (axes[1], seconds)):
                order = np.argsort(x)
                colour = PALETTE[i % len(PALETTE)]
                ax.plot(
                    x[order], rows["value"].to_numpy()[order], color=colour, ls=DASHES[i % len(DASHES)],
                    marker=MARKERS[i % len(MARKERS)], ms=5.5, label=name,
                )  # fmt: skip
                if ax is axes[0]:
                    lo, hi = rows["lo"].to_numpy()[order], rows["hi"].to_numpy()[order]
                    ax.fill_between(x[order], lo, hi, color=colour, alpha=0.18, lw=0)
        base = error[error["row"] == floor].iloc[0]
        for ax in axes:
            ax.axhspan(base.lo, base.hi, color="#999999", alpha=0.35, lw=0)
            ax.axhline(base.value, color="#777777", lw=1.2, ls=":", label=floor)
            ax.set(xscale="log", yscale="log")
        plain_log(axes[0].xaxis, [2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000], axes[0].get_xlim()[1])
        seeds = error["n"].iloc[0]
        axes[0].set(xlabel="network calls", ylabel=f"total variation to the exact law\n(mean over edges, n = {seeds} seeds)")
        axes[0].set(ylim=(base.lo / 1.6, None))
        axes[1].set(xlabel="CPU seconds for 10,000 draws")
        plain_log(axes[1].xaxis, [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50], axes[1].get_xlim()[1])
        plain_log(axes[0].yaxis, [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1], axes[0].get_ylim()[1])
        legend(figure, axes[:1])
    return closed(figure)


def cell_strip(archs: np.ndarray, titles: Sequence[str] | None = None, *, columns: int = 4) -> Figure:
    """Drawings of NB201 cells, `columns` to a line."""
    archs, space = np.asarray(archs), get_space("nb201")
    columns = min(columns, len(archs))
    lines = -(-len(archs) // columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(lines, columns, figsize=(3.3 * columns, 2.5 * lines), squeeze=False)
        for i, ax in enumerate(axes.flat):
            ax.set_axis_off()
            if i < len(archs):
                space.draw(ax, archs[i])
                ax.set_title(titles[i] if titles is not None else "", fontsize=12)
    return closed(figure)


def _panels(n: int, *, width: float = 10.5, sharey: bool = False) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(1, n, figsize=(width, 4.6), squeeze=False, sharey=sharey)
    return figure, axes[0]


def _band(ax: Axes, x: np.ndarray, values: np.ndarray, i: int, label: str, top: float) -> None:
    mean, half = values.mean(axis=0), np.nan_to_num(half_width(values))
    ax.plot(x, mean, color=PALETTE[i % len(PALETTE)], ls=DASHES[i % len(DASHES)], label=label)
    ax.fill_between(x, mean - half, np.minimum(mean + half, top), color=PALETTE[i % len(PALETTE)], alpha=0.15, lw=0)


def _paper_markers(ax: Axes, rows: pd.DataFrame, budget: int) -> None:
    accuracy, trained = (rows[rows["metric"] == metric].set_index("row") for metric in ("accuracy", "trained architectures"))
    for i, name in enumerate(trained.index):
        bound, x = np.isinf(trained.loc[name, "hi"]), min(trained.loc[name, "value"], budget)
        ax.plot(
            x, accuracy.loc[name, "value"], MARKERS[i % len(MARKERS)], ms=8, mfc="none" if bound else "#555555", mec="#111111",
            label=f"paper: {name}{' (>500)' if bound else ''}", zorder=5, clip_on=False,
        )  # fmt: skip


def legend(figure: Figure, axes: Sequence[Axes], ncols: int = 4) -> None:
    entries = {}
    for ax in axes:
        entries |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=ncols)


def plain_log(axis, ticks: Sequence[float], top: float) -> None:
    """Label a logarithmic `axis` at `ticks` up to `top`, as plain numbers; of labels that would collide the first stays."""
    marked = [tick for tick in ticks if tick <= top]
    low, high = axis.get_view_interval()
    letter = 0.011 * np.log10(high / low) if axis.axis_name == "x" else 0.0  # half a letter's width, with some air
    named: list[float] = []
    for tick in marked:
        if not named or np.log10(tick / named[-1]) >= letter * len(f"{tick:g}{named[-1]:g}"):
            named.append(tick)
    axis.set_major_locator(FixedLocator(marked))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}" if tick in named else ""))


def closed(figure: Figure) -> Figure:
    plt.close(figure)
    return figure
