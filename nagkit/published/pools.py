"""Pools of NAS-Bench-201 cells as the published code makes them: jobs of plain arguments that return named arrays."""

import time
from collections.abc import Mapping

import numpy as np
import torch

from nagkit.errors import NagkitError, unknown
from nagkit.published import checkpoints, graphs, losses, networks, sampler
from nagkit.rng import torch_stream
from nagkit.spaces.base import get_space

PRIORS = ("exact", "score")
Arrays = dict[str, np.ndarray]


def pool(
    dataset: str, training_seed: int, seed: int, n: int = 256, strength: float = 10_000.0, batch: int = 256, **settings
) -> Arrays:
    """`n` raw draws in rounds of `batch`, which the corrector couples, guided towards `dataset` by a training seed's guide.

    Every round is as large as `n` or `batch`; of the last one what is left over is dropped.

    Returns `archs` int8 `(n, 6)` (-1 when invalid), `errors` int8 `(n,)` (index into `sampler.CELL_ERRORS`), and CPU `seconds`
    `(1,)`. `settings`: see `_score`, and those of `sampler.sample` (`steps`, `length`, `coupling`, `corrector`, `snr`).
    `strength` 0 draws from the prior alone. Raises `NagkitError` for unknown switches and a guide that is not trained.
    """
    start = time.process_time()
    score, options = _score(dataset, training_seed, seed, strength, **settings)
    stream, size = torch_stream(seed, f"published/pool/{dataset}"), min(n, batch)
    times = max(1, -(-n // max(1, size)))
    archs, errors = zip(*(_draw(score, size, stream, options) for _ in range(times)), strict=True)
    done = {"archs": np.concatenate(archs)[:n], "errors": _kinds(np.concatenate(errors))[:n]}
    return done | {"seconds": np.array([time.process_time() - start])}


def rounds(
    dataset: str, training_seed: int, seed: int, schedule: str = "published", batch: int = 256, wanted: int = 10, **settings
) -> Arrays:
    """The published run: rounds of `batch` draws at the strengths of a `schedule` until `wanted` distinct valid cells exist.

    Returns, for every draw of every round, `archs`, `errors` and `strength` float64 `(N,)`; and `distinct` int8 `(M, 6)`, which
    the published protocol ranks, in the order of drawing; and `seconds`. `schedule` is one of `sampler.SCHEDULES`; "balanced",
    which stands in the review discussion only, always runs its three rounds. `settings` as for `pool`.
    """
    start, stream = time.process_time(), torch_stream(seed, f"published/rounds/{dataset}")

    def draw(strength: float) -> tuple[np.ndarray, np.ndarray]:
        score, options = _score(dataset, training_seed, seed, strength, **settings)
        return _draw(score, batch, stream, options)

    if schedule == "balanced":
        used = [float(strength) for strength in sampler.SCHEDULES["balanced"]()]
        archs, errors = zip(*map(draw, used), strict=True)
    else:
        archs, errors, used = sampler.rounds(draw, schedule, wanted=wanted, batch=batch)
    return {
        "archs": np.concatenate(archs),
        "errors": _kinds(np.concatenate(errors)),
        "strength": np.repeat(used, batch),
        "distinct": sampler.distinct(archs, errors),
        "seconds": np.array([time.process_time() - start]),
    }


@torch.inference_mode()
def scores(
    dataset: str, training_seed: int, seed: int = 0, *, kind: str = "guide", mask: str = "closure", wiring: str = "published",
    level: float | None = None, draws: int = 1, n_images: int = 1, trained: Mapping | None = None,
) -> Arrays:  # fmt: skip
    """What a trained network predicts for every clean cell in the order of the space, float64 `(15625,)` under "scores".

    `kind` "guide" asks the noise-aware predictor at noise `level`, by default that of the end of sampling; "ranker" the ranking
    predictor (`mask`, `wiring` and `level` do not matter then), whose published score is the mean over 10 `draws` of images.
    """
    space, model = get_space("nb201"), checkpoints.load(kind, training_seed, **(trained or {}))
    if kind == "guide":
        graph, level = graphs.mask("nb201", mask, wiring), losses.sigma(losses.FLOOR, 20.0) if level is None else level
        cells = torch.cat([model.encode(part, level, graph) for part in space.encode(space.all()).split(2048)])
    else:
        types = torch.from_numpy(graphs.ranker_types("nb201", space.all()))
        cells = torch.cat([model.encode(part) for part in types.split(2048)])
    codes = [checkpoints.target_code(model, dataset, seed * draws + draw, n_images) for draw in range(draws)]
    return {"scores": np.mean([networks.predict(model, code, cells).double().numpy() for code in codes], axis=0)}


def _score(
    dataset: str, training_seed: int, seed: int, strength: float, *, prior: str = "exact", mask: str = "closure",
    wiring: str = "published", n_images: int = 1, trained: Mapping | None = None, prior_trained: Mapping | None = None,
    **options,
) -> tuple[sampler.Score, dict]:  # fmt: skip
    """The guided score, and what is left for the sampler.

    `prior` "exact" is the closed form, a perfectly trained score network, which needs no mask; "score" the trained one of
    training seed 0. `mask` and `wiring` are those that score network and guide are *asked* with; `trained` and `prior_trained`
    are settings of the guide's and the score network's training that differ from the published ones. `n_images` of a class of
    `dataset` make its code.
    """
    if prior not in PRIORS:
        raise unknown("prior of the published method", prior, PRIORS)
    if not 0 <= strength < float("inf"):
        raise NagkitError(f"guidance strength must be a finite number >= 0, got {strength}")
    if prior == "exact":
        score = sampler.exact_score("nb201")
    else:
        network, graph = checkpoints.load("score", 0, **(prior_trained or {})), graphs.mask("nb201", mask, wiring)
        score = lambda x, level: network(x, level, graph)  # noqa: E731
    if strength:
        model = checkpoints.load("guide", training_seed, **(trained or {}))
        guide = checkpoints.bind(model, dataset, seed, mask=mask, wiring=wiring, n_images=n_images)
        score = sampler.guided(score, guide, strength)
    return score, options


def _draw(score: sampler.Score, n: int, stream: torch.Generator, options: Mapping) -> tuple[np.ndarray, np.ndarray]:
    if n < 1:
        raise NagkitError(f"a pool needs at least 1 draw, got {n}")
    return sampler.cells(sampler.sample(score, lambda: torch.randn(n, 8, 7, generator=stream), **options))


def _kinds(errors: np.ndarray) -> np.ndarray:
    return np.array([sampler.CELL_ERRORS.index(error) for error in errors], np.int8)
