"""Pools guided by predictors that see other things, at strengths in the paper's unit or in standard deviations.

For `notebooks/predictor_input` and `notebooks/guidance_strength`. A strength in deviations counts those of the guiding
predictor's clean scores over the space, so that guides can be compared; a published one acts on accuracies in hundredths of a
standard deviation of the meta-training accuracies, and is turned into deviations of the noise-aware network's scores.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from nagkit import guidance, strengths
from nagkit.diffusion import samplers
from nagkit.diffusion.sde import VE
from nagkit.rng import torch_stream
from nagkit.sampling import load_predictor, load_prior
from nagkit.spaces.base import get_space
from nagkit.study import exact_guidance
from nagkit.study.exhibit import Run
from nagkit.study.jobs import Task
from nagkit.study.results import Results

GUIDES = ("xt-network", "x0-network", "x0", "xt-clean", "tilted")
"""The noise-aware network at the noisy architecture (the paper's rule) and, asked for its lowest noise level, at the denoised
one; the ranking predictor at the denoised one (our default) and at the noisy one, which it has never seen; and exact guidance
by the latter, by enumeration."""

PUBLISHED_UNIT = 100.0


def guided(space: str, guide: str, n: int, **options) -> Task:
    """A row: `n` raw draws a round of the exact prior, guided as `guide`, one of `GUIDES`, says; `options` are `draw`'s."""
    arguments = {"space": space, "guide": guide, "n": n} | options
    return Task(draw, arguments, tuple(exact_guidance.files(space)))


def draw(
    space: str, dataset: str, guide: str, n: int, training_seed: int, seed: int, strength: float | Sequence[float],
    published: bool = False,
) -> dict[str, np.ndarray]:  # fmt: skip
    """A job: `archs`, `n` raw draws for each round's `strength` by 20 ancestral steps, int8 `(draws, n_slots)`; `deviations`.

    `deviations` are the strengths in standard deviations of the predictor's scores; with `published`, `strength` is not.
    """
    rounds = np.atleast_1d(np.asarray(strength, float))
    scales = in_deviations(space, dataset, rounds, training_seed) if published else rounds
    archs = []
    for number, scale in enumerate(scales):
        generator = torch_stream(seed, f"guides/{guide}/{dataset}/{training_seed}/{rounds[number]:g}/{number}")
        law = denoiser(space, dataset, guide, training_seed, float(scale))
        archs.append(samplers.generate(get_space(space), law, n, generator=generator)[0])
    return {"archs": np.concatenate(archs), "deviations": scales}


def in_deviations(space: str, dataset: str, strength: np.ndarray, training_seed: int) -> np.ndarray:
    """Published strengths in standard deviations of the noise-aware predictor's scores over the space."""
    return strength / PUBLISHED_UNIT * exact_guidance.values(space, dataset, "noise-aware", training_seed)[1]


def denoiser(space: str, dataset: str, guide: str, training_seed: int, scale: float) -> Callable:
    """The exact prior guided as `guide`, one of `GUIDES`, says, at `scale` standard deviations of its predictor's scores."""
    if guide in exact_guidance.GUIDES:
        return exact_guidance.denoiser(space, dataset, guide, training_seed, scale)
    prior = load_prior(space, "exact")
    if guide == "xt-clean":
        return guidance.guide(prior, load_predictor(space, dataset, training_seed=training_seed), scale, rule="xt")
    unit = exact_guidance.values(space, dataset, "noise-aware", training_seed)[1]
    network = load_predictor(space, dataset, rule="xt", training_seed=training_seed)

    def clean(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        return network(x, VE().sigma_min)

    return guidance.guide(prior, clean, scale / unit)


def choose(results: Results, guides: Sequence[str], metric: str, scales: Sequence[float]) -> Mapping[str, float]:
    """The smallest strength of every guide within one standard error of its best `metric`, entered as metric "strength"."""
    if results.recorded:
        return {guide: float(results.number(guide, "chosen", "strength")["value"]) for guide in guides}
    chosen = {}
    for guide in guides:
        quality = {scale: results.samples[guide, metric, f"{scale:g}"].values.mean(axis=1) for scale in scales}
        chosen[guide] = strengths.smallest_good(quality)
        results.add(guide, "chosen", "strength", chosen[guide], n=len(quality[chosen[guide]]), unit="sd")
    return chosen


def deviations(run: Run) -> float:
    """A measure: the strength of a run in standard deviations of the noise-aware predictor's scores."""
    return float(run.arrays["deviations"].mean())


def spread(values: np.ndarray) -> float:
    """Standard deviation of the values; nan for a single one."""
    return float(values.std(ddof=1)) if len(values) > 1 else np.nan


def top_five(space: str, statistic: Callable[[np.ndarray], float] = np.mean) -> Callable[[Run], float]:
    """A measure: `statistic` of the five distinct valid draws that the run's ranking predictor scores highest."""

    def measure(run: Run) -> float:
        if not len(run.valid):
            return np.nan
        scores = load_predictor(space, run.column, training_seed=run.seeds["training_seed"]).rank(run.valid).round(4)
        first = np.sort(np.unique(run.valid, axis=0, return_index=True)[1])
        best = first[np.argsort(-scores[first], kind="stable")][:5]
        return float(statistic(run.values[best]))

    return measure
