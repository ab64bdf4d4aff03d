"""The drawing of one NAS-Bench-201 cell."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch

from nagkit.errors import NagkitError
from nagkit.spaces import nb201

OP_STYLE = {  # label, colour
    nb201.NONE: ("none", "#C4C4C4"),
    nb201.SKIP: ("skip", "#56B4E9"),
    nb201.CONV1: ("1×1", "#E69F00"),
    nb201.CONV3: ("3×3", "#D55E00"),
    nb201.POOL: ("pool", "#009E73"),
}


def draw_cell(arch: np.ndarray, ax: Axes) -> None:
    """One NB201 cell: four feature maps in a line, one labelled arrow an operation.

    `none` is dotted and grey; an operation on no path from input to output is faded.
    """
    arch = np.asarray(arch)
    if arch.shape != (6,) or not nb201.Space().is_valid(arch[None]).all():
        raise NagkitError(f"a drawing needs one valid cell of six operations 0..4, got {arch.tolist()}")
    live = nb201.live_edges(arch[None])[0]
    bend = {(0, 2): -0.62, (1, 3): 0.62, (0, 3): -0.8}  # neighbours are joined straight; the others bow out of their way
    for op, (source, target), alive in zip(arch, nb201.EDGES, live, strict=True):
        name, colour = OP_STYLE[int(op)]
        curve = bend.get((source, target), 0.0)
        ax.add_patch(
            FancyArrowPatch(
                (source, 0), (target, 0), connectionstyle=f"arc3,rad={curve}", arrowstyle="-|>", mutation_scale=12,
                shrinkA=11, shrinkB=11, lw=2.2 if alive else 1.4, color=colour, alpha=1.0 if alive or op == nb201.NONE else 0.4,
                ls=":" if op == nb201.NONE else "-",
            )
        )  # fmt: skip
        height = -curve * (target - source) / 2  # the middle of a quadratic Bézier curve lies half way to its control point
        ax.text(
            (source + target) / 2, height, name, ha="center", va="center", fontsize=10.5,
            color="#222222" if alive else "#9A9A9A", bbox={"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none"},
        )  # fmt: skip
    for node, text in enumerate(("in", "1", "2", "out")):
        ax.plot(node, 0, "o", ms=22, mfc="#F4F4F4", mec="#444444", mew=1.2, zorder=3)
        ax.text(node, 0, text, ha="center", va="center", fontsize=10.5, zorder=4)
    ax.set(xlim=(-0.25, 3.25), ylim=(-0.85, 1.4), aspect="equal")
    ax.set_axis_off()
