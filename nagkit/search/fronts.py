"""Search for the trade-off between a value and a cost at an equal number of measured architectures.

Every method is a function `(space, measure, budget, ...) → archs`, int8 `(budget, n_slots)`, pairwise distinct and in the order
of measuring. `measure(archs)` returns `(B, 2)`: the value, the larger the better, and the cost, the smaller the better; a pair
that is not finite is a failed measurement, which counts, is on no front, and teaches nothing.
"""

from collections.abc import Callable, Sequence

import numpy as np

from nagkit.errors import NagkitError
from nagkit.search import baselines
from nagkit.spaces.base import SearchSpace

Measure = Callable[[np.ndarray], np.ndarray]
WEIGHTS = (0.0, 0.3, 1.0, 3.0)
"""Weights of the cost against the value, both standardised, when a front is looked for by weighted sums."""


def front(points: np.ndarray) -> np.ndarray:
    """Rows of `points` `(n, 2)` (value, cost) that no other row beats in both, by increasing cost; equal rows count once.

    Rows that are not finite, failed measurements, are never among them.
    """
    known = np.flatnonzero(np.isfinite(points).all(axis=1))
    order = known[np.lexsort((-points[known, 0], points[known, 1]))]
    best = np.maximum.accumulate(points[order, 0])
    return order[np.concatenate([[True], best[1:] > best[:-1]])[: len(order)]]


def hypervolume(points: np.ndarray, reference: tuple[float, float]) -> float:
    """Area between the front of `points` `(n, 2)` (value, cost) and `reference`, a poor (value, cost)."""
    points = points[np.isfinite(points).all(axis=1) & (points[:, 0] > reference[0]) & (points[:, 1] < reference[1])]
    if not len(points):
        return 0.0
    found = points[front(points)]
    widths = np.append(found[1:, 1], reference[1]) - found[:, 1]
    return float(((found[:, 0] - reference[0]) * widths).sum())


def random_search(space: SearchSpace, measure: Measure, budget: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform draws without replacement."""
    return baselines.RandomSearch(space, rng).ask(budget)


def evolution(
    space: SearchSpace, measure: Measure, budget: int, rng: np.random.Generator, *, weights: Sequence[float] = WEIGHTS
) -> np.ndarray:
    """Regularised evolution of value - weight · cost, the budget shared between `weights`; for standardised measures."""
    seen: dict[bytes, np.ndarray] = {}
    for i, weight in enumerate(weights):
        method, until = baselines.RegularizedEvolution(space, rng), budget * (i + 1) // len(weights)
        while len(seen) < until:
            archs = method.ask(1)
            points = measure(archs)
            method.tell(archs, points[:, 0] - weight * points[:, 1])
            seen.setdefault(archs.tobytes(), archs[0])
    return np.stack(list(seen.values()))


def nsga2(space: SearchSpace, measure: Measure, budget: int, rng: np.random.Generator, *, population: int = 20) -> np.ndarray:
    """NSGA-II (Deb et al., 2002) as pymoo has it: uniform crossover, where the child is valid, and one changed slot a child.

    What was measured before costs nothing. A failed measurement is infeasible: worse than all others. Raises `NagkitError` when
    pymoo is not installed.
    """
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.evaluator import Evaluator
        from pymoo.core.mutation import Mutation
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.ux import UniformCrossover
        from pymoo.problems.static import StaticProblem
    except ImportError as error:
        raise NagkitError("NSGA-II needs the package pymoo; install it: pip install 'nagkit[moo]'") from error

    class Crossover(UniformCrossover):
        def _do(self, problem, X, **options):
            children = super()._do(problem, X, **options)
            valid = np.stack([space.is_valid(side) for side in children])
            return np.where(valid[..., None], children, X)

    class ChangeSlot(Mutation):
        def _do(self, problem, X, **options):
            return space.mutate(X, rng)

    problem = Problem(n_var=space.n_slots, n_obj=2, n_ieq_constr=1, xl=-1, xu=space.n_ops, vtype=int)
    start = baselines.RandomSearch(space, rng).ask(min(population, budget))
    method = NSGA2(population, sampling=start, crossover=Crossover(), mutation=ChangeSlot())
    method.setup(problem, termination=("n_gen", 100 * budget), seed=int(rng.integers(2**31)), verbose=False)
    seen: dict[bytes, np.ndarray] = {}
    while len(seen) < budget:
        children = method.ask()
        archs = children.get("X").astype(np.int8)
        points = measure(archs)
        failed = ~np.isfinite(points).all(axis=1, keepdims=True)
        goals = np.where(failed, 0.0, points * [-1.0, 1.0])
        Evaluator().eval(StaticProblem(problem, F=goals, G=np.where(failed, 1.0, -1.0)), children)
        method.tell(infills=children)
        seen |= {row.tobytes(): row for row in archs if row.tobytes() not in seen}
    return np.stack(list(seen.values()))[:budget]
