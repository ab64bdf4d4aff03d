"""DiffusionNAG as its code runs it on NAS-Bench-201: rounds of strongly guided draws until ten distinct cells exist."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nagkit import cluster, paths, presets
from nagkit.diffusion import samplers
from nagkit.diffusion.sde import paper_sigmas
from nagkit.predictors import images
from nagkit.rng import torch_stream
from nagkit.spaces import nb201

START, DECREASE = 100.0, 3.0
"""Guidance strength of the first round and its decrease per round, in standard deviations of the meta-training accuracy: the
published 10,000 and 300 act on labels in hundredths of one."""

ENOUGH, MAX_ROUNDS = 10, 20
DRAWS, STEPS = 64, 1000
"""Draws a round (256 in the published code; a quarter of the cost) and sampler steps."""

ERRORS = ("", "not finite", "no operation", "several operations", "misplaced input or output")
"""Why a draw is invalid; `round_of_draws` returns positions in this list."""


class Pool(NamedTuple):
    """What the rounds of one run gave."""

    archs: np.ndarray
    """Distinct valid cells in the order in which they were first drawn, int8 `(m, 6)`."""
    rounds: int
    drawn: int
    valid: int
    seconds: float
    """CPU time."""


def round_of_draws(
    dataset: str, training_seed: int, seed: int, scale: float, n: int = DRAWS, steps: int = STEPS
) -> dict[str, np.ndarray]:
    """One round: `n` raw draws guided at x_t with strength `scale`, a job for `map_jobs`.

    `archs` is int8 `(n, 6)`, -1 in invalid rows; `errors` int8 `(n,)`, positions in `ERRORS`; `seconds` of CPU. Trained prior
    and noise-aware predictor of `training_seed`, `steps` steps of predictor-corrector sampling, threshold decoding. The
    draws of a round are one batch, whose mean norms size the corrector's step, as published.
    """
    start = time.process_time()
    archs, errors = samplers.generate(
        nb201.Space(),
        presets.denoiser("nb201", prior_name="score", dataset=dataset, rule="xt", scale=scale, seed=training_seed),
        n,
        sampler="pc",
        sigmas=paper_sigmas(steps).float(),
        generator=torch_stream(seed, f"published/{dataset}/{training_seed}/{scale:g}"),
        batch_size=n,
    )
    kinds = np.array([ERRORS.index(error) for error in errors], np.int8)
    return {"archs": archs, "errors": kinds, "seconds": np.array([time.process_time() - start])}


def inputs() -> tuple[Path, ...]:
    """The committed files that a round rests on."""
    checkpoints = paths.DATA / "checkpoints"
    return (checkpoints / "score_nb201.safetensors", *sorted(checkpoints.glob("noise-aware_nb201_*.safetensors")), images.CODES)


def draws(
    runs: Sequence[tuple[str, int, int]],
    scale: float = START,
    *,
    n: int = DRAWS,
    steps: int = STEPS,
    n_workers: int = 1,
    progress: bool = True,
) -> list[dict[str, np.ndarray]]:
    """`round_of_draws` for every run `(dataset, training_seed, seed)`, kept: exhibits that ask for the same round share it."""
    names = ("dataset", "training_seed", "seed")
    jobs = [dict(zip(names, run, strict=True)) | {"scale": float(scale), "n": n, "steps": steps} for run in runs]
    return cluster.map_jobs(round_of_draws, jobs, data=inputs(), n_workers=n_workers, progress=progress)


def pools(runs: Sequence[tuple[str, int, int]], **options) -> list[Pool]:
    """The published stopping rule for every run: rounds of falling strength until `ENOUGH` distinct valid cells exist.

    `options` are those of `draws`.
    """
    found: list[list[dict[str, np.ndarray]]] = [[] for _ in runs]
    for number in range(MAX_ROUNDS):
        unfinished = [i for i, rounds in enumerate(found) if len(_distinct(rounds)) < ENOUGH]
        if not unfinished:
            break
        made = draws([runs[i] for i in unfinished], START - DECREASE * number, **options)
        for i, result in zip(unfinished, made, strict=True):
            found[i].append(result)
    return [_pool(rounds) for rounds in found]


def _pool(rounds: list[dict[str, np.ndarray]]) -> Pool:
    drawn = sum(len(result["archs"]) for result in rounds)
    seconds = sum(float(result["seconds"][0]) for result in rounds)
    return Pool(_distinct(rounds), len(rounds), drawn, len(_valid(rounds)), seconds)


def _valid(rounds: list[dict[str, np.ndarray]]) -> np.ndarray:
    return np.concatenate([np.empty((0, 6), np.int8), *(result["archs"][result["errors"] == 0] for result in rounds)])


def _distinct(rounds: list[dict[str, np.ndarray]]) -> np.ndarray:
    archs = _valid(rounds)
    return archs[np.sort(np.unique(archs, axis=0, return_index=True)[1])]
