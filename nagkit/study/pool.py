"""Pools of architectures, made in every way that the study compares: the rows of its tables, as tasks.

Each maker returns a `Task`; the exhibit adds data set and seeds. A pool is a list of raw draws: an invalid draw is a row of -1
and stays in the count, nothing is drawn again. All jobs return `archs`, int8 `(n, n_slots)`.
"""

import time
from functools import cache
from pathlib import Path

import numpy as np

from nagkit import guidance, paths, presets
from nagkit.diffusion import samplers
from nagkit.diffusion.sde import geometric_sigmas
from nagkit.predictors import images
from nagkit.rng import numpy_stream, torch_stream
from nagkit.sampling import load_predictor, load_prior
from nagkit.spaces.base import get_space, ranked
from nagkit.study.jobs import Task

# Rows -----------------------------------------------------------------------------------------------------------------


def uniform(space: str, n: int) -> Task:
    """`n` uniformly random architectures."""
    return Task(random_pool, {"space": space, "n": n})


def top(space: str, ranking: str, n: int) -> Task:
    """The `n` architectures at the top of a ranking that needs no network: one of `null_rankings` of the space."""
    return Task(null_pool, {"space": space, "ranking": ranking, "n": n})


def unguided(space: str, n: int, *, prior: str) -> Task:
    """`n` draws of a prior, without guidance."""
    return Task(sample, {"space": space, "n": n, "guide": False, **_settings(space, prior)}, checkpoints(space, prior))


def sorted_draws(space: str, n: int, *, prior: str, of: int) -> Task:
    """The `n` of `of` unguided draws that the ranking predictor scores highest (the paper's "unconditional + sorting")."""
    arguments = {"space": space, "n": n, "of": of, **_settings(space, prior)}
    return Task(best_draws, arguments, checkpoints(space, prior, "ranking"))


def every_architecture(space: str, n: int) -> Task:
    """Generate nothing: the `n` architectures that the ranking predictor scores highest in the whole (listed) space."""
    return Task(best_of_all, {"space": space, "n": n}, checkpoints(space, "exact", "ranking"))


def guided(space: str, n: int, *, prior: str, rule: str = "x0", scale: float | str | None = None) -> Task:
    """`n` draws guided towards the data set: at x̂₀ by the ranking predictor, at x_t by the noise-aware one.

    The strength is the one that was chosen on the development set, its `"diverse"` one, or the number `scale`.
    """
    scale = presets.strength(space, prior, rule, scale)
    arguments = {"space": space, "n": n, "rule": rule, "scale": scale, **_settings(space, prior)}
    return Task(sample, arguments, checkpoints(space, prior, {"x0": "ranking", "xt": "noise-aware"}[rule]))


def _settings(space: str, prior: str) -> dict[str, object]:
    usual = presets.of_space(space)["sampling"]
    return {"prior": prior} | {key: usual.get(key, 5.0) for key in ("sampler", "steps", "sigma_max")}


def checkpoints(space: str, prior: str, *predictors: str) -> tuple[Path, ...]:
    """The committed files that a pool rests on."""
    folder = paths.DATA / "checkpoints"
    found = [path for kind in predictors for path in sorted(folder.glob(f"{kind}_{space}_*.safetensors"))]
    score = [folder / f"score_{space}.safetensors"] if prior == "score" else []
    return (*score, *found, *([images.CODES] if predictors else []))


# Jobs -----------------------------------------------------------------------------------------------------------------


def random_pool(space: str, n: int, seed: int, dataset: str = "") -> dict[str, np.ndarray]:
    """A job: `n` random architectures, another stream for every data set."""
    return {"archs": get_space(space).random(n, numpy_stream(seed, f"pool/random/{dataset}"))}


def null_pool(space: str, ranking: str, n: int, seed: int) -> dict[str, np.ndarray]:
    """A job: the head of a ranking without a network, ties broken at random."""
    home = get_space(space)
    return {"archs": home.null_rankings[ranking](home.all(), numpy_stream(seed, f"pool/{ranking}"))[:n]}


def sample(
    space: str, n: int, seed: int, prior: str, sampler: str, steps: int, sigma_max: float, guide: bool = True,
    dataset: str = "", rule: str = "x0", scale: float = 0.0, training_seed: int = 0,
) -> dict[str, np.ndarray]:  # fmt: skip
    """A job: `n` raw draws, guided towards `dataset` unless `guide` is false, and their CPU `seconds`."""
    start = time.process_time()
    law = load_prior(space, prior)
    if guide:
        aim = load_predictor(space, dataset, rule=rule, training_seed=training_seed)
        law = guidance.guide(law, aim, scale, rule=rule)
    archs, _ = samplers.generate(
        get_space(space), law, n, sampler=sampler, steps=steps,
        sigmas=geometric_sigmas(steps, sigma_max=sigma_max), generator=torch_stream(seed, "sample"),
    )  # fmt: skip
    return {"archs": archs, "seconds": np.array([time.process_time() - start])}


def best_draws(space: str, n: int, of: int, seed: int, dataset: str, training_seed: int, **settings) -> dict[str, np.ndarray]:
    """A job: the `n` of `of` unguided draws that the ranking predictor scores highest, equal ones in the order of drawing."""
    archs = sample(space, of, seed, guide=False, **settings)["archs"]
    kept = archs[(archs >= 0).any(axis=1)]
    liked = load_predictor(space, dataset, training_seed=training_seed).rank(kept).round(4)
    return {"archs": kept[np.argsort(-liked, kind="stable")[:n]]}


def best_of_all(space: str, n: int, dataset: str, training_seed: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A job: the `n` architectures of the space that the ranking predictor scores highest, ties broken at random."""
    ties = numpy_stream(seed, f"pool/every/{dataset}/{training_seed}")
    return {"archs": ranked(get_space(space).all(), scores(space, dataset, training_seed), rng=ties)[:n]}


@cache
def scores(space: str, dataset: str, training_seed: int) -> np.ndarray:
    """The ranking predictor's score of every architecture of a listed space, float64 `(size,)`; isomorphic ones are tied."""
    return load_predictor(space, dataset, training_seed=training_seed).rank(get_space(space).all()).round(4)
