"""Settings chosen on the development sets (data/presets.yaml), and sampling with them in one call."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pandas as pd
import torch
import yaml
from tqdm.auto import tqdm

from nagkit import objectives, paths
from nagkit.benchmarks.measured import Measured
from nagkit.benchmarks.table import open_benchmark
from nagkit.data import io
from nagkit.diffusion import exact, samplers
from nagkit.diffusion import train as score
from nagkit.diffusion.sde import geometric_sigmas, paper_sigmas
from nagkit.errors import NagkitError, unknown
from nagkit.guidance import RULES, guide
from nagkit.predictors import objective, task
from nagkit.predictors import train as predictors
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces.base import SearchSpace, get_space

PRIORS = ("exact", "score")
PRESETS = ("ours", "paper")
DIVERSE, KEPT = "diverse", 0.9
"""Name of the second strength, the best that keeps this share of the distinct cells of unguided draws."""
SCALES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Guidance scales tried on the development set."""
SWEEP = ["rule", "prior", "scale", "seed", "valid", "distinct", "development accuracy"]
_PREDICTOR = {"x0": "ranking", "xt": "noise-aware"}


@cache
def load() -> dict:
    """The contents of data/presets.yaml."""
    return yaml.safe_load((paths.DATA / "presets.yaml").read_text())


def of_space(space: str) -> dict:
    """The block of one search space; `NagkitError` when there is none, as for a space that was just added."""
    if space not in load():
        raise NagkitError(f"data/presets.yaml has no block for search space {space!r}; add one like that of mbv3")
    return load()[space]


@cache
def predictor(space: str, dataset: str, *, rule: str = "x0", seed: int = 0) -> task.TaskPredictor:
    """The predictor that guides towards `dataset` by `rule`: the ranking one at x̂₀, the noise-aware one at x_t.

    `seed` is its training seed. Data sets without images are predicted with the mean code of the training tasks.
    """
    targets = of_space(space)["targets"]
    if dataset not in targets:
        raise unknown("data set to guide towards", dataset, targets)
    if rule not in RULES:
        raise unknown("guidance rule", rule, RULES)
    known = dataset in (*task.CODED, task.HELD)
    return predictors.load(_PREDICTOR[rule], dataset if known else task.NO_CODE, space=space, seed=seed)


@cache
def prior(space: str, name: str) -> Callable:
    """The unguided denoiser: "exact" in closed form ("exact-<law>" of another of the space's laws), or the "score" network."""
    home = get_space(space)
    names = (*PRIORS, *(f"exact-{law}" for law in home.laws))
    if name not in names:
        raise unknown("prior", name, names)
    return score.load_score(home) if name == "score" else exact.exact_prior(home, name.partition("-")[2] or None)


def strength(space: str, prior_name: str, rule: str, scale: float | str | None = None) -> float:
    """A guidance scale: the chosen one of this prior and rule, their "diverse" one, or the number that is given."""
    settings = of_space(space)
    if scale is None:
        known = settings["scale"].get(rule, {})
        if prior_name not in known:
            raise NagkitError(f"no strength of {rule} was chosen for prior {prior_name} of {space}; give one: --scale NUMBER")
        return known[prior_name]
    diverse = settings.get(DIVERSE, {}).get(rule, {})
    if scale == DIVERSE and prior_name in diverse:
        return diverse[prior_name]
    try:
        return float(scale)
    except ValueError:
        known = f"a number or {DIVERSE!r}" if prior_name in diverse else "a number here"
        raise NagkitError(f"guidance scale must be {known}, got {scale!r}") from None


def denoiser(
    space: str,
    *,
    prior_name: str = "exact",
    dataset: str | None = None,
    aim: Callable | None = None,
    rule: str | None = None,
    scale: float | str | None = None,
    seed: int = 0,
) -> Callable:
    """The prior's denoiser, guided towards `dataset` when there is one, with the `strength` that `scale` says.

    Or guided at x̂₀ by `aim` `(x, sigma) → (B,)`, with that of predictors of one objective (NB201).
    """
    law = prior(space, prior_name)
    if aim is not None:
        if space != "nb201" or dataset is not None or rule == "xt":
            raise NagkitError("an objective guides nb201, at x0 and alone; leave out the other space, rule or data set")
        return guide(law, aim, strength(space, prior_name, "objective", scale))
    if dataset is None:
        if rule is not None or scale is not None:
            raise NagkitError("a guidance rule or scale is given without a data set to guide towards; add --guide DATASET")
        return law
    rule = rule or of_space(space)["rule"]
    aim = predictor(space, dataset, rule=rule, seed=seed)
    return guide(law, aim, strength(space, prior_name, rule, scale), rule=rule)


def sample(
    space: str,
    n: int,
    *,
    seed: int = 0,
    preset: str = "ours",
    prior_name: str | None = None,
    dataset: str | None = None,
    aim: Callable | None = None,
    rule: str | None = None,
    scale: float | str | None = None,
    sampler: str | None = None,
    steps: int | None = None,
    decode: str = "threshold",
    training_seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """`n` raw draws as a table: `arch` (empty when invalid), `error`, and `predicted` when guided.

    `preset` "paper" is the method as published: trained prior, noise-aware guidance at x_t, 1,000-step predictor-corrector.
    `predicted` is the ranking predictor's score in standard deviations over the space, also where another one guided. `aim`
    `(x, sigma) → (B,)` guides and scores instead of the predictor of a data set, at x̂₀.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    if aim is not None and preset == "paper":
        raise NagkitError("preset paper guides at x_t with its own predictor; leave out --preset paper or the objective")
    home = get_space(space)
    settings = of_space(space)["presets"][preset]
    prior_name = prior_name or settings["prior"]
    if dataset is not None:
        rule = rule or settings["rule"]
        scale = settings.get("scale") if scale is None and rule == settings["rule"] else scale
    steps = settings["steps"] if steps is None else steps
    sigma_max = settings.get("sigma_max", 5.0)
    sigmas = geometric_sigmas(steps, sigma_max=sigma_max)
    if preset == "paper":
        sigmas = paper_sigmas(steps, sigma_max=sigma_max).float()
    archs, errors = samplers.generate(
        home,
        denoiser(space, prior_name=prior_name, dataset=dataset, aim=aim, rule=rule, scale=scale, seed=training_seed),
        n,
        sampler=sampler or settings["sampler"],
        steps=steps,
        sigmas=sigmas,
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
    if aim is not None:
        with torch.inference_mode():
            pool["predicted"] = np.nan
            pool.loc[valid, "predicted"] = aim(home.encode(archs[valid]), 0.0).double().numpy().round(4)
    return pool


def archs(pool: pd.DataFrame, space: SearchSpace) -> np.ndarray:
    """The architectures of a table that `sample` made, int8 `(n, n_slots)`, -1 in invalid rows."""
    found = np.full((len(pool), space.n_slots), -1, np.int8)
    valid = (pool["error"] == "").to_numpy()
    found[valid] = space.from_string(list(pool["arch"][valid]))
    return found


_HEADER = """# Settings chosen on development sets, never on a reported one.
# NAS-Bench-201: ImageNet16-120, 12-epoch validation accuracy.
# Rebuild the strengths: nagkit fit presets
# Scales are in standard deviations: for x0 of the ranking predictor over the space, for xt of the meta-training accuracies.
# For objectives (predictors fitted to 100 measured cells): robustness to Gaussian noise, severity 2.
# Preset paper: 10,000 on accuracies in hundredths of a standard deviation is a scale of 100 here.
# MBv3: the strengths at x0 on 40 classes of Tiny ImageNet that no meta-training task has (nagkit fit presets --space mbv3).
# Preset paper: 100,000 there, a scale of 1,000 here. Absent slots give the codes a large mean, which a start at the usual
# sigma = 5 would drop, so draws start at 80; the paper's configuration starts at 1 and runs no corrector.
# Search methods: three settings each, three seeds from 10,000 on, 60 evaluations; ImageNet16-120 as above, MBv3: the
# Once-for-All predictor at r = 160. Rebuild: nagkit fit search
"""


def write(settings: dict) -> None:
    """Replace data/presets.yaml."""
    io.write_text(paths.DATA / "presets.yaml", _HEADER + yaml.safe_dump(settings, sort_keys=False))


def choose(space: str = "nb201", **options) -> pd.DataFrame:
    """Choose the guidance scales of a space on its development set, write them to data/presets.yaml, show the sweep.

    `options` are those of `choose_cells` and `choose_networks`.
    """
    return (choose_networks if space == "mbv3" else choose_cells)(**options)


def choose_networks(
    *, scales: Sequence[float] = SCALES[1:6], n: int = 1000, top: int = 30, n_workers: int = 1, progress: bool = True
) -> pd.DataFrame:
    """The guidance scale at x̂₀ for each prior of MBv3.

    A scale's value is the mean accuracy, measured on the held-out classes of Tiny ImageNet, of the `top` distinct networks
    that the predictor ranks highest among `n` draws; three predictor training seeds. The smallest scale within one standard
    error of the best is chosen.
    """
    home, bench = get_space("mbv3"), Measured(n_workers=n_workers, progress=False)
    settings, rows = load(), []
    for name in PRIORS:
        values: dict = {scale: [] for scale in (0.0, *scales)}
        for scale in tqdm(values, desc=f"{name} prior", disable=not progress):
            for seed in range(3):
                pool = sample("mbv3", n, seed=10_000 + seed, prior_name=name, dataset=task.HELD, scale=scale,
                              training_seed=seed)  # fmt: skip
                best = pool.dropna().drop_duplicates("arch").sort_values("predicted", ascending=False, kind="stable")[:top]
                found = bench.query(home.from_string(list(best["arch"])), task.HELD, split="test").mean()
                values[scale].append(found)
                rows.append(("x0", name, scale, seed, (pool["error"] == "").sum(), pool["arch"].nunique(), found))
        settings["mbv3"]["scale"]["x0"][name] = smallest_good({scale: np.array(values[scale]) for scale in scales})
    write(settings)
    return pd.DataFrame(rows, columns=SWEEP)


def choose_cells(
    space: str = "nb201", *, scales: Sequence[float] = SCALES, n: int = 1000, progress: bool = True
) -> pd.DataFrame:
    """The guidance scale of every rule and prior of NB201.

    A pool's value is its mean 12-epoch validation accuracy on ImageNet16-120 over all raw draws, an invalid one counting as
    zero; three predictor training seeds, one sampling seed each. Among the scales within one standard error of the best, the
    smallest is chosen, which keeps the pool diverse. The "diverse" scale is the best of those whose pools hold at least `KEPT`
    of the distinct cells of unguided draws.
    """
    home, bench = get_space(space), open_benchmark(space)
    settings, rows = load(), []
    settings[space][DIVERSE] = {rule: {} for rule in RULES}
    for rule in RULES:
        for name in PRIORS:
            pools, distinct = {scale: [] for scale in (0.0, *scales)}, dict.fromkeys((0.0, *scales), 0)
            for scale in tqdm(pools, desc=f"{rule}, {name} prior", disable=not progress):
                for seed in range(3):
                    pool = sample(space, n, seed=10_000 + seed, prior_name=name, dataset="imagenet16-120", rule=rule,
                                  scale=scale, training_seed=seed)  # fmt: skip
                    archs = home.from_string(list(pool["arch"][pool["error"] == ""]))
                    cells = len(np.unique(home.code(archs)))
                    pools[scale].append(bench.query(archs, "imagenet16-120", split="validation12").sum() / n)
                    distinct[scale] += cells
                    rows.append((rule, name, scale, seed, len(archs), cells, pools[scale][-1]))
            settings[space]["scale"][rule][name] = smallest_good({scale: np.array(pools[scale]) for scale in scales})
            wide = [scale for scale in scales if distinct[scale] >= KEPT * distinct[0.0]]
            settings[space][DIVERSE][rule][name] = max(wide, key=lambda scale: np.mean(pools[scale]))
    rows += _choose_for_objectives(space, settings, scales, n, progress)
    write(settings)
    return pd.DataFrame(rows, columns=SWEEP)


def smallest_good(pools: dict[float, np.ndarray]) -> float:
    """The smallest of the scales whose mean value is within one standard error of the best."""
    best = max(pools.values(), key=np.mean)
    floor = best.mean() - best.std(ddof=1) / len(best) ** 0.5
    return min(scale for scale, values in pools.items() if values.mean() >= floor)


def _choose_for_objectives(space: str, settings: dict, scales: Sequence[float], n: int, progress: bool) -> list[tuple]:
    """The scale for predictors of one objective, on the development objective: five sets of random pairs."""
    home = get_space(space)
    truth = open_benchmark(space).column("cifar10", split="test", metric=objectives.DEVELOPMENT)
    pools: dict = {name: {scale: [] for scale in scales} for name in PRIORS}
    rows = []
    for seed in tqdm(range(5), desc="objective", disable=not progress):
        measured = numpy_stream(10_000 + seed, "presets/objective").choice(home.size, objectives.PAIRS, replace=False)
        fitted = objective.fit(home.all()[measured], truth[measured], model="propagation", seed=10_000 + seed)
        for name in PRIORS:
            for scale in scales:
                law = guide(prior(space, name), fitted.predictor, scale)
                archs, errors = samplers.generate(home, law, n, generator=torch_stream(10_000 + seed, "presets/objective"))
                codes = home.code(archs[errors == ""])
                pools[name][scale].append(truth[codes].sum() / n)
                rows.append(("objective", name, scale, seed, len(codes), len(np.unique(codes)), pools[name][scale][-1]))
    chosen = {}
    for name, found in pools.items():
        values = np.array([found[scale] for scale in scales])
        values -= values.mean(axis=0)  # some sets of pairs teach more than others, at every scale
        chosen[name] = smallest_good(dict(zip(scales, values, strict=True)))
    settings[space]["scale"]["objective"] = chosen
    return rows
