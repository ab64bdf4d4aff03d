"""Every search method by name, and one run of one: the same budget, initial design and seed streams for all."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from nagkit import presets
from nagkit.benchmarks.table import open_benchmark
from nagkit.diffusion.exact import exact_prior
from nagkit.diffusion.train import load_score
from nagkit.errors import NagkitError, unknown
from nagkit.rng import numpy_stream, torch_stream
from nagkit.search import baselines, encoding, proposers, surrogates
from nagkit.search.loop import ModelBased
from nagkit.spaces.base import DEFAULT, SPACES, SearchSpace, checked, get_space, is_listed

DESIGN, BATCH = 20, 5
"""Architectures of the initial design, and architectures that a model-based method chooses in each round."""

MODEL_FREE = {
    "random": baselines.RandomSearch,
    "local-search": baselines.LocalSearch,
    "evolution": baselines.RegularizedEvolution,
}
_RECIPE = {  # surrogate, proposer, acquisition
    "gcn": ("graph", "random", "ucb"),
    "bananas": ("ensemble", "mutation", "its"),
    "bonas": ("graph-bayesian", "evolved", "ucb"),
    "dngo": ("perceptron-bayesian", "mutation+random", "ei"),
    "bohamiann": ("hamiltonian", "mutation+random", "ei"),
    "gp": ("botorch", "mutation+random", "ei"),
    "ridge": ("ridge", "evolved", "ei"),
    "diffusionnag": ("process", "guided", "ei"),
    "diffusionnag-copy": ("process", "guided-copy", "ei"),
}
METHODS = (*MODEL_FREE, *_RECIPE)
_SIMPLE = {
    "random": proposers.random_pool,
    "mutation": proposers.mutation_pool,
    "mutation+random": proposers.mutation_random_pool,
}
PROPOSERS = (*_SIMPLE, "evolved", "guided", "guided-copy", "guided-score")
CANDIDATES = {
    "evolution": [{"population": p, "tournament": t} for p, t in ((10, 3), (20, 5), (30, 10))],
    "gcn": [{"steps": steps, "width": width} for steps, width in ((60, 32), (120, 32), (120, 64))],
    "bananas": [{"steps": steps, "width": width} for steps, width in ((100, 32), (100, 64), (300, 64))],
    "bonas": [{"steps": steps, "width": width} for steps, width in ((60, 32), (120, 32), (120, 64))],
    "dngo": [{"steps": steps, "width": width} for steps, width in ((100, 32), (100, 64), (300, 64))],
    "bohamiann": [{"rate": rate} for rate in (1e-2, 3e-2, 1e-1)],
    "gp": [{"proposer": name} for name in ("random", "mutation", "mutation+random")],
    "ridge": [{"generations": generations} for generations in (5, 10, 20)],
    "diffusionnag": [{"scale": scale} for scale in (30.0, 100.0, 300.0)],
    "diffusionnag-copy": [{"scale": scale} for scale in (10.0, 30.0, 100.0)],
}
"""Three settings for every method that has any: the same effort for each (`nagkit fit search`)."""


class Oracle(NamedTuple):
    """What a search asks, and what its incumbent is worth on the split that is reported."""

    space: str
    query: Callable[[np.ndarray], np.ndarray]
    report: Callable[[np.ndarray], np.ndarray] | None
    """Accuracy of architectures on the reported split, when that is not what is asked."""
    optimum: float
    """Best reported accuracy in the space; NaN where the space cannot be listed."""
    source: str
    """Oracle of the numbers, as in the results contract."""
    description: str
    files: tuple[Path, ...]
    """What the numbers are read or computed from."""


ORACLES = {name: (space, how) for space in SPACES for name, how in get_space(space).oracles.items()}
"""What can be searched by name: the space, and the data set and splits that are asked and reported."""
DEVELOPMENT = {space: get_space(space).development for space in SPACES}
DEFAULT_ORACLE = {space: next(iter(get_space(space).oracles)) for space in SPACES}


def open_oracle(name: str) -> Oracle:
    """The oracle called `name`, one of `ORACLES`."""
    if name not in ORACLES:
        raise unknown("search oracle", name, ORACLES)
    space, how = ORACLES[name]
    dataset, asked, reported = how["dataset"], how.get("asked", "test"), how.get("reported", "test")
    bench = open_benchmark(space, how.get("oracle", "auto"), resolution=how.get("resolution"))

    def column(split: str) -> Callable[[np.ndarray], np.ndarray]:
        return lambda archs: bench.query(archs, dataset, split=split)

    report = None if asked == reported else column(reported)
    optimum = bench.optimum(dataset, split=reported) if is_listed(get_space(space)) else np.nan
    return Oracle(space, column(asked), report, optimum, bench.oracle, bench.describe(), bench.files)


def build(
    method: str, space: SearchSpace, rng: np.random.Generator, generator: torch.Generator, *,
    acquisition: str | None = None, proposer: str | None = None, watch: Callable | None = None, **settings,
):  # fmt: skip
    """The method called `method`, to ask and tell; `settings` replace those chosen on the development set.

    Model-based methods take another `acquisition` or `proposer`. `NagkitError` for unknown names, and for either with
    a method that has none.
    """
    if method not in METHODS:
        raise unknown("search method", method, METHODS)
    given, settings = settings, chosen(space.name, method) | settings
    if method in MODEL_FREE:
        if acquisition or proposer:
            raise NagkitError(f"method {method} has no surrogate: leave acquisition function and proposer out")
        return MODEL_FREE[method](space, rng, **settings)
    surrogate, usual, acquire = _RECIPE[method]
    usual = settings.get("proposer", usual)
    # another proposer than the method's own has settings of its own
    propose = _proposer(proposer or usual, space, settings if proposer in (None, usual) else given)
    return ModelBased(
        space, rng, generator, surrogate=_surrogate(surrogate, space, generator, settings), proposer=propose,
        acquisition=acquisition or acquire, watch=watch,
    )  # fmt: skip


def chosen(space: str, method: str) -> dict:
    """Settings of a method that were chosen on the development set of a space; none for a space without such."""
    return presets.load().get(space, {}).get("search", {}).get(method, {})


def search(
    objective: Callable[[np.ndarray], np.ndarray], space: str | SearchSpace = DEFAULT, *, method: str = "diffusionnag",
    budget: int = 100, seed: int = 0, design: int = DESIGN, progress: bool = False, **options,
) -> baselines.History:  # fmt: skip
    """One search for the largest value of `objective`: what it evaluated, in order, pairwise distinct.

    `objective(archs)` takes int8 `(B, n_slots)` and returns floats `(B,)`, the larger the better; one that is not finite is a
    failed evaluation: it counts and is recorded as NaN, is never the best, and no method learns from it. The first `design`
    architectures are random and depend on `seed` and the space alone. `options` go to `build`.

    `NagkitError` for unknown names and a budget that is smaller than the design.
    """
    space = get_space(space)
    stream, taken = numpy_stream(seed, f"search/design/{space.name}"), set()
    first = [baselines.unseen(space, stream, taken) for _ in range(design)]
    searcher = build(method, space, numpy_stream(seed, "search"), torch_stream(seed, "search"), **options)
    return baselines.run(
        searcher, objective, budget, batch=1 if method in MODEL_FREE else BATCH,
        design=np.concatenate(first) if first else None, progress=progress,
    )  # fmt: skip


def suggest(
    archs: np.ndarray, values: np.ndarray, n: int = BATCH, space: str | SearchSpace = DEFAULT, *,
    method: str = "diffusionnag", seed: int = 0, **options,
) -> np.ndarray:  # fmt: skip
    """The next `n` architectures to evaluate, given all that were, with their values `(N,)`, NaN where failed.

    For evaluations that take days: no loop waits for them. `options` go to `build`; `NagkitError` for an invalid architecture.
    """
    space = get_space(space)
    searcher = build(method, space, numpy_stream(seed, "search"), torch_stream(seed, "search"), **options)
    searcher.tell(np.asarray(checked(space, archs), np.int8), np.asarray(values, np.float64))
    asked = [searcher.ask(n)]
    while (missing := n - sum(map(len, asked))) > 0:  # a local search asks for the neighbours that are left
        asked.append(searcher.ask(missing))
    return np.concatenate(asked)


def run(
    oracle: str, method: str, seed: int, *, budget: int = 100, progress: bool = False, **options
) -> tuple[baselines.History, Oracle]:
    """One search on an oracle of `ORACLES`: what it evaluated, in order, and the oracle. See `search`."""
    asked = open_oracle(oracle)
    how = {"method": method, "budget": budget, "seed": seed, "progress": progress} | options
    return search(asked.query, asked.space, **how), asked


def _surrogate(name: str, space: SearchSpace, generator: torch.Generator, settings: dict):
    steps, width = settings.get("steps", 100), settings.get("width", 64)
    if name in ("process", "ridge"):
        return surrogates.ProcessSurrogate(space, kernels=surrogates.MATERN if name == "process" else surrogates.LINEAR)
    if name == "botorch":
        return surrogates.BotorchProcess(space)
    if name.startswith("graph"):
        return surrogates.NetworkSurrogate(
            lambda archs: (space.encode(archs) + 1) / 2,
            lambda x: surrogates.GraphNetwork(space, generator, width=width, depth=2),
            bayesian_head=name == "graph-bayesian", steps=steps,
        )  # fmt: skip

    def perceptrons(members: int) -> Callable:
        return lambda x: surrogates.Perceptrons(x.shape[1], generator, members=members, width=width, depth=2)

    def structure(archs: np.ndarray) -> torch.Tensor:
        x = encoding.encode(space, archs)
        return x * x.shape[1] ** 0.5  # unit variance, as networks want it

    if name == "hamiltonian":
        return surrogates.HamiltonianSurrogate(structure, perceptrons(4), generator, rate=settings.get("rate", 3e-2))
    if name == "ensemble":
        encode = getattr(space, "paths", structure)
        return surrogates.NetworkSurrogate(encode, perceptrons(5), bayesian_head=False, steps=steps)
    return surrogates.NetworkSurrogate(structure, perceptrons(1), bayesian_head=True, steps=steps)


def _proposer(name: str, space: SearchSpace, settings: dict) -> Callable:
    if name not in PROPOSERS:
        raise unknown("proposer", name, PROPOSERS)
    if name in _SIMPLE:
        return _SIMPLE[name]
    if name == "evolved":
        usual = chosen(space.name, "ridge").get("generations", 10)
        return partial(proposers.evolved_pool, generations=settings.get("generations", usual))
    rule, usual = ("xt", "diffusionnag-copy") if name == "guided-copy" else ("x0", "diffusionnag")
    scale = settings.get("scale", chosen(space.name, usual).get("scale", 100.0))
    prior = load_score(space) if name == "guided-score" else exact_prior(space)
    usual = presets.load().get(space.name, {}).get("sampling", {})
    return proposers.GuidedPool(prior, rule=rule, scale=scale, sigma_max=usual.get("sigma_max", 5.0))
