"""Settings chosen on the development sets (data/presets.yaml), and sampling with them in one call."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import yaml

from nagkit import paths
from nagkit.diffusion import exact, samplers
from nagkit.errors import NagkitError, unknown
from nagkit.guidance import guide
from nagkit.predictors import ranking
from nagkit.rng import torch_stream
from nagkit.spaces.base import get_space

PRIORS = ("exact",)


@cache
def load() -> dict:
    """The contents of data/presets.yaml."""
    return yaml.safe_load((paths.DATA / "presets.yaml").read_text())


def predictor(space: str, dataset: str) -> ranking.CellPropagation:
    """The predictor that guides towards `dataset`."""
    targets = load()[space]["targets"]
    if dataset not in targets:
        raise unknown("data set to guide towards", dataset, targets)
    return ranking.load()


def denoiser(space: str, *, prior: str = "exact", dataset: str | None = None, **guidance) -> Callable:
    """The denoiser of `prior`, guided towards `dataset` when there is one; `guidance` overrides preset `scale` and `rule`."""
    if prior not in PRIORS:
        raise unknown("prior", prior, PRIORS)
    law = exact.exact_prior(get_space(space))
    if dataset is None:
        if guidance:
            raise NagkitError(f"{', '.join(guidance)} given without a data set to guide towards; add --guide DATASET")
        return law
    guidance = {**load()[space]["guidance"], **guidance}
    return guide(law, predictor(space, dataset), **guidance)


def sample(
    space: str,
    n: int,
    *,
    seed: int = 0,
    prior: str = "exact",
    dataset: str | None = None,
    sampler: str | None = None,
    steps: int | None = None,
    decode: str = "threshold",
    progress: bool = False,
    **guidance,
) -> pd.DataFrame:
    """`n` raw draws as a table: `arch` (empty when invalid), `error`, and `predicted` (standard deviations) when guided."""
    home = get_space(space)
    settings = {"sampler": sampler or load()[space]["sampler"], "steps": load()[space]["steps"] if steps is None else steps}
    archs, errors = samplers.generate(
        home,
        denoiser(space, prior=prior, dataset=dataset, **guidance),
        n,
        generator=torch_stream(seed, "sample"),
        decode=decode,
        progress=progress,
        **settings,
    )
    valid = errors == ""
    pool = pd.DataFrame({"arch": "", "error": errors})
    pool.loc[valid, "arch"] = home.to_string(archs[valid])
    if dataset is not None:
        pool["predicted"] = np.nan
        pool.loc[valid, "predicted"] = predictor(space, dataset).rank(archs[valid]).round(4)
    return pool
