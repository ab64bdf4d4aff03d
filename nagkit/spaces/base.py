"""What a search space is: a protocol that one file per space fulfils, and the door that finds it by name."""

from importlib import import_module
from typing import Protocol

import numpy as np
import torch

from nagkit.errors import NagkitError, unknown

SPACES = ("nb201", "mbv3")


class SearchSpace(Protocol):
    """A finite set of architectures and its conversions.

    An architecture is one row of small integers, `int8` of shape `(n_slots,)`; batches have shape `(B, n_slots)`.
    Diffusion works on the centred one-hot code, float32 of shape `(B, n_nodes, n_ops)` with entries in {-1, 1}; the row of an
    absent node is all -1. A space that is small enough to list also has `all()` and `code(archs)`, the row of each in `all()`;
    one with `stages` has `depth_weights(law)`, and local search needs `neighbours(arch)`, those one change away.
    """

    name: str
    """What `get_space` and the command line call it."""
    n_slots: int
    """Integers in a row."""
    n_nodes: int
    """Rows of a code: nodes of the computation graph."""
    n_ops: int
    """Columns of a code: what a node may carry."""
    size: int
    """Architectures in the space."""
    stages: tuple[int, int] | None
    """Stages and slots in each, where a stage fills only as many as it is deep (MBv3); None where no node is ever absent."""
    laws: tuple[str, ...]
    """Named laws over the space; the first is that of the paper's training data, and the default everywhere."""
    adjacency: np.ndarray
    """Edges of the computation DAG between nodes, bool `(n_nodes, n_nodes)`, row → column; never diffused."""

    @property
    def allowed(self) -> np.ndarray:
        """Which operation a node may carry, bool `(n_nodes, n_ops)`."""

    def random(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` architectures from the first of `laws`, int8 `(n, n_slots)`."""

    def mutate(self, archs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A copy of `archs` with exactly one slot of each row changed."""

    def is_valid(self, archs: np.ndarray) -> np.ndarray:
        """Whether each row is an architecture of the space, bool `(B,)`."""

    def encode(self, archs: np.ndarray) -> torch.Tensor:
        """Centred one-hot code, float32 `(B, n_nodes, n_ops)`."""

    def decode(self, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Architectures by thresholding at 0.5 (0 in centred units), and per row why it is invalid (`""` when valid)."""

    def decode_argmax(self, x: torch.Tensor) -> np.ndarray:
        """The valid architectures whose codes are nearest (NB201: the largest allowed entry of every node)."""

    def to_string(self, archs: np.ndarray) -> list[str]:
        """Benchmark strings."""

    def from_string(self, strings: list[str]) -> np.ndarray:
        """Architectures from benchmark strings; a malformed one raises `NagkitError`."""


def keys(archs: np.ndarray) -> np.ndarray:
    """One sortable value per row, equal for equal rows: what `np.unique` and `np.isin` need to count architectures, `(B,)`."""
    archs = np.ascontiguousarray(archs, np.int8)
    return archs.view(f"S{archs.shape[1]}").ravel()


def get_space(name: str, **options) -> SearchSpace:
    """The search space called `name`; `options` go to its constructor (NB201: `adjacency="official"`)."""
    if name not in SPACES:
        raise unknown("search space", name, SPACES)
    return import_module(f"nagkit.spaces.{name}").Space(**options)


def checked(space: SearchSpace, archs: np.ndarray) -> np.ndarray:
    """`archs` when it is a batch of valid architectures; `NagkitError` with the first row that is not."""
    archs = np.asarray(archs)
    if archs.ndim != 2 or archs.shape[1] != space.n_slots:
        raise NagkitError(f"{space.name} architectures must be an integer array (B, {space.n_slots}), got shape {archs.shape}")
    valid = space.is_valid(archs)
    if not valid.all():
        row = int(np.argmin(valid))
        raise NagkitError(f"row {row} is not valid in {space.name}: {archs[row].tolist()}; keep valid rows only (is_valid)")
    return archs
