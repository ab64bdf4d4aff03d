"""The graphs of the published code: its wiring of the NAS-Bench-201 cell, its masks, and how it codes absent slots.

A mask is `(n_nodes, n_nodes)` of {0, 1}; a row attends to a column. The published NAS-Bench-201 run trains score network and
guide with the raw adjacency (its option says "floyd"; the function knows "floyed") and samples with the transitive closure. On
MobileNetV3 both use the raw chain. Neither mask contains the node itself.
"""

import numpy as np
import torch

from nagkit.errors import NagkitError, unknown
from nagkit.spaces.base import get_space

WIRINGS = ("published", "true")
MASKS = ("raw", "closure")
TRAINED = {"nb201": "raw", "mbv3": "raw"}
RANKED = {
    "nb201": ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (1, 3), (1, 5), (2, 6), (3, 6)),
    "mbv3": tuple((node, node + 1) for node in range(21)),
}
"""(source, target) nodes that the ranking predictors pass messages along: the same in all 4,630 shipped triplets of NB201."""
_ABSENT = ("any", "listed")


def adjacency(space: str, wiring: str = "published") -> np.ndarray:
    """Edges between the nodes of a code, bool `(n_nodes, n_nodes)`.

    `wiring` "published" exchanges nodes 3 and 4 of the NAS-Bench-201 cell, the edges 1→2 and 0→3, as the published matrix does;
    "true" is the line graph of the cell. MobileNetV3 is a chain either way. Raises `NagkitError` for another wiring.
    """
    if wiring not in WIRINGS:
        raise unknown("wiring", wiring, WIRINGS)
    edges = np.asarray(get_space(space).adjacency, bool)
    if space == "nb201" and wiring == "published":
        exchanged = [0, 1, 2, 4, 3, 5, 6, 7]
        edges = edges[np.ix_(exchanged, exchanged)]
    return edges


def mask(space: str, kind: str, wiring: str = "published") -> torch.Tensor:
    """Which node (row) attends to which (column), of {0, 1}: direct successors ("raw") or all descendants ("closure")."""
    if kind not in MASKS:
        raise unknown("mask", kind, MASKS)
    reach = adjacency(space, wiring)
    if kind == "closure":
        for middle in range(len(reach)):  # Warshall
            reach = reach | reach[:, middle : middle + 1] & reach[middle : middle + 1]
    return torch.from_numpy(reach.astype(np.float32))


def score_code(archs: np.ndarray) -> np.ndarray:
    """What the MobileNetV3 score network is trained on, uncentred, float32 `(B, 20, 9)`: an absent slot is a row of zeros."""
    return (np.asarray(archs)[..., None] == np.arange(9)).astype(np.float32)


def guide_code(archs: np.ndarray) -> np.ndarray:
    """What the MobileNetV3 guide is trained on, float32 `(B, 20, 9)`: an absent slot is operation 0 (3×3, 3)."""
    return score_code(np.maximum(archs, 0))


def ranker_types(space: str, archs: np.ndarray, *, absent: str = "any", listed=None, rng=None) -> np.ndarray:
    """Node types that a ranking predictor reads, int64 `(B, n_nodes + 2 or n_nodes)`: input 0, output 1, operations from 2.

    NAS-Bench-201: 2 + operation. MobileNetV3: 2 + 9 (depth - 2) + operation, depth that of the slot's stage. `absent` says what
    stands for an absent slot: "any" of the 27 types, drawn from `rng`, a NumPy generator, as the published code ranks;
    "listed" as it trains, the operation that `listed` `(B, 20)` holds for it although no network uses it.
    """
    archs = np.asarray(archs, np.int64)
    if absent not in _ABSENT:
        raise unknown("coding of absent slots", absent, _ABSENT)
    if space == "nb201":
        inner = 2 + archs
    else:
        depth = np.repeat((archs.reshape(-1, 5, 4) >= 0).sum(axis=2), 4, axis=1)
        given = np.asarray(listed if absent == "listed" else np.maximum(archs, 0), np.int64)
        inner = 2 + 9 * (depth - 2) + np.where(archs >= 0, archs, given)
        if absent == "any" and (archs < 0).any():
            if rng is None:
                raise NagkitError("absent slots are ranked as a random operation; give rng=numpy.random.default_rng(seed)")
            inner = np.where(archs >= 0, inner, rng.integers(2, 29, archs.shape))
    ends = np.zeros((len(archs), 1), np.int64)
    return np.concatenate([ends, inner, ends + 1], axis=1)
