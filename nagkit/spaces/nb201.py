"""NAS-Bench-201 (Dong & Yang, 2020): cells whose six edges each carry one of five operations."""

import re

import numpy as np

from nagkit.errors import NagkitError, unknown
from nagkit.spaces.base import ranked
from nagkit.spaces.cell import CONV1, CONV3, EDGES, NONE, POOL, SKIP, CellSpace, live_edges

__all__ = ["CONV1", "CONV3", "EDGES", "NONE", "OPS", "POOL", "SKIP", "Space", "cost", "hand_rule", "live_edges"]

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_STRING = re.compile(r"\|%s~0\|\+\|%s~0\|%s~1\|\+\|%s~0\|%s~1\|%s~2\|" % (("([a-z0-9_]+)",) * 6))


def cost(archs: np.ndarray, *, n_classes: int = 10, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Trainable parameters and multiply-accumulates of the benchmark's network (C = 16, N = 5) for each cell.

    Both int64 `(B,)`. Every operation is counted as built, whether or not it lies on a live path, as the benchmark does.
    """
    archs = np.asarray(archs)
    n1, n3 = ((archs == op).sum(axis=1) for op in (CONV1, CONV3))
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


class Space(CellSpace):
    """The NAS-Bench-201 cell space: 15,625 cells, 6,466 of them pairwise non-isomorphic."""

    name, title, ops = "nb201", "NAS-Bench-201", OPS
    n_ops, size = 2 + len(OPS), len(OPS) ** 6
    styles = (
        ("none", "#C4C4C4"), ("skip", "#56B4E9"), ("1×1", "#E69F00"), ("3×3", "#D55E00"), ("pool", "#009E73"),
    )  # fmt: skip
    benchmark = "nagkit.benchmarks.table"
    oracles = {  # 200-epoch test accuracy as the paper; "honest": 12-epoch validation accuracy, the test accuracy reported
        "cifar100": {"dataset": "cifar100"},
        "cifar10": {"dataset": "cifar10"},
        "cifar10-honest": {"dataset": "cifar10", "asked": "validation12"},
        "cifar100-honest": {"dataset": "cifar100", "asked": "validation12"},
        "imagenet16-120-validation": {"dataset": "imagenet16-120", "asked": "validation12", "reported": "validation12"},
    }
    development = "imagenet16-120-validation"
    cost, hand_rule = staticmethod(cost), staticmethod(hand_rule)
    null_rankings = {
        "largest": lambda archs, rng: ranked(archs, *cost(archs), rng=rng),  # parameters, then multiply-accumulates
        "hand-rule": lambda archs, rng: ranked(archs, hand_rule(archs), rng=rng),
    }

    def common_sense(self, archs: np.ndarray) -> np.ndarray:
        """What ranking predictors are drawn towards: the hand rule, with cells that pass nothing below every other, `(B,)`."""
        return np.where(live_edges(archs).any(axis=1), hand_rule(archs), -2.1)

    def to_string(self, archs: np.ndarray) -> list[str]:
        archs = np.asarray(archs)
        if not self.is_valid(archs).all():
            raise NagkitError("only valid cells have a string; drop the invalid rows first")
        names = np.array(OPS, object)[archs]
        return [f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|" for a, b, c, d, e, f in names]

    def from_string(self, strings: list[str]) -> np.ndarray:
        index = {op: i for i, op in enumerate(OPS)}
        archs = np.empty((len(strings), self.n_slots), np.int8)
        for row, string in enumerate(strings):
            match = _STRING.fullmatch(string) if isinstance(string, str) else None
            if match is None:
                raise NagkitError(f"{string!r} is not a NAS-Bench-201 cell; expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
            for slot, op in enumerate(match.groups()):
                if op not in index:
                    raise unknown(f"operation in cell {string!r}:", op, OPS)
                archs[row, slot] = index[op]
        return archs


isomorphism_classes = Space().isomorphism_classes
