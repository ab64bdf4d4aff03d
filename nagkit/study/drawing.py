"""What all figures share: a theme, the choice of tidy rows and their words, keys beneath the panels, plain logarithmic axes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from io import BytesIO
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import seaborn.objects as so
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from nagkit.errors import NagkitError, unknown
from nagkit.study.estimates import RANGES, half_width
from nagkit.study.labels import label

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 1.6)), (0, (6, 1.5, 1.2, 1.5)), (0, (1.2, 1.2)), (0, (4, 1, 1, 1, 1, 1)), (0, (8, 2)), "-", (0, (2, 2)))
INK, MUTED, FAINT = "#222222", "#6A6A6A", "#E2E2E2"
WIDTH = 7.2
"""Inches, with letters of 10 points: at half the width of a page they are as large as a footnote's."""
DOTTED, DASHED = ({"color": INK, "lw": 1.1, "ls": (0, dashes)} for dashes in ((1.2, 1.2), (5, 2)))
PAPER = {"marker": "D", "ls": "", "mfc": "white", "mec": INK, "mew": 1.3, "ms": 6, "label": "the paper's"}
_RANGES = RANGES | {"p": (0.0, 1.0)}
Names = str | Iterable[str] | None


def theme() -> dict:
    """Matplotlib settings of every figure: a white ground, which the book's style sheet inverts on a dark page."""
    return sns.axes_style("whitegrid") | sns.plotting_context("paper") | {
        "axes.edgecolor": "#A0A0A0", "axes.labelcolor": INK, "axes.labelsize": 10, "axes.linewidth": 0.8,
        "axes.spines.right": False, "axes.spines.top": False, "axes.titlelocation": "left", "axes.titlesize": 10,
        "axes.titleweight": "bold", "figure.dpi": 144, "font.family": ["DejaVu Sans"], "font.size": 10, "grid.color": FAINT,
        "legend.fontsize": 9, "legend.frameon": False, "legend.title_fontsize": 10, "svg.fonttype": "path",
        "text.color": INK, "xtick.labelcolor": INK, "xtick.labelsize": 9, "ytick.labelcolor": INK, "ytick.labelsize": 9,
    }  # fmt: skip


def rendered(figure: Figure, name: str, kind: str = "svg") -> bytes:
    """The file of a figure, "svg" or "png": the same bytes for the same data and `name`."""
    content = BytesIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return content.getvalue()


def themed(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    @wraps(draw)
    def drawn(*args, **options) -> Figure:
        with rc_context(theme()):
            figure = draw(*args, **options)
            figure.draw_without_rendering()  # ticks that are made later would not have the theme
        return figure

    return drawn


# Choosing -------------------------------------------------------------------------------------------------------------


def listed(names: Names) -> list[str]:
    """One name or several as a list."""
    return [names] if isinstance(names, str) else list(map(str, () if names is None else names))


def chosen(frame: pd.DataFrame, metrics: Names, rows: Names = None, columns: Names = None, of: str = "ours") -> pd.DataFrame:
    """The tidy rows of origin `of` with these identifiers, in their order, intervals cut to the range of the quantity.

    >>> list(chosen(frame, "mean", rows="random")["column"])
    ['cifar10', 'cifar100']
    """
    part = frame[frame["origin"] == of].astype({"row": str, "column": str})
    for kind, names in (("metric", metrics), ("column", columns), ("row", rows)):
        there = list(part[kind].unique())
        names = there if names is None else listed(names)
        for name in names:
            if name not in there:
                raise unknown(kind, name, there)
        part = part[part[kind].isin(names)]
        part = part.sort_values(kind, key=lambda values, order=names: values.map(order.index), kind="stable")
    if not part["value"].notna().any():
        raise NagkitError(f"nothing to draw of metric {metrics!r}, rows {rows or 'of any name'}; choose some with values")
    free = part["row"].str.contains(" minus ") | part["metric"].str.contains("difference|change|minus")
    ranges = [(-np.inf, np.inf) if f else _RANGES.get(u, (-np.inf, np.inf)) for f, u in zip(free, part["unit"], strict=True)]
    low, high = np.array(ranges, float).T
    return part.assign(lo=part["lo"].clip(low, high), hi=part["hi"].clip(low, high), difference=free)


def runs(values: Mapping[str, Mapping[str, np.ndarray]], *, first: int = 1, unit: str = "%") -> pd.DataFrame:
    """Tidy rows of means and 95 % t intervals from single runs, `values[metric][row]` float `(runs, steps)`, for `curves`.

    >>> curves(runs({"best so far": {"random": np.random.rand(30, 100)}}, first=20), "best so far", x="evaluations")
    """
    parts = []
    for metric, rows in values.items():
        for row, run in rows.items():
            run = np.asarray(run, np.float64)[:, first - 1 :]
            mean, half = run.mean(axis=0), half_width(run)
            fixed = {"row": row, "metric": metric, "n": len(run), "unit": unit, "origin": "ours"}
            numbers = {"column": np.arange(first, first + len(mean)), "value": mean, "lo": mean - half, "hi": mean + half}
            parts.append(pd.DataFrame(numbers).assign(**fixed))
    return pd.concat(parts, ignore_index=True)


def quantity(part: pd.DataFrame) -> str:
    """The words for an axis of these rows: the metric and its unit; differences of percentages are in points.

    >>> quantity(chosen(frame, "mean"))
    'mean accuracy (%)'
    """
    metric, unit, difference = part[["metric", "unit", "difference"]].iloc[0]
    unit = "points" if unit == "%" and difference else "" if unit in ("count", "τ", "ρ", "p") else unit
    return f"{label(metric)} ({unit})" if unit else label(metric)


def counted(part: pd.DataFrame, what: str) -> str:
    """What the intervals or bands of these rows are, and how many runs there are: "95 % intervals, n = 3 to 15"."""
    n = part["n"].dropna()
    return what if n.empty else f"{what}, n = {n.min():.0f}" + (f" to {n.max():.0f}" if n.max() > n.min() else "")


def printed(frame: pd.DataFrame, paper: Mapping[str, str] | None, metrics: Names, columns: Names = None) -> pd.DataFrame:
    """The paper's numbers under the names of our rows, for the metrics and columns that it has."""
    there = frame[frame["metric"].isin(listed(metrics))]
    there = there if columns is None else there[there["column"].astype(str).isin(listed(columns))]
    pairs = (paper or {}).items() if there["origin"].eq("paper").any() else ()
    named = [chosen(there, None, theirs, None, "paper").assign(row=ours) for ours, theirs in pairs]
    return pd.concat(named or [frame[:0]])


def singles(single: pd.DataFrame | None, part: pd.DataFrame) -> pd.DataFrame:
    """The single values of the rows, columns and metrics of `part`."""
    keys = ["row", "column", "metric"]
    if single is None:
        return part[:0]
    there = pd.MultiIndex.from_frame(single[keys].astype(str)).isin(pd.MultiIndex.from_frame(part[keys]))
    return single[there].astype({"row": str, "column": str})


# Drawing --------------------------------------------------------------------------------------------------------------


def blank(height: float, width: float = WIDTH) -> Figure:
    """A figure without panels, in inches."""
    figure = plt.figure(figsize=(width, height), layout="constrained")  # and not Figure, which notebooks show as text
    plt.close(figure)
    figure.get_layout_engine().set(w_pad=0.06)
    return figure


def legend(figure: Figure, handles: Iterable = (), title: str = "", note: str = "") -> None:
    """What the panels share, beneath them: the label of their axis, what the intervals are, and the keys. The figure grows."""
    handles, words = list(handles), [*filter(None, (title, f"({note})" if note else ""))]
    longest = max((len(handle.get_label()) for handle in handles), default=0)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / (0.6 + 0.069 * longest))))
    figure.set_figheight(figure.get_figheight() + 0.18 * len(words) + 0.19 * -(-len(handles) // columns))
    style = {"ncols": columns, "handlelength": 2.6, "columnspacing": 1.4, "borderpad": 0.1}
    made = figure.legend(handles=handles, loc="outside lower center", title="\n".join(words), **style)
    made.get_title().set_multialignment("center")


def titled(ax: Axes, title: str, inches: float) -> None:
    """A title over a panel of that width, on as many lines as it needs."""
    ax.set_title(fill(title, max(8, int(inches * 11))), loc="left")


def styles(names: Sequence[str], grey: Sequence[str] = ()) -> dict[str, dict]:
    """Colour, dashes and marker of each line; `grey` ones are thin references without marks."""
    made, bright = {}, [name for name in names if name not in grey]
    for name in names:
        i = list(grey).index(name) if name in grey else bright.index(name)
        own = {"color": PALETTE[i % 8], "marker": MARKERS[i % 8], "lw": 1.9, "ms": 5}
        thin = {"color": "#808080", "marker": "", "lw": 1.2, "ms": 0}
        made[name] = (thin if name in grey else own) | {"ls": DASHES[(i + i // 8) % 8]}
    return made


def plain_log(axis, inches: float, marks: Iterable[float] | None = None) -> None:
    """Plain numbers on a logarithmic `axis` of that length: at `marks`, or at round numbers; none collide."""
    low, high = sorted(axis.get_view_interval())
    named: list[float] = []
    if marks is None:
        steps = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))
        rulers = [[step * 10.0**k for k in range(-9, 10) for step in some] for some in steps]
        rulers.append(list(np.linspace(low, high, 4).round(2)))
        marks = next(ruler for ruler in rulers if sum(low <= mark <= high for mark in ruler) > 2 or ruler is rulers[-1])
    for mark in sorted(marks):
        letters = len(f"{mark:g}{named[-1]:g}") / 2 + 1 if named and axis.axis_name == "x" else 2.5
        if low <= mark <= high and (not named or np.log(mark / named[-1]) / np.log(high / low) * inches > 0.085 * letters):
            named.append(mark)
    axis.set_major_locator(FixedLocator(named))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda mark, _: f"{mark:g}"))


def faceted(figure: Figure, data: pd.DataFrame, wrap: int, **share: bool) -> so.Plot:
    """A plot on `figure`, a panel for each value of the column `panel`, `wrap` to a line; layers must be subsets of `data`."""
    panels = list(dict.fromkeys(data["panel"]))
    plot = so.Plot(data).facet(col="panel", order=panels, wrap=wrap if wrap < len(panels) else None).share(**share)
    return plot.theme(theme()).on(figure).label(x="", y="", col="")


def lines(figure: Figure, data: pd.DataFrame, looks: Mapping[str, dict], wrap: int, sharey: bool) -> list[Axes]:
    """Lines, marks and bands of `data` (panel, row, order, x, value, lo, hi, n); references of one mark cross their panel."""
    keys = {"color": "color", "linestyle": "ls", "marker": "marker", "linewidth": "lw"}
    scales = {name: so.Nominal({row: style[key] or "o" for row, style in looks.items()}) for name, key in keys.items()}
    data = data.sort_values("order", kind="stable")
    thin = data["row"].map(lambda row: not looks[row]["marker"])
    level = thin & data.groupby(["panel", "row"])["x"].transform("size").eq(1)
    drawn, words = data[~level], {"x": "x", "color": "row", "legend": False}
    plot = faceted(figure, data.sort_values("panel", kind="stable"), wrap, x=False, y=sharey).scale(**scales)
    plot = plot.add(so.Band(alpha=0.15), data=drawn[drawn["n"].fillna(0) > 3], ymin="lo", ymax="hi", **words)
    plot = plot.add(so.Path(), data=drawn, y="value", linestyle="row", linewidth="row", **words)
    if drawn.groupby(["panel", "row"])["x"].size().max() < 25:
        plot = plot.add(so.Dot(pointsize=5), data=data[~level & ~thin], y="value", marker="row", **words)
    plot.plot()
    for entry in data[level].itertuples():
        style, ax = {key: looks[entry.row][key] for key in ("color", "ls", "lw")}, figure.axes[int(entry.panel)]
        ax.axhline(entry.value, **style)
        ax.axhspan(entry.lo, entry.hi, color=style["color"], alpha=0.2, lw=0)
    return figure.axes
