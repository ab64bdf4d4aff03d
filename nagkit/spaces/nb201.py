"""NAS-Bench-201 (Dong & Yang, 2020): cells of four feature maps whose six edges each carry one of five operations.

The generator sees a cell as its line graph (paper, section 2.1): eight nodes, namely the input, the six edges in
the order of the benchmark's string, and the output; each node carries one of seven types.
"""

import re
from functools import cache
from itertools import product

import numpy as np
import torch

from nagkit.errors import NagkitError, unknown

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""(source, target) feature map of every slot, in string order."""

NODE_TYPES = ("input", "output", *OPS)
NONE, SKIP, CONV1, CONV3, POOL = range(5)
_STRING = re.compile(r"\|%s~0\|\+\|%s~0\|%s~1\|\+\|%s~0\|%s~1\|%s~2\|" % (("([a-z0-9_]+)",) * 6))


def _line_graph() -> np.ndarray:
    adjacency = np.zeros((8, 8), bool)
    for row, (source, target) in enumerate(EDGES, start=1):
        adjacency[0, row] = source == 0
        adjacency[row, 7] = target == 3
        for other, (next_source, _) in enumerate(EDGES, start=1):
            adjacency[row, other] = target == next_source
    return adjacency


def _adjacency(kind: str) -> np.ndarray:
    true = _line_graph()
    if kind == "true":
        return true
    if kind == "official":  # the published code wires the nodes of edges (1→2) and (0→3) the wrong way round
        swap = [0, 1, 2, 4, 3, 5, 6, 7]
        return true[np.ix_(swap, swap)]
    raise unknown("adjacency", kind, ("true", "official"))


class Space:
    """The NAS-Bench-201 cell space: 15,625 cells, 6,466 of them pairwise non-isomorphic.

    `adjacency` is "true" (the line graph of the cell) or "official" (the matrix of the published code, which is the
    true one with nodes 3 and 4 exchanged).
    """

    name = "nb201"
    n_slots, n_nodes, n_ops, size = 6, 8, 7, 5**6
    stages = None
    laws = ("uniform",)

    def __init__(self, adjacency: str = "true"):
        self.adjacency = _adjacency(adjacency)

    @property
    def allowed(self) -> np.ndarray:
        allowed = np.zeros((8, 7), bool)
        allowed[0, 0] = allowed[7, 1] = True
        allowed[1:7, 2:] = True
        return allowed

    def all(self) -> np.ndarray:
        """Every cell, int8 `(15625, 6)`, in the order of `code`."""
        return np.array(list(product(range(5), repeat=6)), np.int8)

    def code(self, archs: np.ndarray) -> np.ndarray:
        """Row of each cell in `all()`, int64 `(B,)`."""
        return np.asarray(archs, np.int64) @ 5 ** np.arange(5, -1, -1)

    def random(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, 5, (n, 6), dtype=np.int8)

    def mutate(self, archs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        archs = np.array(archs, np.int8)
        rows, slots = np.arange(len(archs)), rng.integers(0, 6, len(archs))
        archs[rows, slots] = (archs[rows, slots] + rng.integers(1, 5, len(archs))) % 5
        return archs

    def neighbours(self, arch: np.ndarray) -> np.ndarray:
        """The 24 cells that differ from `arch` in one slot."""
        moved = np.repeat(np.asarray(arch, np.int8)[None], 24, axis=0)
        slots, shifts = np.repeat(np.arange(6), 4), np.tile(np.arange(1, 5), 6)
        moved[np.arange(24), slots] = (moved[np.arange(24), slots] + shifts) % 5
        return moved

    def is_valid(self, archs: np.ndarray) -> np.ndarray:
        archs = np.asarray(archs)
        return ((archs >= 0) & (archs < 5)).all(axis=1)

    def encode(self, archs: np.ndarray) -> torch.Tensor:
        archs = np.asarray(archs)
        if archs.ndim != 2 or archs.shape[1] != 6 or not self.is_valid(archs).all():
            raise NagkitError(f"cells must be an integer array (B, 6) with entries 0..4, got shape {archs.shape}")
        x = torch.full((len(archs), 8, 7), -1.0)
        x[:, 0, 0] = x[:, 7, 1] = 1.0
        return x.index_put_(
            (torch.arange(len(archs))[:, None], torch.arange(1, 7), torch.from_numpy(archs.astype(np.int64)) + 2),
            torch.tensor(1.0),
        )

    def decode(self, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Cells by thresholding at 0.5 (paper, appendix C; the published code's `quantize`).

        Returns int8 `(B, 6)`, -1 in invalid rows, and the error kind of every row: `""`, `"not finite"`,
        `"no operation"` or `"several operations"` in a row of the code, `"misplaced input or output"`.
        """
        x = x.detach()
        on, finite = (x > 0).cpu().numpy(), torch.isfinite(x).flatten(1).all(dim=1).cpu().numpy()
        count = on.sum(axis=2)
        misplaced = ~on[:, 0, 0] | ~on[:, 7, 1] | on[:, 1:7, :2].any(axis=(1, 2))
        errors = np.select(
            [~finite, (count == 0).any(axis=1), (count > 1).any(axis=1), misplaced],
            ["not finite", "no operation", "several operations", "misplaced input or output"],
            default="",
        )
        archs = (on[:, 1:7].argmax(axis=2) - 2).astype(np.int8)
        archs[errors != ""] = -1
        return archs, errors

    def decode_argmax(self, x: torch.Tensor) -> np.ndarray:
        return x[:, 1:7, 2:].argmax(dim=2).cpu().numpy().astype(np.int8)

    def to_string(self, archs: np.ndarray) -> list[str]:
        archs = np.asarray(archs)
        if not self.is_valid(archs).all():
            raise NagkitError("only valid cells have a string; drop the invalid rows first")
        names = np.array(OPS, object)[archs]
        return [f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|" for a, b, c, d, e, f in names]

    def from_string(self, strings: list[str]) -> np.ndarray:
        index = {op: i for i, op in enumerate(OPS)}
        archs = np.empty((len(strings), 6), np.int8)
        for row, string in enumerate(strings):
            match = _STRING.fullmatch(string) if isinstance(string, str) else None
            if match is None:
                raise NagkitError(f"{string!r} is not a NAS-Bench-201 cell; expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
            for slot, op in enumerate(match.groups()):
                if op not in index:
                    raise unknown(f"operation in cell {string!r}:", op, OPS)
                archs[row, slot] = index[op]
        return archs


def live_edges(archs: np.ndarray) -> np.ndarray:
    """Which edges lie on a path from input to output that no `none` cuts, bool `(B, 6)`."""
    on = np.asarray(archs) != NONE
    reached = np.zeros((len(on), 4), bool)
    useful = np.zeros((len(on), 4), bool)
    reached[:, 0] = useful[:, 3] = True
    for slot, (source, target) in sorted(enumerate(EDGES), key=lambda item: item[1][1]):
        reached[:, target] |= reached[:, source] & on[:, slot]
    for slot, (source, target) in sorted(enumerate(EDGES), key=lambda item: -item[1][0]):
        useful[:, source] |= useful[:, target] & on[:, slot]
    source, target = np.array(EDGES).T
    return on & reached[:, source] & useful[:, target]


@cache
def isomorphism_classes() -> np.ndarray:
    """Class number of every cell in the order of `Space.all()`, int64 `(15625,)`; 6,466 distinct values.

    Two cells are isomorphic when they compute the same expression: a skip passes its input on, the terms of a sum
    commute, and a cut edge or one that leaves a cut input is a zero term. This is NATS-Bench's unique string; it keeps zero
    terms inside sums, so some cells that compute the same function stay apart.
    """

    @cache
    def term(expression: str, op: int) -> str:
        return "#" if op == NONE or expression == "#" else expression if op == SKIP else f"({expression})@{OPS[op]}"

    expressions = []
    for a, b, c in product(range(5), repeat=3):
        first = term("0", a)
        second = "+".join(sorted((term("0", b), term(first, c))))
        for d, e, f in product(range(5), repeat=3):
            expressions.append("+".join(sorted((term("0", d), term(first, e), term(second, f)))))
    return np.unique(expressions, return_inverse=True)[1]


def cost(archs: np.ndarray, *, n_classes: int = 10, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Trainable parameters and multiply-accumulates of the benchmark's network (C = 16, N = 5) for each cell.

    Both int64 `(B,)`. Every operation is counted as built, whether or not it lies on a live path, as the benchmark does.
    """
    archs = np.asarray(archs)
    n1, n3, pools = ((archs == op).sum(axis=1) for op in (CONV1, CONV3, POOL))
    params = np.full(len(archs), 3 * 16 * 9 + 2 * 16 + 2 * 64 + 64 * n_classes + n_classes, np.int64)
    macs = np.full(len(archs), 3 * 16 * 9 * size**2 + 64 * n_classes, np.int64)
    for stage, channels in enumerate((16, 32, 64)):
        pixels = (size >> stage) ** 2
        params += 5 * (n3 * (9 * channels**2 + 2 * channels) + n1 * (channels**2 + 2 * channels))
        macs += 5 * (n3 * 9 + n1) * channels**2 * pixels
        if stage:  # the residual reduction block in front of the stage
            previous = channels // 2
            params += 9 * previous * channels + 9 * channels**2 + 4 * channels + previous * channels
            macs += (9 * previous * channels + 9 * channels**2 + previous * channels) * pixels
    return params, macs


def hand_rule(archs: np.ndarray) -> np.ndarray:
    """A ranking without learning: 3×3 convolutions + 0.7 × 1×1 - 0.3 × pools over the live edges, float64 `(B,)`."""
    weight = np.array([0.0, 0.0, 0.7, 1.0, -0.3])
    return (weight[np.asarray(archs)] * live_edges(archs)).sum(axis=1)
