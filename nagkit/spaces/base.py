"""What a search space is: a protocol that one file per space fulfils, defaults for its methods, and the door that finds it.

The functions that take a `space` first are written for any space through the others: a class that says
`neighbours, decode = base.neighbours, base.decode` has them as methods. Those marked "a row an operation" are for spaces
whose architecture is the operation of every node (`n_slots == n_nodes`).
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from itertools import product
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from nagkit.diffusion.exact import ExactDenoiser, ListedDenoiser
from nagkit.errors import NagkitError, unknown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPACES = ("nb201", "mbv3")
"""Names of the spaces that come with the package; each is the `Space` of a module of that name."""
DEFAULT = SPACES[0]


class SearchSpace(Protocol):
    """A finite set of architectures, its conversions, and what is known about them. Everything else asks here.

    An architecture is one row of small integers, `int8` of shape `(n_slots,)`; batches have shape `(B, n_slots)`.
    Diffusion works on the centred one-hot code, float32 of shape `(B, n_nodes, n_ops)` with entries in {-1, 1}; the row of an
    absent node is all -1. A space that is small enough to list (`is_listed`) also has `all()`, its architectures int8
    `(size, n_slots)`, and `code(archs)`, the row of each in `all()`, int64 `(B,)`. One that knows what its networks cost has
    `cost(archs)`: parameters and multiply-accumulates, int64 `(B,)` each. A space of the package also names the module that
    measures it, `benchmark` (`nagkit.benchmarks.table.open_benchmark`), what searches may ask of that, `oracles`, the first
    by default, and the oracle on which settings are chosen, `development` (`nagkit.search.methods.open_oracle`).
    """

    name: str
    """What `get_space` and the command line call it."""
    title: str
    """What a reader calls it."""
    n_slots: int
    """Integers in a row."""
    n_nodes: int
    """Rows of a code: nodes of the computation graph."""
    n_ops: int
    """Columns of a code: what a node may carry."""
    size: int
    """Architectures in the space."""
    laws: tuple[str, ...]
    """Named laws over the space; the first is that of the paper's training data, and the default everywhere."""
    adjacency: np.ndarray
    """Edges of the computation DAG between nodes, bool `(n_nodes, n_nodes)`, row → column; never diffused."""
    null_rankings: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]]
    """Rankings without learning, by name: `(archs, rng)` → the distinct `archs`, best first."""

    @property
    def allowed(self) -> np.ndarray:
        """Which operation a node may carry, bool `(n_nodes, n_ops)`."""

    def random(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` architectures from the first of `laws`, int8 `(n, n_slots)`."""

    def mutate(self, archs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A copy of `archs` with exactly one slot of each row changed."""

    def neighbours(self, arch: np.ndarray) -> np.ndarray:
        """The architectures that differ from `arch` in one slot, int8 `(B, n_slots)`."""

    def is_valid(self, archs: np.ndarray) -> np.ndarray:
        """Whether each row is an architecture of the space, bool `(B,)`."""

    def encode(self, archs: np.ndarray) -> Tensor:
        """Centred one-hot code, float32 `(B, n_nodes, n_ops)`; an invalid row raises `NagkitError`."""

    def decode(self, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Architectures by thresholding at 0.5 (0 in centred units), and per row why it is invalid (`""` when valid)."""

    def decode_argmax(self, x: Tensor) -> np.ndarray:
        """The valid architectures whose codes are nearest."""

    def to_string(self, archs: np.ndarray) -> list[str]:
        """Benchmark strings."""

    def from_string(self, strings: list[str]) -> np.ndarray:
        """Architectures from benchmark strings; a malformed one raises `NagkitError`."""

    def prior(self, law: str) -> Callable:
        """The closed-form denoiser of one of `laws`, with `sample(n, generator)`: exact draws from it as codes."""

    def features(self, p: Tensor) -> Tensor:
        """What surrogates see, float64 `(B, F)`, of probabilities of operations `p` in [0, 1]; differentiable."""

    def draw(self, ax: "Axes", arch: np.ndarray) -> None:
        """A picture of one architecture, int `(n_slots,)`."""


def is_listed(space: SearchSpace) -> bool:
    """Whether the space is small enough to list: it has `all()` and `code(archs)`."""
    return hasattr(space, "all")


def get_space(space: str | SearchSpace = DEFAULT, **options) -> SearchSpace:
    """The search space of a name, or the one that is given; `options` go to its constructor (`adjacency="official"`)."""
    if not isinstance(space, str):
        if not hasattr(space, "decode_argmax"):
            raise NagkitError(f"{space!r} is no search space: give the name of one ({', '.join(SPACES)}) or a SearchSpace")
        return space
    if space not in SPACES:
        raise unknown("search space", space, SPACES)
    return _named(space, **options)


@cache
def _named(name: str, **options) -> SearchSpace:
    return import_module(f"nagkit.spaces.{name}").Space(**options)


def keys(archs: np.ndarray) -> np.ndarray:
    """One sortable value per row, equal for equal rows: what `np.unique` and `np.isin` need to count architectures, `(B,)`."""
    archs = np.ascontiguousarray(archs, np.int8)
    return archs.view(f"S{archs.shape[1]}").ravel()


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


def ranked(archs: np.ndarray, *scores: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """The distinct rows of `archs`, best first: by the first score, ties by the next ones, then at random by `rng`.

    Without `rng` the last ties keep the order of drawing. Equal rows must carry equal scores. Invalid draws (rows of
    -1) must have been removed: they cannot be trained.
    """
    archs = np.asarray(archs)
    if (archs < 0).all(axis=1).any():
        raise NagkitError("the pool holds invalid draws, which cannot be trained; drop the rows with an error first")
    first = np.sort(np.unique(archs, axis=0, return_index=True)[1])
    tie = np.arange(len(first)) if rng is None else rng.permutation(len(first))
    return archs[first[np.lexsort([tie, *(-np.asarray(score, np.float64)[first] for score in reversed(scores))])]]


# Defaults of the protocol -----------------------------------------------------------------------------------------------


def random(space: SearchSpace, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws from the closed form of the first law."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    return space.decode_argmax(space.prior(space.laws[0]).sample(n, generator))


def neighbours(space: SearchSpace, arch: np.ndarray) -> np.ndarray:
    """Every other value in every slot, from the present one upwards and round, where the result is valid."""
    n_values = space.n_ops + 1  # -1, absent, comes first
    shifts = np.arange(1, n_values)
    moved = np.tile(np.asarray(arch, np.int64), (space.n_slots, n_values - 1, 1))
    slots = np.arange(space.n_slots)
    moved[slots, :, slots] = (moved[slots, :, slots] + 1 + shifts) % n_values - 1
    moved = moved.reshape(-1, space.n_slots).astype(np.int8)
    return moved[space.is_valid(moved)]


def mutate(space: SearchSpace, archs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the `neighbours` of each row; where there is none, any architecture."""
    moved = [rng.choice(near if len(near := space.neighbours(arch)) else space.random(1, rng)) for arch in archs]
    return np.stack(moved) if moved else np.array(archs, np.int8)


def is_valid(space: SearchSpace, archs: np.ndarray) -> np.ndarray:
    """A row an operation: every one of them is `allowed`."""
    archs = np.asarray(archs)
    inside = (archs >= 0) & (archs < space.n_ops)
    return (inside & space.allowed[np.arange(space.n_slots), np.where(inside, archs, 0)]).all(axis=1)


def encode(space: SearchSpace, archs: np.ndarray) -> Tensor:
    """A row an operation."""
    archs = torch.from_numpy(checked(space, archs).astype(np.int64))
    return torch.nn.functional.one_hot(archs, space.n_ops).float().mul_(2).sub_(1)


def decode_argmax(space: SearchSpace, x: Tensor) -> np.ndarray:
    """A row an operation: the largest allowed entry of each."""
    allowed = torch.from_numpy(np.asarray(space.allowed)).to(x.device)
    return x.detach().nan_to_num(0.0).masked_fill(~allowed, -torch.inf).argmax(dim=2).cpu().numpy().astype(np.int8)


def decode(space: SearchSpace, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What is above 0, when that is the code of an architecture.

    Error kinds: "not finite"; "several operations" or "no operation" in a row; "no architecture" for any other reason.
    """
    x = x.detach()
    on, finite = (x > 0).cpu(), torch.isfinite(x).flatten(1).all(dim=1).cpu().numpy()
    archs, count = space.decode_argmax(x), on.sum(dim=2).numpy()
    same = ((space.encode(archs) > 0) == on).flatten(1).all(dim=1).numpy()
    failed = [~finite, same, (count > 1).any(axis=1), (count == 0).any(axis=1)]
    errors = np.select(failed, ["not finite", "", "several operations", "no operation"], "no architecture")
    return np.where(errors[:, None] == "", archs, np.int8(-1)), errors


def every(space: SearchSpace) -> np.ndarray:
    """A row an operation, `all()`: every combination of allowed ones, the last slot changing fastest."""
    return np.array(list(product(*map(np.flatnonzero, space.allowed))), np.int8)


def code(space: SearchSpace, archs: np.ndarray) -> np.ndarray:
    """A row an operation, `code(archs)`: where each stands in `every`."""
    position = np.cumsum(space.allowed, axis=1)[np.arange(space.n_slots), archs] - 1
    return np.ravel_multi_index(tuple(position.T), tuple(np.sum(space.allowed, axis=1)))


def prior(space: SearchSpace, law: str = "uniform") -> ExactDenoiser | ListedDenoiser:
    """The denoiser of the uniform law: by rows where all combinations of allowed operations are in the space, else by list."""
    if space.size == np.prod(np.sum(space.allowed, axis=1), dtype=object):
        return ExactDenoiser(space.allowed)
    if not is_listed(space):
        raise NagkitError(f"{space.name} is neither a product of its rows nor listed: write its own prior(law)")
    return ListedDenoiser(space.encode(space.all()))


def features(space: SearchSpace, p: Tensor) -> Tensor:
    """The probabilities themselves."""
    return p.double().flatten(1)


def draw(space: SearchSpace, ax: "Axes", arch: np.ndarray) -> None:
    """The code as a grid: a column a node, a row an operation."""
    ax.imshow(space.encode(np.asarray(arch)[None])[0].T.numpy() > 0, cmap="Greys", vmin=0, vmax=1.5, aspect="equal")
    ax.set(xlabel="node", ylabel="operation", xticks=range(space.n_nodes), yticks=range(space.n_ops))
    ax.tick_params(labelsize=7)
