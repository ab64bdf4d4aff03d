"""Figures of unguided generation: error kinds, validity while a network trains, and drawings of MBv3 networks."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nagkit.report.plots import DASHES, MARKERS, NAMES, PALETTE, STYLE, plain_log


def error_bars(frame: pd.DataFrame) -> Figure:
    """What happens to raw draws, one panel a space: valid, or why not, in percent, from the tidy rows of `table4`.

    Rows of origin "ours" make the bars; the paper's validity is a black marker beside the row of the same network.
    """
    ours = frame[frame["origin"] == "ours"]
    spaces = list(ours["column"].unique())
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(spaces), 1, figsize=(10.5, 0.8 + 3.3 * len(spaces)), sharex=True, squeeze=False)
        for ax, space in zip(axes[:, 0], spaces, strict=True):
            part = ours[ours["column"] == space]
            kinds = [metric for metric in part["metric"].unique() if metric.startswith("error: ")]
            wide = part[part["metric"].isin(["validity", *kinds])].pivot(index="row", columns="metric", values="value")
            rows = [row for row in part["row"].unique() if row in wide.index]
            y, left = np.arange(len(rows))[::-1], np.zeros(len(rows))
            for i, metric in enumerate(["validity", *(kind for kind in kinds if wide[kind].max() > 0)]):
                width, colour = wide.loc[rows, metric].to_numpy(), ("#D9D9D9", *PALETTE)[i]
                ax.barh(y, width, 0.72, left, color=colour, label="valid" if i == 0 else metric.removeprefix("error: "))
                left += width
            for height, row in zip(y, rows, strict=True):
                ax.text(101, height, f"{wide.loc[row, 'validity']:.1f} % valid", va="center", fontsize=10.5)
            ax.set_yticks(y, rows)
            ax.set(xlim=(0, 100), title=NAMES[space])
            ax.grid(visible=False, axis="y")
            ax.legend(loc="upper left", bbox_to_anchor=(1.2, 1.0))
        axes[-1, 0].set_xlabel("share of the raw draws (%)")
    plt.close(figure)
    return figure


def validity_curves(
    curves: pd.DataFrame, *, plateau: Mapping[str, float] | None = None, paper: Mapping[str, Mapping[str, float]] | None = None
) -> Figure:
    """Valid draws (percent) against training minutes, one panel a space, one line a training seed.

    `curves` has `space, row, seed, minutes, valid`. `plateau[space]` is a reference line; `paper[space][row]` what the paper
    prints for the same network, a hollow marker at the right edge.
    """
    spaces = list(curves["space"].unique())
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(spaces), figsize=(10.5, 4.6), sharey=True)
        for ax, space in zip(np.atleast_1d(axes), spaces, strict=True):
            part = curves[curves["space"] == space]
            for i, row in enumerate(part["row"].unique()):
                for j, (_, line) in enumerate(part[part["row"] == row].groupby("seed")):
                    ax.plot(line["minutes"], line["valid"], color=PALETTE[i], ls=DASHES[i], marker=MARKERS[i], ms=4, lw=1.6,
                            label=row if j == 0 else None)  # fmt: skip
                printed = (paper or {}).get(space, {}).get(row)
                if printed is not None:
                    ax.plot(1.0, printed, MARKERS[i], color=PALETTE[i], mfc="white", ms=10, mew=2, clip_on=False, zorder=5,
                            transform=ax.get_yaxis_transform())  # fmt: skip
            if space in (plateau or {}):
                ax.axhline(plateau[space], color="#777777", lw=1.2, ls=":")
                ax.text(0.98, plateau[space] - 1.5, f"slots 3 and 4 uncoupled: {plateau[space]:.1f} %", color="#555555",
                        fontsize=10, ha="right", va="top", transform=ax.get_yaxis_transform())  # fmt: skip
            ax.set(xlabel="training minutes (one core)", title=NAMES[space], ylim=(-2, 102), xlim=(0, None))
        np.atleast_1d(axes)[0].set_ylabel("valid draws (%)")
        handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
        handles.append(plt.Line2D([], [], ls="", marker="o", mfc="white", mec="#444444", mew=2, ms=9))
        figure.legend(handles, [*labels, "the paper's figure"], loc="outside lower center", ncols=4)
    plt.close(figure)
    return figure


def sampler_panels(frame: pd.DataFrame, labels: Sequence[str], *, floor: str = "exact draws") -> Figure:
    """Distance to the law against network calls, one panel a label, from the rows "total variation: LABEL"."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(labels), figsize=(10.5, 4.6), sharey=True, squeeze=False)
        names = [row for row in frame["row"].unique() if row != floor]
        for ax, label in zip(axes[0], labels, strict=True):
            part = frame[frame["metric"] == f"total variation: {label}"]
            for row in part["row"].unique():
                line = part[part["row"] == row].assign(calls=lambda rows: rows["column"].astype(int)).sort_values("calls")
                if row == floor:
                    ax.axhspan(*line.iloc[0][["lo", "hi"]], color="#999999", alpha=0.35, lw=0)
                    ax.axhline(line["value"].iloc[0], color="#777777", lw=1.2, ls=":", label=floor)
                    continue
                i = names.index(row)
                ax.plot(line["calls"], line["value"], color=PALETTE[i], ls=DASHES[i], marker=MARKERS[i], ms=5.5, label=row)
                ax.fill_between(line["calls"], line["lo"], line["hi"], color=PALETTE[i], alpha=0.18, lw=0)
            ax.set(xscale="log", yscale="log", xlabel="network calls", title=label)
            plain_log(ax.xaxis, [5, 10, 20, 50, 100, 200], ax.get_xlim()[1])
            plain_log(ax.yaxis, [0.01, 0.02, 0.05, 0.1, 0.2, 0.5], 1)
        axes[0, 0].set_ylabel("total variation to the law\n(mean over slots)")
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4)
    plt.close(figure)
    return figure
