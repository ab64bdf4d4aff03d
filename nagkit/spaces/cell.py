"""Cells of four feature maps whose six edges each carry one operation: what NAS-Bench-201 and its relatives share.

The generator sees a cell as its line graph (paper, section 2.1): eight nodes, namely the input, the six edges in the order of
the benchmark's string, and the output. A node carries one type: "input", "output", or one of the operations. The first
operation is always `none`, which cuts the edge, and the second a skip, which passes its input on.
"""

from collections.abc import Callable, Mapping
from functools import cache
from itertools import product

import numpy as np
import torch
from torch import Tensor

from nagkit.errors import NagkitError, unknown
from nagkit.spaces import base

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""(source, target) feature map of every slot, in string order."""
PATHS = ((3,), (0, 4), (1, 5), (0, 2, 5))
"""The ways from the input of a cell to its output, as slots."""
NONE, SKIP, CONV1, CONV3, POOL = range(5)
"""Places of the operations in `ops`; a relative without pools has the first four."""
_FIRST = 2  # column of the first operation in a code


class CellSpace:
    """What follows from the operations `ops` of a cell; `styles` are the label and the colour of each in a drawing.

    `adjacency` is "true" (the line graph of the cell) or "official" (the matrix of the published code, which wires the nodes
    of edges (1→2) and (0→3) the wrong way round: the true one with nodes 3 and 4 exchanged).
    """

    name: str
    title: str
    ops: tuple[str, ...]
    styles: tuple[tuple[str, str], ...]
    n_ops: int
    size: int
    null_rankings: Mapping[str, Callable]
    n_slots, n_nodes = 6, 8
    laws = ("uniform",)

    def __init__(self, adjacency: str = "true"):
        if adjacency not in ("true", "official"):
            raise unknown("adjacency", adjacency, ("true", "official"))
        order = [0, 1, 2, 4, 3, 5, 6, 7] if adjacency == "official" else range(self.n_nodes)
        self.adjacency = _line_graph()[np.ix_(order, order)]

    @property
    def allowed(self) -> np.ndarray:
        allowed = np.zeros((self.n_nodes, self.n_ops), bool)
        allowed[0, 0] = allowed[-1, 1] = True
        allowed[1:-1, _FIRST:] = True
        return allowed

    def all(self) -> np.ndarray:
        """Every cell, int8 `(size, 6)`, in the order of `code`."""
        return np.indices((len(self.ops),) * self.n_slots, np.int8).reshape(self.n_slots, -1).T.copy()

    def code(self, archs: np.ndarray) -> np.ndarray:
        """Row of each cell in `all()`, int64 `(B,)`."""
        return np.asarray(archs, np.int64) @ len(self.ops) ** np.arange(self.n_slots - 1, -1, -1)

    def random(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, len(self.ops), (n, self.n_slots), dtype=np.int8)

    def mutate(self, archs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        archs = np.array(archs, np.int8)
        rows, slots = np.arange(len(archs)), rng.integers(0, self.n_slots, len(archs))
        archs[rows, slots] = (archs[rows, slots] + rng.integers(1, len(self.ops), len(archs))) % len(self.ops)
        return archs

    def is_valid(self, archs: np.ndarray) -> np.ndarray:
        archs = np.asarray(archs)
        return ((archs >= 0) & (archs < len(self.ops))).all(axis=1)

    def encode(self, archs: np.ndarray) -> Tensor:
        archs = np.asarray(archs)
        if archs.ndim != 2 or archs.shape[1] != self.n_slots or not self.is_valid(archs).all():
            entries = f"(B, {self.n_slots}) with entries 0..{len(self.ops) - 1}"
            raise NagkitError(f"cells must be an integer array {entries}, got shape {archs.shape}")
        x = torch.full((len(archs), self.n_nodes, self.n_ops), -1.0)
        x[:, 0, 0] = x[:, -1, 1] = 1.0
        x[:, 1:-1].scatter_(2, torch.from_numpy(archs.astype(np.int64))[:, :, None] + _FIRST, 1.0)
        return x

    def decode(self, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Cells by thresholding at 0.5 (paper, appendix C; the published code's `quantize`).

        Returns int8 `(B, 6)`, -1 in invalid rows, and the error kind of every row: `""`, `"not finite"`,
        `"no operation"` or `"several operations"` in a row of the code, `"misplaced input or output"`.
        """
        x = x.detach()
        on, finite = (x > 0).cpu().numpy(), torch.isfinite(x).flatten(1).all(dim=1).cpu().numpy()
        count = on.sum(axis=2)
        misplaced = ~on[:, 0, 0] | ~on[:, -1, 1] | on[:, 1:-1, :_FIRST].any(axis=(1, 2))
        errors = np.select(
            [~finite, (count == 0).any(axis=1), (count > 1).any(axis=1), misplaced],
            ["not finite", "no operation", "several operations", "misplaced input or output"],
            default="",
        )
        archs = (on[:, 1:-1].argmax(axis=2) - _FIRST).astype(np.int8)
        archs[errors != ""] = -1
        return archs, errors

    def decode_argmax(self, x: Tensor) -> np.ndarray:
        return x[:, 1:-1, _FIRST:].argmax(dim=2).cpu().numpy().astype(np.int8)

    neighbours, prior = base.neighbours, base.prior

    def features(self, p: Tensor) -> Tensor:
        """The operation of every edge, the same for edges on a live path, and how often each operation is on one.

        Multilinear in `p`, so that at a posterior mean of independent rows they are the expected features.
        """
        chosen = p[:, 1:-1, _FIRST:].double()  # (B, 6, ops)
        a, b, c, d, e, f = (1 - chosen[:, :, NONE]).unbind(dim=1)
        after_1, before_2 = _either(e, c * f), _either(b, a * c)
        # probability that an edge that is not cut lies on a path from input to output
        live = torch.stack([after_1, f, a * f, torch.ones_like(d), a, before_2], dim=1)
        working = chosen[:, :, 1:] * live[:, :, None]
        return torch.cat([chosen.flatten(1), working.flatten(1), working.sum(dim=1)], dim=1)

    def paths(self, archs: np.ndarray) -> Tensor:
        """Path encoding (White et al., 2021): which sequences of operations lead through a cell, float64 `(B, F)`."""
        archs, n = np.asarray(archs, np.int64), len(self.ops)
        found = np.zeros((len(archs), n + n**2 + n**3))
        for path in PATHS:
            offset = sum(n**length for length in range(1, len(path)))
            found[np.arange(len(archs)), offset + archs[:, path] @ n ** np.arange(len(path))] = 1
        return torch.from_numpy(found)

    def isomorphism_classes(self) -> np.ndarray:
        """Class number of every cell in the order of `all()`, int64 `(size,)`.

        Two cells are isomorphic when they compute the same expression: a skip passes its input on, the terms of a sum
        commute, and a cut edge or one that leaves a cut input is a zero term. This is NATS-Bench's unique string; it keeps
        zero terms inside sums, so some cells that compute the same function stay apart.
        """
        return _classes(self.ops)

    def draw(self, ax, arch: np.ndarray) -> None:
        """Four feature maps in a line, one labelled arrow an operation.

        `none` is dotted and grey; an operation on no path from input to output is faded.
        """
        from matplotlib.patches import FancyArrowPatch

        arch = base.checked(self, np.asarray(arch)[None])[0]
        live = live_edges(arch[None])[0]
        bend = {(0, 2): -0.62, (1, 3): 0.62, (0, 3): -0.8}  # neighbours are joined straight; the others bow out of their way
        for op, (source, target), alive in zip(arch, EDGES, live, strict=True):
            label, colour = self.styles[op]
            curve = bend.get((source, target), 0.0)
            ax.add_patch(
                FancyArrowPatch(
                    (source, 0), (target, 0), connectionstyle=f"arc3,rad={curve}", arrowstyle="-|>", mutation_scale=12,
                    shrinkA=11, shrinkB=11, lw=2.2 if alive else 1.4, color=colour, alpha=1.0 if alive or op == NONE else 0.4,
                    ls=":" if op == NONE else "-",
                )
            )  # fmt: skip
            height = -curve * (target - source) / 2  # the middle of a quadratic Bézier curve lies half way to its control point
            ax.text(
                (source + target) / 2, height, label, ha="center", va="center", fontsize=10.5,
                color="#222222" if alive else "#9A9A9A", bbox={"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none"},
            )  # fmt: skip
        for node, text in enumerate(("in", "1", "2", "out")):
            ax.plot(node, 0, "o", ms=22, mfc="#F4F4F4", mec="#444444", mew=1.2, zorder=3)
            ax.text(node, 0, text, ha="center", va="center", fontsize=10.5, zorder=4)
        ax.set(xlim=(-0.25, 3.25), ylim=(-0.85, 1.4), aspect="equal")
        ax.set_axis_off()


def live_edges(archs: np.ndarray) -> np.ndarray:
    """Which edges lie on a path from input to output that no `none` cuts, bool `(B, 6)`."""
    on = np.asarray(archs) != NONE
    live = np.zeros_like(on)
    for path in PATHS:
        live[:, path] |= on[:, path].all(axis=1, keepdims=True)
    return live


def _line_graph() -> np.ndarray:
    sources, targets = np.array([(-1, 0), *EDGES, (3, 4)]).T  # input and output as edges from before and to behind the cell
    return targets[:, None] == sources


def _either(a: Tensor, b: Tensor) -> Tensor:
    return 1 - (1 - a) * (1 - b)


@cache
def _classes(ops: tuple[str, ...]) -> np.ndarray:
    @cache
    def term(expression: str, op: int) -> str:
        return "#" if op == NONE or expression == "#" else expression if op == SKIP else f"({expression})@{ops[op]}"

    expressions = []
    for a, b, c in product(range(len(ops)), repeat=3):
        first = term("0", a)
        second = "+".join(sorted((term("0", b), term(first, c))))
        for d, e, f in product(range(len(ops)), repeat=3):
            expressions.append("+".join(sorted((term("0", d), term(first, e), term(second, f)))))
    return np.unique(expressions, return_inverse=True)[1]
