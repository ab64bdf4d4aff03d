"""The three figures of the book's front page, from recorded tables; narrow, so that they can be read on a telephone.

Style and rules as in `nagkit.report.plots`. Filled marks are ours, hollow ones the paper's.
"""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nagkit.report.plots import DASHES, MARKERS, NAMES, PALETTE, STYLE, closed, plain_log

NARROW = STYLE | {"font.size": 10, "legend.fontsize": 9, "svg.fonttype": "path"}
WIDTH = 4.7
HOLLOW = {"mfc": "white", "mec": "#111111", "mew": 1.2, "ls": ""}
POOLS = (
    "Random cells", "Largest 1,000 cells", "Largest 100 cells", "Hand rule, 100 cells", "Unguided + sorting", "As published",
    "Ours, trained prior", "Ours, exact prior", "Ours, diverse, trained prior",
)  # fmt: skip
TRAINED = {  # row of table2: its name here, the paper's row
    "Random search": ("Random search", ""),
    "Bayesian optimisation": ("Bayesian optimisation", ""),
    "Largest cells": ("Largest cells", ""),
    "Hand rule": ("Hand rule", ""),
    "MetaD2A-style": ("MetaD2A-style", "MetaD2A"),
    "TNAS-style": ("TNAS-style", "TNAS"),
    "DiffusionNAG as published, 256 draws": ("As published", "DiffusionNAG"),
    "DiffusionNAG ours, trained prior": ("Ours, trained prior", ""),
}
LINES = (*PALETTE[2:4], "#8C8C8C", "#000000", *PALETTE[4:6], PALETTE[1], PALETTE[0])
SMALLEST = 0.02
"""A regret below this, none included, is drawn here: the axis is logarithmic."""
OURS = "DiffusionNAG + BO"


def _one(frame: pd.DataFrame, metric: str, row: str, column: str, origin: str = "ours") -> pd.Series:
    found = frame[(frame.metric == metric) & (frame.row == row) & (frame.column == column) & (frame.origin == origin)]
    return found.iloc[0]


def _rows(ax: Axes, names: list[str], colours: list[str]) -> np.ndarray:
    y = np.arange(len(names))[::-1]
    ax.set_yticks(y, names)
    for text, colour in zip(ax.get_yticklabels(), colours, strict=True):
        text.set_color(colour)
    ax.set_ylim(-0.6, len(names) - 0.4)
    return y


def _colours(names: list[str]) -> list[str]:
    return [PALETTE[1] if name == "As published" else PALETTE[0] if name.startswith("Ours") else "#333333" for name in names]


def pools(frame: pd.DataFrame) -> Figure:
    """Mean accuracy of generated pools beside lists without a network, with the number of distinct cells, from `table3`."""
    names, colours = list(POOLS), _colours(list(POOLS))
    with plt.rc_context(NARROW):
        figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 6.2))
        for ax, dataset in zip(axes, ("cifar10", "cifar100"), strict=True):
            y = _rows(ax, [name.replace(", trained prior", "") if "diverse" in name else name for name in names], colours)
            means = [_one(frame, "accuracy", name, f"{dataset} mean") for name in names]
            for at, mean, colour, name in zip(y, means, colours, names, strict=True):
                ax.hlines(at, mean.lo, mean.hi, color=colour, lw=3, alpha=0.45)
                ax.plot(mean.value, at, "o", color=colour, ms=6)
                cells = _one(frame, "distinct cells", name, dataset).value
                ax.text(1.02, at, f"{cells:.0f}", transform=ax.get_yaxis_transform(), va="center", fontsize=9, color="#444444")
            paper = _one(frame, "accuracy", "DiffusionNAG", f"{dataset} mean", "paper").value
            ax.axvline(paper, color="#111111", lw=1.2, ls="--")
            ax.text(1.02, len(names) - 0.3, "distinct\ncells", transform=ax.get_yaxis_transform(), fontsize=8, color="#444444")
            ax.set_title(f"{NAMES[dataset]}; dashed: paper, {paper:.2f} %", fontsize=10, loc="left")
        axes[-1].set_xlabel("mean test accuracy of a pool of 1,000 (%)")
    return closed(figure)


def trained(frame: pd.DataFrame) -> Figure:
    """Architectures trained until the optimum, and regret after 1 to 20 trained ones, from `table2`."""
    names = [name for name, _ in TRAINED.values()]
    with plt.rc_context(NARROW):
        figure, axes = plt.subplots(3, 1, figsize=(WIDTH, 8.6), height_ratios=(1.15, 1, 1))
        _until_the_optimum(axes[0], frame, names)
        for ax, dataset in zip(axes[1:], ("cifar10", "cifar100"), strict=True):
            for i, (row, (name, _)) in enumerate(TRAINED.items()):
                line = [_one(frame, f"{dataset} regret", row, count) for count in ("1", "3", "5", "10", "20")]
                x, y = [int(entry.column) for entry in line], [max(entry.value, SMALLEST) for entry in line]
                wide = 2.6 if row.startswith("DiffusionNAG") else 1.4
                ax.plot(x, y, color=LINES[i], ls=DASHES[i], marker=MARKERS[i], ms=5, lw=wide, label=name)
            ax.set(xscale="log", yscale="log", ylabel=f"regret, {NAMES[dataset]}\n(points of accuracy)")
            plain_log(ax.xaxis, [1, 3, 5, 10, 20], 20)
            plain_log(ax.yaxis, [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20], ax.get_ylim()[1])
        axes[-1].set_xlabel("architectures trained")
        figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return closed(figure)


def _until_the_optimum(ax: Axes, frame: pd.DataFrame, names: list[str]) -> None:
    y = _rows(ax, names, _colours(names))
    for at, (row, (_, paper)) in zip(y, TRAINED.items(), strict=True):
        shares = []
        for i, dataset in enumerate(("cifar10", "cifar100")):
            height = at + (0.16, -0.16)[i]
            count = _one(frame, "trained until the optimum", row, dataset).value
            if np.isfinite(count):
                ax.plot(count, height, "os"[i], color=PALETTE[i], ms=6)
            else:
                shares.append(f"{_one(frame, 'reached: the optimum', row, dataset).value:.0f}")
            if paper:
                known = _one(frame, "trained architectures", paper, dataset, "paper").value
                ax.plot(known, height, "os"[i], ms=6, **HOLLOW)
        if shares:
            ax.text(3, at, f"optimum in {' and '.join(shares)} % of runs", va="center", fontsize=8.5, color="#444444")
    for i, dataset in enumerate(("cifar10", "cifar100")):
        ax.plot([], [], "os"[i], color=PALETTE[i], label=NAMES[dataset])
    ax.plot([], [], "o", label="paper's", **HOLLOW)
    ax.set(xscale="log", xlim=(0.85, 130), xlabel="trained until the optimum (median of runs)")
    plain_log(ax.xaxis, [1, 2, 5, 10, 20, 50, 100], 130)
    ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3)


def search(frame: pd.DataFrame) -> Figure:
    """What Bayesian optimisation with guided proposals has more than each other method after 100 evaluations, `figure3`."""
    rows = frame[(frame.metric == "methods, predictor difference") & (frame.column == "100")]["row"]
    others = [row.removeprefix(f"{OURS} minus ") for row in rows]
    others.sort(key=lambda name: -_one(frame, "methods, predictor difference", f"{OURS} minus {name}", "100").value)
    printed = frame[(frame.origin == "paper") & (frame.column == "100")].set_index("row")["value"]
    with plt.rc_context(NARROW):
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 4.3), sharey=True)
        names = [name.replace(f"{OURS}, noise-aware copy", "its noise-aware copy") for name in others]
        y = _rows(left, names, ["#333333"] * len(names))
        for ax, kind, title in ((left, "predictor", "Once-for-All\npredictor"), (right, "measured", "measured\nnetworks")):
            for at, name in zip(y, others, strict=True):
                gap = _one(frame, f"methods, {kind} difference", f"{OURS} minus {name}", "100")
                colour = PALETTE[0] if gap.lo > 0 else PALETTE[1] if gap.hi < 0 else "#8C8C8C"
                ax.hlines(at, gap.lo, gap.hi, color=colour, lw=3, alpha=0.5)
                ax.plot(gap.value, at, "o", color=colour, ms=6)
                if kind == "predictor" and name in printed:
                    ax.plot(printed[OURS] - printed[name], at - 0.22, "o", ms=5, **HOLLOW)
            ax.axvline(0, color="#777777", lw=1.2, ls=":")
            ax.set_title(title, fontsize=10)
        left.tick_params(axis="y", length=0)
        figure.supxlabel(f"accuracy of {OURS}\nminus that of the other method (points)", fontsize=10)
    return closed(figure)


FIGURES: dict[str, tuple[str, str, Callable[[pd.DataFrame], Figure]]] = {
    "pools": ("table3", "accuracy|distinct cells", pools),
    "trained": ("table2", "trained until the optimum|cifar100? regret", trained),
    "search": ("figure3", "methods, .* difference", search),
}
"""Name of a figure: the results it is drawn from, a pattern of the metrics it shows, and the function that draws it."""
