"""The published method beside ours: pools of cells, and scores of every cell, as tasks for an exhibit.

The published guide is asked with the mask and wiring of the published run unless a task says otherwise; its training seeds are
those whose networks are committed (`nagkit.published.checkpoints.training_seeds`). All jobs are of NAS-Bench-201.
"""

import time

import numpy as np

from nagkit import guidance, paths
from nagkit.diffusion import samplers
from nagkit.diffusion.sde import geometric_sigmas
from nagkit.predictors import images
from nagkit.published import checkpoints, pools
from nagkit.rng import torch_stream
from nagkit.sampling import load_predictor, load_prior
from nagkit.spaces.base import get_space
from nagkit.study.jobs import Task

_KIND = {"x0": "ranking", "xt": "noise-aware"}


def published(n: int, **settings) -> Task:
    """`n` draws of the published method with the closed-form prior; `settings` are those of `pools.pool`."""
    return _task(pools.pool, {"n": n} | settings)


def ancestral(n: int, strength: float = 10_000.0, **settings) -> Task:
    """`n` draws guided by the published guide at x_t, by our sampler; `settings` are those of `draw`."""
    return _task(draw, {"n": n, "strength": strength} | settings)


def asked(**settings) -> Task:
    """What the published guide says of every cell; `settings` are those of `pools.scores`."""
    return _task(pools.scores, settings)


def ours(rule: str) -> Task:
    """What our predictor for a guidance `rule` says of every cell."""
    found = sorted((paths.DATA / "checkpoints").glob(f"{_KIND[rule]}_nb201_*.safetensors"))
    return Task(rank, {"rule": rule}, (*found, images.CODES))


def _task(function, arguments: dict) -> Task:
    changed = arguments.get("trained", {})
    networks = [checkpoints.checkpoint("guide", seed, **changed) for seed in checkpoints.training_seeds("guide", **changed)]
    return Task(function, arguments, (*networks, images.CODES))


def draw(
    dataset: str, training_seed: int, seed: int, n: int, strength: float, mask: str = "closure", wiring: str = "published",
    steps: int = 20, sigma_max: float = 5.0,
) -> dict[str, np.ndarray]:  # fmt: skip
    """A job: `archs`, `n` raw draws by ancestral steps with the published guide, int8 `(n, 6)`, and their CPU `seconds`."""
    start = time.process_time()
    guide = checkpoints.bind(checkpoints.load("guide", training_seed), dataset, seed, mask=mask, wiring=wiring)
    law = guidance.guide(load_prior("nb201", "exact"), guide, strength, rule="xt")
    archs, _ = samplers.generate(
        get_space("nb201"), law, n, sampler="ancestral", steps=steps,
        sigmas=geometric_sigmas(steps, sigma_max=sigma_max), generator=torch_stream(seed, f"ladder/{dataset}"),
    )  # fmt: skip
    return {"archs": archs, "seconds": np.array([time.process_time() - start])}


def rank(dataset: str, training_seed: int, rule: str) -> dict[str, np.ndarray]:
    """A job: our `scores` of every cell by the predictor of a `rule`, float64 `(15625,)`."""
    predictor = load_predictor("nb201", dataset, rule=rule, training_seed=training_seed)
    return {"scores": predictor.rank(get_space("nb201").all()).round(4)}  # isomorphic cells stay tied
