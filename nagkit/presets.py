"""Settings chosen on the development sets (data/presets.yaml), and sampling with them in one call."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import yaml

from nagkit import paths
from nagkit.diffusion import exact, samplers
from nagkit.diffusion import train as score
from nagkit.diffusion.sde import paper_sigmas
from nagkit.errors import NagkitError, unknown
from nagkit.guidance import RULES, guide
from nagkit.predictors import task
from nagkit.predictors import train as predictors
from nagkit.rng import torch_stream
from nagkit.spaces.base import get_space

PRIORS = ("exact", "score")
PRESETS = ("ours", "paper")
_PREDICTOR = {"x0": "ranking", "xt": "noise-aware"}


@cache
def load() -> dict:
    """The contents of data/presets.yaml."""
    return yaml.safe_load((paths.DATA / "presets.yaml").read_text())


@cache
def predictor(space: str, dataset: str, *, rule: str = "x0", seed: int = 0) -> task.TaskPredictor:
    """The predictor that guides towards `dataset` by `rule`: the ranking one at x̂₀, the noise-aware one at x_t.

    `seed` is its training seed. Data sets without images are predicted with the mean code of the training tasks.
    """
    targets = load()[space]["targets"]
    if dataset not in targets:
        raise unknown("data set to guide towards", dataset, targets)
    if rule not in RULES:
        raise unknown("guidance rule", rule, RULES)
    return predictors.load(_PREDICTOR[rule], dataset if dataset in task.CODED else task.NO_CODE, seed=seed)


@cache
def prior(space: str, name: str) -> Callable:
    """The unguided denoiser: "exact" in closed form, or the trained "score" network."""
    if name not in PRIORS:
        raise unknown("prior", name, PRIORS)
    home = get_space(space)
    return exact.exact_prior(home) if name == "exact" else score.load_score(home)


def denoiser(
    space: str,
    *,
    prior_name: str = "exact",
    dataset: str | None = None,
    rule: str | None = None,
    scale: float | None = None,
    seed: int = 0,
) -> Callable:
    """The prior's denoiser, guided towards `dataset` when there is one, at the strength chosen for this prior and rule."""
    law = prior(space, prior_name)
    if dataset is None:
        if rule is not None or scale is not None:
            raise NagkitError("a guidance rule or scale is given without a data set to guide towards; add --guide DATASET")
        return law
    rule = rule or load()[space]["rule"]
    aim = predictor(space, dataset, rule=rule, seed=seed)
    return guide(law, aim, load()[space]["scale"][rule][prior_name] if scale is None else scale, rule=rule)


def sample(
    space: str,
    n: int,
    *,
    seed: int = 0,
    preset: str = "ours",
    prior_name: str | None = None,
    dataset: str | None = None,
    rule: str | None = None,
    scale: float | None = None,
    sampler: str | None = None,
    steps: int | None = None,
    decode: str = "threshold",
    training_seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """`n` raw draws as a table: `arch` (empty when invalid), `error`, and `predicted` when guided.

    `preset` "paper" is the method as published: trained prior, noise-aware guidance at x_t, 1,000-step predictor-corrector.
    `predicted` is the ranking predictor's score in standard deviations over the space, also where another one guided.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    settings = load()[space]["presets"][preset]
    prior_name = prior_name or settings["prior"]
    if dataset is not None:
        rule = rule or settings["rule"]
        scale = settings.get("scale") if scale is None and rule == settings["rule"] else scale
    steps = settings["steps"] if steps is None else steps
    home = get_space(space)
    archs, errors = samplers.generate(
        home,
        denoiser(space, prior_name=prior_name, dataset=dataset, rule=rule, scale=scale, seed=training_seed),
        n,
        sampler=sampler or settings["sampler"],
        steps=steps,
        sigmas=paper_sigmas(steps).float() if preset == "paper" and steps >= 1 else None,
        generator=torch_stream(seed, "sample"),
        decode=decode,
        progress=progress,
    )
    valid = errors == ""
    pool = pd.DataFrame({"arch": "", "error": errors})
    pool.loc[valid, "arch"] = home.to_string(archs[valid])
    if dataset is not None:
        pool["predicted"] = np.nan
        pool.loc[valid, "predicted"] = predictor(space, dataset, seed=training_seed).rank(archs[valid]).round(4)
    return pool
