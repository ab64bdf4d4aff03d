"""The figures of the book's front page, from recorded tables; narrow, so that they can be read on a telephone."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nagkit.errors import unknown
from nagkit.study import drawing, figures

WIDTH = 4.9
POOLS = ("random", "largest", "hand-rule", "sorted", "published", "ours-score", "ours-exact", "ours-diverse")
TRAINED = ("random-search", "bo", "largest", "hand-rule", "every-cell", "metad2a-style", "tnas-style", "ours-score")
PRINTED = {"metad2a-style": "metad2a", "tnas-style": "tnas", "ours-score": "diffusionnag"}
METHODS = (
    "random-search", "gcn", "evolution", "local-search", "bonas", "dngo", "bohamiann", "bananas", "gp", "ridge", "guided-copy",
)  # fmt: skip
PAPERS = "diffusionnag-bo"
SMALLEST = 0.02
"""A regret below this, none included, is drawn here: the axis is logarithmic."""
GROUPS = {row: "ours" for row in (*POOLS, *TRAINED) if row.startswith("ours")}


def pools(frame: pd.DataFrame) -> Figure:
    """Mean accuracy of generated pools beside lists without a network, with the number of distinct cells, from `table3`."""
    columns = ("cifar10", "cifar100")
    figure = figures.points(
        frame, "mean", rows=POOLS, columns=columns, groups=GROUPS, reference="diffusionnag", wrap=1, share=False,
        width=WIDTH, xlabel="mean test accuracy of a pool of 1,000 (%)",
    )  # fmt: skip
    for ax, column in zip(figure.axes, columns, strict=True):
        cells = drawing.chosen(frame, "distinct", POOLS, column)["value"]
        for y, count in enumerate(["distinct\ncells", *(f"{count:.0f}" for count in cells)], start=-1):
            ax.text(1.03, y, count, transform=ax.get_yaxis_transform(), va="center", fontsize=8, color=drawing.MUTED)
    return figure


def trained(frame: pd.DataFrame) -> Figure:
    """Architectures trained until the optimum, from `table2`; a row without a mark gets there in less than half of its runs."""
    metric, known = "until-optimum", frame["metric"] == "trained"
    return figures.points(
        frame.assign(metric=frame["metric"].where(~known, metric)), metric, rows=TRAINED, columns=("cifar10", "cifar100"),
        groups=GROUPS, paper=PRINTED, wrap=1, log=True, width=WIDTH, xlabel="architectures trained until the optimum (median)",
    )  # fmt: skip


def regret(frame: pd.DataFrame) -> Figure:
    """How far the best of 1 to 20 trained architectures is from the optimum, from `table2`."""
    metrics = ("cifar10 regret", "cifar100 regret")
    return figures.curves(
        frame, metrics, rows=TRAINED, x="architectures trained", log="xy", floor=SMALLEST, wrap=1, width=WIDTH
    )


def search(frame: pd.DataFrame) -> Figure:
    """What Bayesian optimisation with guided proposals has more than each other method after 100 evaluations, `figure3`.

    The paper's differences are those of the accuracies that it prints, of one oracle.
    """
    metrics = ["difference of ofa incumbent", "difference of measured-surrogate incumbent"]
    rows = [f"guided minus {method}" for method in METHODS]
    part = drawing.chosen(frame, metrics, rows, "100").sort_values("value", ascending=False)
    rows = part.loc[part["metric"] == metrics[0], "row"]
    paper = drawing.chosen(frame, "ofa incumbent", columns="100", of="paper").set_index("row")
    known = paper.assign(value=paper.loc[PAPERS, "value"] - paper["value"], metric=metrics[0], lo=np.nan, hi=np.nan)
    known = known.drop(index=PAPERS).reset_index().assign(row=lambda gaps: "guided minus " + gaps["row"])
    printed = {row: row for row in known["row"] if row in set(rows)}
    words = "accuracy of DiffusionNAG + BO\nminus that of the other method (points)"
    part = pd.concat([part, known])
    return figures.points(part, metrics, rows=rows, zero=0, paper=printed, width=WIDTH, xlabel=words)


FIGURES: dict[str, tuple[str, str, Callable[[pd.DataFrame], Figure]]] = {
    "pools": ("table3", "mean|distinct", pools),
    "trained": ("table2", "until-optimum|trained", trained),
    "regret": ("table2", "cifar100? regret", regret),
    "search": ("figure3", "difference of .* incumbent", search),
}
"""Name of a figure: the results it is drawn from, a pattern of the metrics it shows, and the function that draws it."""


def front(name: str, tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The front page's figure `name`, drawn from `tables`, the tidy frames of the results by name.

    >>> front("pools", {"table3": tidy.read_csv(path)})
    """
    if name not in FIGURES:
        raise unknown("front figure", name, FIGURES)
    results, _, draw = FIGURES[name]
    return draw(tables[results])
