"""Guidance strengths, chosen for each space on the development set that its block in data/presets.yaml names."""

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from nagkit import objectives, presets
from nagkit.benchmarks.table import open_benchmark
from nagkit.diffusion import samplers
from nagkit.errors import NagkitError
from nagkit.guidance import RULES, guide
from nagkit.predictors import objective
from nagkit.rng import numpy_stream, torch_stream
from nagkit.sampling import PRIORS, Pool, generate, load_prior
from nagkit.spaces.base import get_space, keys

KEPT = 0.9
"""The diverse strength is the best that keeps this share of the distinct architectures of unguided draws."""
SCALES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Guidance scales tried on the development set."""
SWEEP = ["rule", "prior", "scale", "seed", "valid", "distinct", "development accuracy"]
_FIRST = 10_000  # development seeds, which no reported run has


def choose(space: str, *, scales: Sequence[float] | None = None, n: int = 1000, progress: bool = True) -> pd.DataFrame:
    """Choose the guidance scale of every rule and prior of a space, write them to data/presets.yaml, show the sweep.

    The block `development` names data set and split. A pool is worth the mean accuracy of all its raw draws, an invalid one
    counting as zero; or, where the block says `top`, of that many distinct architectures which the predictor ranks highest.
    Three training seeds of the predictor, one sampling seed each. Among the scales within one standard error of the best
    the smallest is chosen, which keeps the pool diverse. Where the space has a "diverse" strength, it is the best whose pools
    hold at least `KEPT` of the distinct architectures of unguided draws. Where the block names an `objective`, a column of
    the benchmark, the scale for predictors of one objective is chosen on it.
    """
    presets.of_space(space)
    settings = copy.deepcopy(presets.load())
    block = settings[space]
    if "development" not in block:
        raise NagkitError(f"space {space} names no development set; add a block development to data/presets.yaml")
    development, rows = block["development"], []
    scales = scales or development.get("scales", SCALES)
    worth = _worth(space, **development)
    for rule in (rule for rule in RULES if rule in block["scale"]):
        for prior in PRIORS:
            found: dict[float, list[float]] = {scale: [] for scale in (0.0, *scales)}
            distinct = dict.fromkeys(found, 0)
            for scale in tqdm(found, desc=f"{rule}, {prior} prior", disable=not progress):
                for seed in range(3):
                    pool = generate(space, n, guide=development["dataset"], prior=prior, rule=rule, scale=scale,
                                    seed=_FIRST + seed, training_seed=seed)  # fmt: skip
                    different = len(np.unique(keys(pool.valid)))
                    found[scale].append(worth(pool))
                    distinct[scale] += different
                    rows.append((rule, prior, scale, seed, len(pool.valid), different, found[scale][-1]))
            block["scale"][rule][prior] = smallest_good({scale: np.array(found[scale]) for scale in scales})
            if presets.DIVERSE in block:
                wide = [scale for scale in scales if distinct[scale] >= KEPT * distinct[0.0]]
                block[presets.DIVERSE][rule][prior] = max(wide, key=lambda scale: np.mean(found[scale]))
    if "objective" in development:
        rows += _for_objectives(space, block["scale"], development["objective"], scales, n, progress)
    presets.write(settings)
    return pd.DataFrame(rows, columns=SWEEP)


def smallest_good(pools: dict[float, np.ndarray]) -> float:
    """The smallest of the scales whose mean value is within one standard error of the best."""
    best = max(pools.values(), key=np.mean)
    floor = best.mean() - best.std(ddof=1) / len(best) ** 0.5
    return min(scale for scale, values in pools.items() if values.mean() >= floor)


def _worth(space: str, dataset: str, split: str, top: int | None = None, oracle: str = "auto", **_) -> Callable[[Pool], float]:
    bench = open_benchmark(space, oracle, dataset=dataset)

    def worth(pool: Pool) -> float:
        if top is None:
            return float(bench.query(pool.valid, dataset, split=split).sum()) / len(pool)
        archs, scores = pool.valid, pool.scores["predicted"][pool.errors == ""]
        first = np.sort(np.unique(keys(archs), return_index=True)[1])
        best = archs[first[np.argsort(-scores[first].round(4), kind="stable")]][:top]
        return float(bench.query(best, dataset, split=split).mean())

    return worth


def _for_objectives(space: str, chosen: dict, metric: str, scales: Sequence[float], n: int, progress: bool) -> Iterator[tuple]:
    """The scale for predictors of one objective, on the development objective: five sets of random measured pairs."""
    home = get_space(space)
    truth = open_benchmark(space).column("cifar10", split="test", metric=metric)
    pools: dict = {name: {scale: [] for scale in scales} for name in PRIORS}
    for seed in tqdm(range(_FIRST, _FIRST + 5), desc="objective", disable=not progress):
        measured = numpy_stream(seed, "presets/objective").choice(home.size, objectives.PAIRS, replace=False)
        fitted = objective.fit(home.all()[measured], truth[measured], model="propagation", seed=seed)
        for name in PRIORS:
            for scale in scales:
                law = guide(load_prior(space, name), fitted.predictor, scale)
                archs, errors = samplers.generate(home, law, n, generator=torch_stream(seed, "presets/objective"))
                codes = home.code(archs[errors == ""])
                pools[name][scale].append(truth[codes].sum() / n)
                yield "objective", name, scale, seed - _FIRST, len(codes), len(np.unique(codes)), pools[name][scale][-1]
    for name, found in pools.items():
        values = np.array([found[scale] for scale in scales])
        values -= values.mean(axis=0)  # some sets of pairs teach more than others, at every scale
        chosen.setdefault("objective", {})[name] = smallest_good(dict(zip(scales, values, strict=True)))
