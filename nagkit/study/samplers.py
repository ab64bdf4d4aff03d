"""How far samplers end from a law that is known: total variation by network calls, for `notebooks/figure_samplers`."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from nagkit.diffusion import samplers
from nagkit.diffusion.exact import ExactDenoiser, exact_prior
from nagkit.diffusion.sde import geometric_sigmas
from nagkit.diffusion.train import load_score
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces.base import get_space
from nagkit.study.estimates import Interval, mean_ci
from nagkit.study.jobs import Task
from nagkit.study.results import Results

BATCH = 500
"""Draws that are sampled together: spelled because the corrector couples the draws of a batch."""

FLOOR = "exact draws"
UNIT = "probability"


def measure(results: Results, law: Mapping[str, str], rows: Mapping[str, tuple[str, float, Sequence[int]]], **sizes) -> None:
    """Add what every sampler of `rows` (name → sampler, first sigma, numbers of steps) makes of a `law`, and the floor.

    `law` is `{"name", "space", "prior"}`, see `target`. Metrics: "total variation" (to the law, of operations on a slot, mean
    over slots; an invalid draw counts as mass outside), "validity" and, where the denoiser costs nothing, "time" for 10,000
    draws; the column counts network calls. `sizes`: `n` draws, `n_seeds`, and `n_floor` repeats of as many exact draws.
    """
    n_seeds, n_floor = sizes["n_seeds"], sizes["n_floor"]
    common = {"law": dict(law), "n": sizes["n"], "seeds": [100 * results.exhibit.seed + number for number in range(n_seeds)]}
    keys = [(row, sampler, sigma, steps) for row, (sampler, sigma, counts) in rows.items() for steps in counts]
    tasks = [
        Task(draw, common | {"row": row, "sampler": sampler, "sigma_max": sigma, "steps": steps})
        for row, sampler, sigma, steps in keys
    ]
    seeds = [100 * results.exhibit.seed + number for number in range(n_floor)]
    *made, floor = results.do([*tasks, Task(draw_exactly, {"law": dict(law), "n": sizes["n"], "seeds": seeds})])
    prefix = "" if law["name"] == "skewed" else f"{law['name']} "
    for (row, sampler, _, steps), found in zip(keys, made, strict=True):
        calls = str(samplers.network_calls(sampler, steps))
        results.measured(row, calls, f"{prefix}total variation", found["error"], UNIT)
        results.measured(row, calls, f"{prefix}validity", found["valid"], "%")
        if not prefix:
            results.measured(row, calls, "time", found["seconds"], "s")
    spread = Interval(mean_ci(floor["error"]).mean, *map(float, np.quantile(floor["error"], [0.025, 0.975])))
    results.add(FLOOR, "0", f"{prefix}total variation", spread, n=n_floor, unit=UNIT)


def draw(
    law: Mapping[str, str], row: str, sampler: str, sigma_max: float, steps: int, n: int, seeds: Sequence[int]
) -> dict[str, np.ndarray]:
    """A job: `error` and `valid` (percent) of `n` draws for each of `seeds`, and CPU `seconds` for 10,000, `(seeds,)` each."""
    space, denoiser, goal = target(**law)
    error, valid, seconds = np.empty((3, len(seeds)))
    for i, seed in enumerate(seeds):
        generator, start = torch_stream(seed, f"samplers/{law['name']}/{row}/{steps}"), time.process_time()
        options = {"sampler": sampler, "sigmas": geometric_sigmas(steps, sigma_max=sigma_max), "batch_size": BATCH}
        archs, errors = samplers.generate(space, denoiser, n, generator=generator, **options)
        seconds[i] = (time.process_time() - start) * 10_000 / n
        error[i], valid[i] = total_variation(archs, errors, goal), 100 * (errors == "").mean()
    return {"error": error, "valid": valid, "seconds": seconds}


def draw_exactly(law: Mapping[str, str], n: int, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """A job: the `error` of `n` independent draws from the law itself, float64 `(seeds,)`: what no sampler can fall below."""
    space, denoiser, goal = target(**law)
    exact = denoiser if hasattr(denoiser, "sample") else exact_prior(space)
    draws = [space.decode(exact.sample(n, torch_stream(seed, f"samplers/{law['name']}/floor"))) for seed in seeds]
    return {"error": np.array([total_variation(*each, goal) for each in draws])}


def target(name: str, space: str, prior: str):
    """The space, a denoiser, and the law that it should draw: `(n_slots, 1 + n_ops)`, first an absent slot.

    `prior` "dirichlet": independent rows whose weights are drawn once from a flat Dirichlet distribution, with their exact
    denoiser; "exact": the space's first law with its exact denoiser; "score": the same law with our trained network.
    """
    home = get_space(space)
    if prior == "dirichlet":
        return home, *skewed(home)
    exact = exact_prior(home)
    goal = _operations(home, exact)
    return home, exact if prior == "exact" else load_score(home), goal


def skewed(space) -> tuple[ExactDenoiser, np.ndarray]:
    """The exact denoiser of independent rows with weights from a flat Dirichlet distribution (a fixed seed), and their law."""
    weights, rng = space.allowed.astype(float), numpy_stream(0, "figure_samplers/law")
    free = np.flatnonzero(space.allowed.sum(axis=1) > 1)
    weights[space.allowed & (space.allowed.sum(axis=1, keepdims=True) > 1)] = rng.dirichlet(
        np.ones(int(space.allowed[free[0]].sum())), len(free)
    ).ravel()
    denoiser = ExactDenoiser(space.allowed, weights)
    return denoiser, _operations(space, denoiser)


def _operations(space, denoiser) -> np.ndarray:
    """Probabilities of absence and of each operation on every slot of an architecture under the law of a closed form."""
    chance = denoiser.probabilities(torch.zeros(1, space.n_nodes, space.n_ops), 1e6)[0].double().numpy()
    free = space.allowed.sum(axis=1) > 1
    rows = [row[allowed] for row, allowed in zip(chance[free], space.allowed[free], strict=True)]
    rows = np.stack(rows)
    return np.concatenate([1 - rows.sum(axis=1, keepdims=True), rows], axis=1)


def total_variation(archs: np.ndarray, errors: np.ndarray, law: np.ndarray) -> float:
    """Mean over slots of the total variation between draws and `law` `(n_slots, 1 + n_ops)`; invalid draws are off the law."""
    outcome = np.where((errors == "")[:, None], archs + 1, -1)
    drawn = (outcome[:, :, None] == np.arange(law.shape[1])).mean(axis=0)
    return float((np.abs(drawn - law).sum(axis=1) + 1 - drawn.sum(axis=1)).mean() / 2)
