"""Figures of tidy results, drawn with seaborn in one theme that is safe for colour-blind readers (Okabe & Ito, 2008).

Each function chooses from a frame of tidy rows (`row, column, metric, value, lo, hi, n, unit, origin`) by identifiers, writes
the words of data/labels.yaml, and returns a figure that no window holds: a notebook shows it as the value of its cell. Ours are
filled marks, the paper's hollow diamonds. An interval ends where its quantity ends; up to three runs have marks and no band. A
metric, row or column that is not there, and a choice without values, are `NagkitError`s. In examples `frame` is such a frame.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
import seaborn.objects as so
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from nagkit.errors import NagkitError
from nagkit.spaces.base import SearchSpace
from nagkit.study import drawing
from nagkit.study.drawing import DASHED, DOTTED, INK, MUTED, PALETTE, PAPER, WIDTH, Names, chosen, quantity, themed, titled
from nagkit.study.labels import label


@themed
def points(
    frame: pd.DataFrame, metrics: Names, *, rows: Names = None, columns: Names = None, y: str = "row",
    zero: float | None = None, paper: Mapping[str, str] | None = None, reference: str = "",
    groups: Mapping[str, str] | None = None, single: pd.DataFrame | None = None,
    wrap: int = 9, share: bool = True, log: bool = False, xlabel: str = "", width: float = WIDTH,
) -> Figure:  # fmt: skip
    """Values with 95 % intervals: a line for each `y` ("row" or "column"), a panel for each other name that varies.

    Rows "A minus B" share a line for each B, and the A have colours; with one A and a `zero`, the colour says on which side of
    it the interval lies. `groups` gives rows the colour of a group, named beneath. `paper` maps our rows to the paper's, drawn
    as hollow diamonds; `reference` is a row of the paper's, drawn as a dashed line. `single`, a frame of `row, column, metric,
    value`, are the values that the means are of: small dots, for few runs.

    >>> points(frame, "mean", paper={"published": "DiffusionNAG"})
    >>> points(frame, "difference of mean", rows=["ours minus random", "ours minus largest"], zero=0)
    """
    metrics, columns = drawing.listed(metrics), columns if columns is None else drawing.listed(columns)
    part, theirs = chosen(frame, metrics, rows, columns), drawing.printed(frame, paper, metrics, columns)
    known = drawing.printed(frame, {reference: reference} if reference else None, metrics, columns)
    split = y == "row" and bool(part["row"].str.contains(" minus ").all())
    others = [kind for kind in ("metric", "row", "column") if kind != y and part[kind].nunique() > 1]
    kinds = {"ours": part, "paper": theirs, "line": known, "single": drawing.singles(single, part)}
    data = pd.concat([each.assign(of=of) for of, each in kinds.items()], ignore_index=True)
    data["panel"] = [", ".join(map(label, names)) for names in data[others].to_numpy()]
    data["name"] = data[y].str.split(" minus ").str[-1].map(label)
    first = data["row"].str.split(" minus ").str[0] if split else ""
    data["series"] = data["row"].map(groups).fillna("others") if groups else first
    part, theirs, known, dots = (data[data["of"] == of] for of in kinds)
    series, names, panels = (list(dict.fromkeys(part[kind])) for kind in ("series", "name", "panel"))
    colours = {name: PALETTE[i % 8] for i, name in enumerate(series)} | ({"others": PALETTE[7]} if groups else {})
    if len(series) == 1 and zero is not None:
        colours = {"above": PALETTE[0], "below": PALETTE[1], "open": PALETTE[7]}
        part = part.assign(series=np.select([part["lo"] > zero, part["hi"] < zero], ["above", "below"], "open"))
    side, dodged = min(wrap, len(panels)), len(series) if split and not groups else 1
    move = [so.Dodge(empty="fill")] if dodged > 1 else []
    tall = -(-len(panels) // side) * (0.45 + (0.15 + 0.1 * dodged) * len(names))
    figure = drawing.blank(0.3 + tall, width)
    plot = drawing.faceted(figure, data, wrap, x=share).scale(y=so.Nominal(order=names), color=so.Nominal(colours))
    words = {"data": part, "y": "name", "color": "series", "legend": False}
    plot = plot.add(so.Range(linewidth=2.6, alpha=0.45), *move, xmin="lo", xmax="hi", **words)
    if len(dots):
        plot = plot.add(so.Dot(pointsize=2.5, color=INK, alpha=0.6), data=dots, x="value", y="name", legend=False)
    plot = plot.add(so.Dot(pointsize=5.5), *move, x="value", **words)
    hollow = so.Dot(marker="D", fill=False, color=INK, stroke=1.4, pointsize=6)
    (plot.add(hollow, data=theirs, x="value", y="name", legend=False) if len(theirs) else plot).plot()
    room = (width - 0.085 * max(map(len, names))) / side
    for ax, title in zip(figure.axes, panels, strict=True):
        ax.grid(axis="x")
        ax.xaxis.set_major_locator(MaxNLocator(max(2, int(room / 0.55)), steps=[1, 2, 5, 10]))
        if log:
            ax.set_xscale("log")
            drawing.plain_log(ax.xaxis, room)
        if zero is not None:
            ax.axvline(zero, zorder=0.9, **DOTTED)
        levels = known.loc[known["panel"] == title, "value"]
        for value in levels:
            ax.axvline(value, zorder=0.9, **DASHED)
        titled(ax, "; ".join(filter(None, (title, *(f"paper {value:.2f}" for value in levels)))), room)
    bar = {"marker": "o", "lw": 2.6}
    named = {name: label(name) + ", minus" * (dodged > 1) for name in series if len(series) > 1}
    keys = [Line2D([], [], color=colours[name], label=words, **bar) for name, words in named.items()]
    keys += [Line2D([], [], **PAPER)] * bool(len(theirs))
    keys += [Line2D([], [], label=f"paper: {label(reference)}", **DASHED)] * bool(reference)
    note = drawing.counted(part, "95 % intervals" if part["lo"].notna().any() else "values")
    drawing.legend(figure, keys, xlabel or quantity(part), note)
    return figure


@themed
def curves(
    frame: pd.DataFrame, metrics: str | Sequence[str | tuple[str, str]], *, rows: Names = None, x: str = "", log: str = "x",
    grey: Sequence[str] = (), lines: Mapping[str, Mapping[str, float]] | None = None,
    optimum: Mapping[str, float] | None = None, paper: Mapping[str, str] | None = None, floor: float = -np.inf,
    numbered: str = "", single: pd.DataFrame | None = None, wrap: int = 2, sharey: bool = False, width: float = WIDTH,
) -> Figure:  # fmt: skip
    """Values against the numbers that the columns are, a panel a metric, with bands of 95 % from four runs on.

    A pair `(metric, other)` is drawn against the other metric of the same row and column, or where there is none against the
    column. `log` names logarithmic axes ("", "x", "y", "xy"). Rows in `grey` are thin references, across the panel where they
    have one column, and `lines[words][metric]` levels. `optimum[metric]` turns values into distances to it, `floor` is the
    smallest that is drawn. `paper` maps our rows to the paper's; the row `numbered` has its columns written at its marks.
    `single`, a frame of `row, column, metric, value`, are the values that the means are of: small dots, for few runs.

    >>> curves(frame, ["total variation", ("total variation", "time")], x="network calls", log="xy", grey=["exact draws"])
    >>> curves(frame, [("mean", "distinct")], log="xy", optimum={"mean": 94.37}, lines={"paper: mean": {"mean": 93.13}})
    """
    parts, panels = [], []
    for metric in [metrics] if isinstance(metrics, str) else metrics:
        metric, other = (metric, "") if isinstance(metric, str) else metric
        part = chosen(frame, metric, rows).assign(printed=False)
        part = pd.concat([part, drawing.printed(frame, paper, metric).assign(printed=True)])
        numbers = pd.to_numeric(part["column"], errors="coerce")
        if numbers.isna().any():
            raise NagkitError(f"column {part['column'][numbers.isna()].iloc[0]!r} is no number; curves need numbers as columns")
        across = chosen(frame, other) if other else part[:0]
        place = dict(zip(zip(across["row"], across["column"], strict=True), across["value"], strict=True))
        at = [place.get(key, n) for key, n in zip(zip(part["row"], part["column"], strict=True), numbers, strict=True)]
        part = part.assign(order=numbers, x=at, panel=str(len(panels)))
        dots = drawing.singles(single, part).set_index(["row", "column"])["value"]
        title, levels = quantity(part), [value[metric] for value in (lines or {}).values() if metric in value]
        if metric in (optimum or {}):
            part[["value", "lo", "hi"]] = optimum[metric] - part[["value", "hi", "lo"]].to_numpy()
            title = f"{label(metric)}: points below {optimum[metric]:.2f} %"
            levels, dots = [optimum[metric] - value for value in levels], optimum[metric] - dots
        part[["value", "lo", "hi"]] = part[["value", "lo", "hi"]].clip(lower=floor)
        parts.append(part)
        panels.append((title, quantity(across) if other else x, levels, dots.clip(lower=floor)))
    data, shared = pd.concat(parts, ignore_index=True), len({words for _, words, *_ in panels}) == 1
    looks, side = drawing.styles(list(dict.fromkeys(data["row"])), grey), min(wrap, len(panels))
    figure, inches = drawing.blank(0.15 + 2.45 * -(-len(panels) // side), width), width / side - 0.7
    axes = drawing.lines(figure, data[~data["printed"]], looks, wrap, sharey or len({title for title, *_ in panels}) == 1)
    for number, (ax, (title, words, levels, dots)) in enumerate(zip(axes, panels, strict=True)):
        shown = data[data["panel"] == str(number)]
        for (row, column), value in dots.items():
            ax.plot(float(column), value, ".", ms=4, color=looks[row]["color"], alpha=0.6)
        for row, theirs in shown[shown["printed"]].groupby("row"):
            ax.plot(theirs["x"], theirs["value"], zorder=5, **PAPER | {"mec": looks[row]["color"]})
        for level, style in zip(levels, (DOTTED, DASHED), strict=False):
            ax.axhline(level, zorder=0.9, **style)
        ax.set(xscale="log" if "x" in log else "linear", yscale="log" if "y" in log else "linear")
        seen = [*(data if sharey else shown)["value"].dropna(), *levels]  # and not the bands, which may be far wider
        low, high, room = min(seen), max(seen), 0.08 * np.ptp(seen) or 1.0
        ax.set_ylim((low / 1.2, high * 1.2) if "y" in log else (low - room, high + room))
        last = np.full(2, -np.inf)
        for entry in shown[shown["row"] == numbered].sort_values("order").itertuples():
            spot = ax.transData.transform((entry.x, entry.value))
            if np.hypot(*(spot - last)) > 26:  # pixels, so that no two numbers collide
                text, last = {"textcoords": "offset points", "fontsize": 8, "color": MUTED}, spot
                ax.annotate(f"{entry.order:g}", (entry.x, entry.value), (6, 3), **text)
        if "x" in log:
            drawing.plain_log(ax.xaxis, inches, shown["x"].unique() if shown["x"].nunique() < 12 else None)
        if "y" in log:
            drawing.plain_log(ax.yaxis, 2.0)
        ax.set_xlabel("" if shared else words)
        titled(ax, title, inches + 0.35)
    keys = [Line2D([], [], label=label(row), **style) for row, style in looks.items()]
    keys += [Line2D([], [], **PAPER)] * bool(data["printed"].any())
    keys += [Line2D([], [], label=words, **style) for words, style in zip(lines or {}, (DOTTED, DASHED), strict=False)]
    ours = data[~data["printed"] & ~data["row"].isin(grey)]
    note = drawing.counted(ours, "bands: 95 %" if (ours["n"] > 3).any() else "means")
    drawing.legend(figure, keys, panels[0][1] if shared else "", note)
    return figure


@themed
def pools(
    values: Mapping[str, Mapping[str, np.ndarray]], *, low: Mapping[str, float] | None = None,
    paper: Mapping[str, float] | None = None, xlabel: str = "test accuracy (%)",
) -> Figure:  # fmt: skip
    """Histograms of pools, `values[column][row]` being all draws or equally probable quantiles; triangles are the means.

    Draws below `low[column]` are off the axis and their share is written; `paper[column]` is a mean, a dashed line.

    >>> pools({"cifar10": {"random": accuracy[cells], "ours-exact": accuracy[drawn]}}, low={"cifar10": 80})
    """
    rows = list(dict.fromkeys(row for each in values.values() for row in each))
    if not sum(len(pool) for each in values.values() for pool in each.values()):
        raise NagkitError("no pool to draw; give at least one row with values")
    figure = drawing.blank(0.35 + 0.7 * len(rows))
    axes = figure.subplots(len(rows), len(values), squeeze=False, sharex="col")
    for column, (name, each) in enumerate(values.items()):
        every = np.concatenate([np.asarray(pool, float) for pool in each.values()])
        start, end = (low or {}).get(name, every.min()), every.max()
        for ax, row, colour in zip(axes[:, column], rows, PALETTE * len(rows), strict=False):
            pool, words = np.asarray(each.get(row, ()), float), "no valid draw"
            if len(pool):
                shown = pd.DataFrame({"accuracy": pool, "share": 100 / len(pool)})  # of all draws, those off the axis too
                edges = list(np.linspace(start, end, 51))
                sns.histplot(shown, x="accuracy", weights="share", bins=edges, ax=ax, color=colour, lw=0)
                ax.plot(max(pool.mean(), start), 0, "^", color=INK, ms=6, clip_on=False, zorder=5)
                off = 100 * (pool < start).mean()
                words = f"mean {pool.mean():.2f}, min {pool.min():.2f}" + f", {off:.1f} % off" * bool(off)
            if name in (paper or {}):
                ax.axvline(paper[name], **DASHED)
            ax.set(xlim=(start, end), ylabel="", yticks=[], xlabel="")
            ax.set_title(label(row) * (column == 0), fontsize=9, pad=2)
            ax.set_title(words, fontsize=8, pad=2, loc="right", color=MUTED, fontweight="normal")
            ax.grid(False)
            ax.spines["left"].set_visible(False)
        known = f", paper {paper[name]:.2f}" if name in (paper or {}) else ""
        axes[-1, column].set_xlabel(label(name) + known, fontweight="bold")
    note = "each pool to its own highest bar; triangles: means" + "; dashed: the paper's" * bool(paper)
    drawing.legend(figure, [], xlabel, note)
    return figure


@themed
def samples(values: pd.DataFrame, *, xlabel: str, wrap: int = 2) -> Figure:
    """Single values, a frame of `row, column, run, value`: a panel a column, a line a row, and bars at the means of the runs.

    >>> samples(pd.DataFrame({"row": "random", "column": "mnist", "run": [0, 0, 1, 1], "value": [1, 2, 2, 3]}), xlabel="errors")
    """
    if values["value"].notna().sum() == 0:
        raise NagkitError("no values to draw; choose rows and columns that have some")
    data = values.assign(name=values["row"].map(label), panel=values["column"].map(label))
    names, panels = (list(dict.fromkeys(data[key])) for key in ("name", "panel"))
    side = min(wrap, len(panels))
    figure = drawing.blank(0.25 + -(-len(panels) // side) * (0.55 + 0.24 * len(names)))
    data["mean"] = data.groupby(["panel", "name", "run"])["value"].transform("mean")
    plot = drawing.faceted(figure, data, wrap, x=False).scale(y=so.Nominal(order=names))
    plot = plot.add(so.Dot(color=PALETTE[5], pointsize=3, alpha=0.7), so.Jitter(0.5, seed=0), x="value", y="name")
    plot.add(so.Dash(color=PALETTE[0], linewidth=2.4, width=0.7), x="mean", y="name").plot()
    for ax, title in zip(figure.axes, panels, strict=True):
        ax.grid(axis="x")
        titled(ax, title, WIDTH / side - 1)
    drawing.legend(figure, [], xlabel, "bars: means of the runs")
    return figure


@themed
def scatter(
    data: pd.DataFrame, x: str, y: str, *, faint: Sequence[str] = (), steps: np.ndarray | None = None, log: str = "",
    wrap: int = 3, xlabel: str = "", ylabel: str = "",
) -> Figure:  # fmt: skip
    """A mark an architecture, from plain columns `x`, `y`, `row` and, for panels, `column`; rows in `faint` are small and grey.

    `steps`, float `(points, 2)`, is a front: the best that is possible so far.

    >>> scatter(pairs, "measured", "tuned", xlabel="inherited weights (%)", ylabel="fine-tuned (%)")
    """
    if data.empty:
        raise NagkitError("no architectures to draw; choose rows and columns that have some")
    data = data.assign(panel=data["column"].map(label) if "column" in data else "")
    looks, panels = drawing.styles(list(dict.fromkeys(data["row"])), faint), list(dict.fromkeys(data["panel"]))
    side, common = min(wrap, len(panels)), steps is not None
    figure = drawing.blank(0.3 + 2.4 * -(-len(panels) // side))
    scales = {key: so.Nominal({row: style[key] or "o" for row, style in looks.items()}) for key in ("color", "marker")}
    plot = drawing.faceted(figure, data, wrap, x=common, y=common).scale(**scales)
    small, words = data["row"].isin(faint), {"x": x, "y": y, "legend": False}
    plot = plot.add(so.Dot(pointsize=2, color="#9A9A9A"), data=data[small], **words) if small.any() else plot
    plot.add(so.Dot(pointsize=4.5, alpha=0.8), data=data[~small], color="row", marker="row", **words).plot()
    for cloud in (cloud for ax in figure.axes for cloud in ax.collections):
        cloud.set_rasterized(len(cloud.get_offsets()) > 500)  # or the SVG has megabytes
    for ax, title in zip(figure.axes, panels, strict=True):
        if common:
            ax.step(*np.asarray(steps).T, where="post", color=INK, lw=1.1)
        for name in log:
            ax.set(**{f"{name}scale": "log"})
            drawing.plain_log(getattr(ax, f"{name}axis"), WIDTH / side - 0.8)
        titled(ax, title, WIDTH / side - 0.3)
    figure.supylabel(ylabel, fontsize=10)
    marks = {row: style | {"ls": "", "marker": style["marker"] or "."} for row, style in looks.items()}
    keys = [Line2D([], [], label=label(row), **style) for row, style in marks.items()]
    keys += [Line2D([], [], color=INK, lw=1.1, label="front of the whole space")] * common
    drawing.legend(figure, keys, xlabel)
    return figure


@themed
def heat(
    frame: pd.DataFrame, metric: str, *, rows: Names = None, columns: Names = None, digits: int = 1, zero: float | None = None
) -> Figure:
    """Every row × column of a metric as a coloured cell with its number; with `zero`, two colours that part there.

    >>> heat(frame, "mean", rows=["clean", "own"], columns=["fog", "snow"])
    """
    part = chosen(frame, metric, rows, columns)
    grid = part.pivot(index="row", columns="column", values="value").reindex(part["row"].unique())[part["column"].unique()]
    grid = grid.rename(index=label, columns=label).round(digits) + 0.0  # no minus before a zero
    figure = drawing.blank(1.2 + 0.3 * len(grid))
    ax = figure.subplots()
    words = {"annot": True, "fmt": f".{digits}f", "annot_kws": {"fontsize": 8}, "linewidths": 1, "cbar": False}
    sns.heatmap(grid, ax=ax, center=zero, cmap="cividis" if zero is None else "vlag_r", **words)
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="y", rotation=0)
    ax.set_xticks(ax.get_xticks(), ax.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
    drawing.legend(figure, [], quantity(part), drawing.counted(part, "means"))
    return figure


@themed
def shares(
    frame: pd.DataFrame, metrics: Names, *, parts: str = "column", rows: Names = None, columns: Names = None,
    colours: Mapping[str, str] | None = None, xlabel: str = "share (%)",
) -> Figure:  # fmt: skip
    """Stacked bars, one a row: each metric in its columns (`parts="column"`), or each column in its metrics (`"metric"`).

    `colours` are those of parts; others have the palette's.

    >>> shares(frame, "share of operations", colours={"skip": "#56B4E9", "3×3": "#D55E00"})
    """
    data = chosen(frame, metrics, rows, columns)
    data = data.assign(panel=data["metric" if parts == "column" else "column"].map(label), name=data["row"].map(label))
    names, kinds, panels = (list(dict.fromkeys(data[key])) for key in ("name", parts, "panel"))
    colours = dict(zip(kinds, ("#C4C4C4", *PALETTE), strict=False)) | dict(colours or {})
    figure = drawing.blank(0.5 + 0.24 * len(names))
    plot = drawing.faceted(figure, data, 9).scale(y=so.Nominal(order=names), color=so.Nominal(colours, order=kinds))
    plot = plot.add(so.Bar(edgewidth=0, alpha=1), so.Stack(), x="value", y="name", color=parts, legend=False, orient="y")
    plot.plot()
    for ax, title in zip(figure.axes, panels, strict=True):
        ax.grid(False)
        ax.set_xlim(0, 100)
        titled(ax, title, WIDTH / len(panels) - 0.8)
    keys = [Patch(color=colours[kind], label=label(kind)) for kind in kinds]
    drawing.legend(figure, keys, xlabel, drawing.counted(data, "means"))
    return figure


@themed
def strip(
    space: SearchSpace, archs: np.ndarray, titles: Sequence[str] = (), *, wrap: int = 3, size: tuple[float, float] = (3.3, 2.6)
) -> Figure:
    """Drawings of architectures by their space, `wrap` to a line, each of `size` in inches.

    >>> strip(get_space("nb201"), cells, ["trained first", "trained second"])
    >>> strip(get_space("mbv3"), networks, wrap=1, size=(10.5, 2.0))
    """
    archs = np.atleast_2d(archs)
    if not archs.size:
        raise NagkitError("no architecture to draw; give at least one")
    side = min(wrap, len(archs))
    figure = drawing.blank(-(-len(archs) // side) * size[1], side * size[0])
    for number, arch in enumerate(archs):
        ax = figure.add_subplot(-(-len(archs) // side), side, number + 1, title=titles[number] if len(titles) else "")
        space.draw(ax, arch)
        ax.set_axis_off()
    return figure
