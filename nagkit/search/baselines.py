"""Search without a generator: ask for architectures, train them, tell their values; nothing is trained twice.

The methods only speak to the space (`random`, `mutate`, `neighbours`), so the same lines search every space. A value that is
not finite is a failed evaluation: it counts and is recorded, but it is never the best and no method learns from it.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from tqdm.auto import tqdm

from nagkit.errors import NagkitError
from nagkit.spaces.base import SearchSpace


class History(NamedTuple):
    """What was trained, in order."""

    archs: np.ndarray
    """int8 `(budget, n_slots)`, pairwise distinct."""
    values: np.ndarray
    """float64 `(budget,)`, the larger the better; NaN where the evaluation failed."""

    def incumbents(self) -> np.ndarray:
        """Index of the best architecture so far, the first of equals, after every evaluation, int64 `(budget,)`."""
        values = np.where(np.isfinite(self.values), self.values, -np.inf)
        better = np.concatenate([[True], values[1:] > np.maximum.accumulate(values)[:-1]])
        return np.maximum.accumulate(np.where(better, np.arange(len(values)), 0))

    def best(self) -> tuple[np.ndarray, float]:
        """The best architecture, int8 `(n_slots,)`, and its value; `NagkitError` when every evaluation failed."""
        if not np.isfinite(self.values).any():
            raise NagkitError(f"all {len(self.values)} evaluations failed (no finite value); look at the objective")
        place = self.incumbents()[-1]
        return self.archs[place], float(self.values[place])


class Method(Protocol):
    """A search method is a pair of calls; between them the caller trains the architectures."""

    def ask(self, n: int) -> np.ndarray:
        """At least one and at most `n` architectures that were never asked for before, int8 `(B, n_slots)`."""

    def tell(self, archs: np.ndarray, values: np.ndarray) -> None:
        """The values of architectures that `ask` returned; every call of `ask` is answered before the next one.

        What is told before the first `ask` is an initial design.
        """


def run(
    method: Method, query: Callable, budget: int, *, batch: int = 1, design: np.ndarray | None = None, progress: bool = False
) -> History:
    """Train `budget` distinct architectures, `batch` at a time; `query(archs)` returns their values, float `(B,)`.

    The method is told the distinct architectures of `design` and their values before it is asked; they count.
    `NagkitError` for a budget or batch below 1, a larger design, and values of another shape.
    """
    if budget < 1 or batch < 1:
        raise NagkitError(f"budget and batch count architectures and must be at least 1, got {budget} and {batch}")
    if design is not None and len(design) > budget:
        raise NagkitError(f"a budget of {budget} is smaller than the initial design of {len(design)}; raise the budget")
    archs, values = [], []
    with tqdm(total=budget, disable=not progress, unit="arch") as bar:
        while bar.n < budget:
            asked = design if design is not None and not archs else method.ask(min(batch, budget - bar.n))
            told = np.asarray(query(asked), np.float64)
            if told.shape != (len(asked),):
                raise NagkitError(f"the objective gave values of shape {told.shape} for {len(asked)} architectures; one each")
            told = np.where(np.isfinite(told), told, np.nan)
            method.tell(asked, told)
            archs.append(asked)
            values.append(told)
            bar.n += len(asked)
            bar.refresh()
    return History(np.concatenate(archs), np.concatenate(values))


def succeeded(archs: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The evaluations that did not fail, those whose value is finite."""
    kept = np.isfinite(values)
    return archs[kept], values[kept]


class RandomSearch:
    """Uniform draws without replacement."""

    def __init__(self, space: SearchSpace, rng: np.random.Generator):
        self._space, self._rng, self._seen = space, rng, set()

    def ask(self, n: int) -> np.ndarray:
        return np.concatenate([unseen(self._space, self._rng, self._seen) for _ in range(n)])

    def tell(self, archs: np.ndarray, values: np.ndarray) -> None:
        """Nothing to learn but what is taken."""
        self._seen.update(row.tobytes() for row in archs)


class RegularizedEvolution(RandomSearch):
    """Ageing evolution (Real et al., 2019): the winner of a tournament is mutated, the oldest member dies.

    The defaults (population 10, tournament 3) are those of the NAS-Bench-201 authors. A child that was trained before
    is mutated again, since the budget counts distinct architectures.
    """

    def __init__(self, space: SearchSpace, rng: np.random.Generator, *, population: int = 10, tournament: int = 3):
        if not 1 <= tournament <= population:
            raise NagkitError(f"a tournament of {tournament} needs a population of at least as many, got {population}")
        super().__init__(space, rng)
        self._size, self._tournament = population, tournament
        self._members: list[tuple[np.ndarray, float]] = []  # oldest first

    def ask(self, n: int) -> np.ndarray:
        if len(self._seen) < self._size:
            return super().ask(min(n, self._size - len(self._seen)))
        return np.concatenate([self._child() for _ in range(n)])

    def tell(self, archs: np.ndarray, values: np.ndarray) -> None:
        super().tell(archs, values)
        self._members += zip(*succeeded(archs, values), strict=True)
        del self._members[: -self._size]

    def _child(self) -> np.ndarray:
        if not self._members:  # everything failed so far
            return unseen(self._space, self._rng, self._seen)
        entrants = self._rng.choice(len(self._members), min(self._tournament, len(self._members)), replace=False)
        parent = max((self._members[i] for i in entrants), key=lambda member: member[1])[0]
        return unseen(self._space, self._rng, self._seen, start=parent)


class LocalSearch(RandomSearch):
    """Hill climbing from random starts (White et al., 2021), moving to the first neighbour that is better.

    Neighbours are trained in random order; when none is left the climb restarts at a random architecture. Of that
    paper's variants this one ("query until lower") is the strongest at small budgets.
    """

    def __init__(self, space: SearchSpace, rng: np.random.Generator):
        super().__init__(space, rng)
        self._value = -np.inf
        self._queue = np.empty((0, space.n_slots), np.int8)  # neighbours of the incumbent still to be trained

    def ask(self, n: int) -> np.ndarray:
        if not len(self._queue):
            self._value = -np.inf
            return super().ask(1)
        asked, self._queue = self._queue[:n], self._queue[n:]
        self._seen.update(row.tobytes() for row in asked)  # it may be asked again before it is told
        return asked

    def tell(self, archs: np.ndarray, values: np.ndarray) -> None:
        super().tell(archs, values)
        archs, values = succeeded(archs, values)
        best = int(np.argmax(values)) if len(values) else None
        if best is not None and values[best] > self._value:
            self._value = float(values[best])
            neighbours = self._space.neighbours(archs[best])
            new = [row.tobytes() not in self._seen for row in neighbours]
            self._queue = self._rng.permutation(neighbours[new])


def unseen(space: SearchSpace, rng: np.random.Generator, seen: set[bytes], start: np.ndarray | None = None) -> np.ndarray:
    """One architecture outside `seen` (and now in it), drawn uniformly or by mutating `start` until it is new."""
    if len(seen) >= space.size:
        raise NagkitError(f"all {space.size} architectures of {space.name} are trained; ask for a smaller budget")
    row = space.random(1, rng) if start is None else space.mutate(start[None], rng)
    while row.tobytes() in seen:
        row = space.random(1, rng) if start is None else space.mutate(row, rng)
    seen.add(row.tobytes())
    return row
