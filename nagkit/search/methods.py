"""Every search method by name, and one run of one: the same budget, initial design and seed streams for all."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from nagkit import presets
from nagkit.benchmarks.table import open_benchmark
from nagkit.errors import NagkitError, unknown
from nagkit.rng import numpy_stream, torch_stream
from nagkit.search import baselines, encoding, proposers, surrogates
from nagkit.search.acquisition import ACQUISITIONS
from nagkit.search.loop import ModelBased
from nagkit.spaces.base import SearchSpace, get_space

DESIGN, BATCH = 20, 5
"""Architectures of the initial design, and architectures that a model-based method chooses in each round."""

METHODS = {
    "random": "Random",
    "local-search": "Local search",
    "evolution": "Evolution",
    "gcn": "GCN predictor",
    "bananas": "BANANAS",
    "bonas": "BONAS",
    "dngo": "DNGO",
    "bohamiann": "BOHAMIANN",
    "gp": "GP (BoTorch)",
    "ridge": "Ridge, evolved pool",
    "diffusionnag": "DiffusionNAG + BO",
    "diffusionnag-copy": "DiffusionNAG + BO, noise-aware copy",
}
MODEL_FREE = {"random", "local-search", "evolution"}
PROPOSERS = {
    "random": "Random",
    "mutation": "Mutation",
    "mutation+random": "Mutation + random",
    "evolved": "Surrogate-evolved",
    "guided": "Guided, clean surrogate",
    "guided-copy": "Guided, noise-aware copy",
    "guided-score": "Guided, trained prior",
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


ORACLES = {
    "ofa": ("mbv3", "ofa", 224),
    "ofa-160": ("mbv3", "ofa", 160),
    "measured-surrogate": ("mbv3", "measured-surrogate", 224),
    "cifar10": ("nb201", "cifar10", "test", "test"),
    "cifar100": ("nb201", "cifar100", "test", "test"),
    "cifar10-honest": ("nb201", "cifar10", "validation12", "test"),
    "cifar100-honest": ("nb201", "cifar100", "validation12", "test"),
    "imagenet16-120-validation": ("nb201", "imagenet16-120", "validation12", "validation12"),
}
"""MBv3: ImageNet top-1 by the published predictor (or its embedded copy) and by the surrogate of the measurements. NB201:
200-epoch test accuracy as the paper, or, "honest", 12-epoch validation accuracy with the test accuracy reported."""
DEVELOPMENT = {"mbv3": "ofa-160", "nb201": "imagenet16-120-validation"}
DEFAULT_ORACLE = {"mbv3": "ofa", "nb201": "cifar100"}


def open_oracle(name: str) -> Oracle:
    """The oracle called `name`, one of `ORACLES`."""
    if name not in ORACLES:
        raise unknown("search oracle", name, ORACLES)
    space, *rest = ORACLES[name]
    if space == "mbv3":
        which, resolution = rest
        bench = open_benchmark(space, "auto" if which == "ofa" else which, resolution=resolution)
        return Oracle(space, lambda archs: bench.query(archs, split="test"), None, np.nan, bench.oracle, bench.describe())
    dataset, asked, reported = rest
    bench = open_benchmark(space)

    def column(split: str) -> Callable[[np.ndarray], np.ndarray]:
        return lambda archs: bench.query(archs, dataset, split=split)

    report = None if asked == reported else column(reported)
    return Oracle(space, column(asked), report, bench.optimum(dataset, split=reported), bench.oracle, bench.describe())


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
    if acquisition is not None and acquisition not in ACQUISITIONS:
        raise unknown("acquisition function", acquisition, ACQUISITIONS)
    given, settings = settings, chosen(space.name, method) | settings
    if method in MODEL_FREE:
        if acquisition or proposer:
            raise NagkitError(f"method {method} has no surrogate: leave acquisition function and proposer out")
        make = {"random": baselines.RandomSearch, "local-search": baselines.LocalSearch}
        return make.get(method, baselines.RegularizedEvolution)(space, rng, **settings)
    surrogate, usual, acquire = _RECIPE[method]
    usual = settings.get("proposer", usual)
    # another proposer than the method's own has settings of its own
    propose = _proposer(proposer or usual, space, settings if proposer in (None, usual) else given)
    return ModelBased(
        space, rng, generator, surrogate=_surrogate(surrogate, space, generator, settings), proposer=propose,
        acquisition=acquisition or acquire, watch=watch,
    )  # fmt: skip


def chosen(space: str, method: str) -> dict:
    """Settings of a method that were chosen on the development set of a space."""
    return presets.of_space(space).get("search", {}).get(method, {})


def run(
    oracle: str, method: str, seed: int, *, budget: int = 100, progress: bool = False, **options
) -> tuple[baselines.History, Oracle]:
    """One search: what it evaluated, in order, and the oracle. The initial design depends on `seed` and the space alone.

    `options` go to `build`.

    `NagkitError` for a budget that is smaller than the design, and as `build` and `open_oracle`.
    """
    asked = open_oracle(oracle)
    space = get_space(asked.space)
    stream, taken = numpy_stream(seed, f"search/design/{space.name}"), set()
    design = np.concatenate([baselines.unseen(space, stream, taken) for _ in range(DESIGN)])
    searcher = build(method, space, numpy_stream(seed, "search"), torch_stream(seed, "search"), **options)
    batch = 1 if method in MODEL_FREE else BATCH
    return baselines.run(searcher, asked.query, budget, batch=batch, design=design, progress=progress), asked


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
    simple = {"random": proposers.random_pool, "mutation": proposers.mutation_pool}
    simple["mutation+random"] = proposers.mutation_random_pool
    if name in simple:
        return simple[name]
    if name == "evolved":
        usual = chosen(space.name, "ridge").get("generations", 10)
        return proposers.EvolvedPool(generations=settings.get("generations", usual))
    rule, usual = ("xt", "diffusionnag-copy") if name == "guided-copy" else ("x0", "diffusionnag")
    scale = settings.get("scale", chosen(space.name, usual).get("scale", 100.0))
    prior = presets.prior(space.name, "score" if name == "guided-score" else "exact")
    sigma_max = presets.of_space(space.name)["presets"]["ours"].get("sigma_max", 5.0)
    return proposers.GuidedPool(prior, rule=rule, scale=scale, sigma_max=sigma_max)
