"""Figures of searches, and of the oracles that they ask; style and rules as in `nagkit.report.plots`."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from nagkit.report.plots import MARKERS, PALETTE, STYLE, _closed, _panels


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
    return _closed(figure)
