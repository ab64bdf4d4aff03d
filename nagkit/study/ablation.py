"""What a predictor owes to the data set's code, to the graph and to its training: scores of every architecture of a space.

For `notebooks/ablation_dataset`. Jobs return `DATASET`, the scores of all architectures for that data set, float64 `(size,)`.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from scipy import stats

from nagkit import guidance, open_benchmark, paths, presets
from nagkit.data import upstream
from nagkit.diffusion import samplers
from nagkit.diffusion.sde import VE
from nagkit.predictors import images, task, train
from nagkit.rng import torch_stream
from nagkit.sampling import load_prior
from nagkit.spaces.base import get_space
from nagkit.study import pool
from nagkit.study.exhibit import Run
from nagkit.study.jobs import Task

CORRELATIONS = {"Spearman": stats.spearmanr, "Kendall τ": stats.kendalltau, "Pearson": stats.pearsonr}

# Rows -----------------------------------------------------------------------------------------------------------------


def rule(space: str, name: str, datasets: Sequence[str]) -> Task:
    """A rule that needs no network: "params" (then multiply-accumulates) or "hand-rule"."""
    return Task(score_by_rule, {"space": space, "name": name, "datasets": list(datasets)})


def committed(space: str, kind: str, datasets: Sequence[str], told: str = "") -> Task:
    """The committed predictors of a `kind`; ranking ones may be `told` another data set's name, or "mean"."""
    arguments = {"space": space, "kind": kind, "datasets": list(datasets), "told": told}
    return Task(score, arguments, pool.checkpoints(space, "exact", kind))


def accuracies(space: str, other: str, datasets: Sequence[str]) -> Task:
    """The accuracies on the data set `other` as scores: how alike data sets are."""
    return Task(score_by_accuracy, {"space": space, "other": other, "datasets": list(datasets)}, open_benchmark(space).files)


def trained(space: str, kind: str, datasets: Sequence[str], steps: int, **how) -> Task:
    """Predictors trained on all meta-training triplets, to be repeated over `seed`; `how` is that of `train_and_score`."""
    arguments = {"space": space, "kind": kind, "datasets": list(datasets), "steps": steps} | how
    return Task(train_and_score, arguments, (images.CODES, paths.DATA / "presets.yaml"))


def validated(space: str, part: str, steps: int) -> Task:
    """Predictors of a `kind`, trained on one `part` of the triplets and asked for the other, to be repeated over `seed`."""
    return Task(train_and_validate, {"space": space, "part": part, "steps": steps}, (images.CODES,))


# Jobs -----------------------------------------------------------------------------------------------------------------


def score_by_rule(space: str, name: str, datasets: Sequence[str]) -> dict[str, np.ndarray]:
    """A job: the same scores for every data set."""
    home = get_space(space)
    if name == "params":
        params, macs = home.cost(home.all())
        return dict.fromkeys(datasets, params + macs / macs.max())  # multiply-accumulates break ties
    return dict.fromkeys(datasets, home.hand_rule(home.all()))


def score(space: str, kind: str, datasets: Sequence[str], training_seed: int, told: str = "") -> dict[str, np.ndarray]:
    """A job: scores by a committed predictor; with `told` those under another code, and its own as `DATASET/own`."""
    own = {name: _under(space, kind, training_seed, name) for name in datasets}
    if not told:
        return own
    return dict.fromkeys(datasets, _under(space, kind, training_seed, told)) | {f"{name}/own": own[name] for name in own}


def score_by_accuracy(space: str, other: str, datasets: Sequence[str]) -> dict[str, np.ndarray]:
    """A job: test accuracy on `other` as scores, and on each data set as `DATASET/own`."""
    bench = open_benchmark(space)
    own = {f"{name}/own": bench.column(name, split="test") for name in datasets}
    return own | dict.fromkeys(datasets, bench.column(other, split="test"))


def train_and_score(
    space: str, kind: str, datasets: Sequence[str], seed: int, steps: int, code: str = "real", graph: str = "closure",
    adjacency: str = "true", draws: int = 0,
) -> dict[str, np.ndarray]:  # fmt: skip
    """A job: train a predictor with `code` ("real", "shuffled" between tasks or "mean") on a graph; scores for each data set.

    With `draws`, also as many raw draws guided at x_t by it, `DATASET/archs`: exact prior, 20 ancestral steps, the preset's
    strength.
    """
    triplets, home = upstream.triplets(), get_space(space, adjacency=adjacency)
    model = train.train(kind, triplets, space=home, code=code, graph=graph, seed=seed, steps=steps, progress=False)
    mean, found = _mean_code(model, int(triplets.classes.max())), {}
    for name in datasets:
        predictor = train.bind(model, task.NO_CODE if code == "mean" else name, space=space, mean_code=mean)
        found[name] = _clean(space, predictor)
        if draws:
            law = guidance.guide(load_prior(space, "exact"), predictor, presets.strength(space, "exact", "xt"), rule="xt")
            generator = torch_stream(seed, f"ablation/{name}")
            found[f"{name}/archs"] = samplers.generate(get_space(space), law, draws, generator=generator)[0]
    return found


def train_and_validate(space: str, kind: str, seed: int, steps: int, part: str) -> dict[str, np.ndarray]:
    """A job: train on one `part` of the triplets, predict the other: `predicted` and `accuracy` (percent).

    `part` "official" is the published split, whose 400 validation triplets share architectures and tasks with training;
    "disjoint" is `train.split`.
    """
    triplets = upstream.triplets()
    rows, held = (triplets.order[400:], triplets.order[:400]) if part == "official" else train.split(triplets, space=space)
    model = train.train(kind, triplets, space=space, rows=rows, seed=seed, steps=steps, progress=False)
    with torch.inference_mode():
        features, first = task.task_classes(space)
        codes = model.sets(features[torch.from_numpy(triplets.classes[triplets.task[held]]) - first])
        parts = zip(get_space(space).encode(triplets.archs[held]).split(64), codes.split(64), strict=True)
        predicted = torch.cat([model(x, VE().sigma_min, code) for x, code in parts])
    return {"predicted": predicted.double().numpy(), "accuracy": triplets.accuracy[held]}


def _clean(space: str, predictor: task.TaskPredictor) -> np.ndarray:
    """Scores of all architectures; a noise-aware predictor is asked at its lowest noise level."""
    home = get_space(space)
    with torch.inference_mode():
        return torch.cat([predictor(x, VE().sigma_min) for x in home.encode(home.all()).split(1024)]).double().numpy()


@cache
def _under(space: str, kind: str, training_seed: int, name: str) -> np.ndarray:
    """Scores of all architectures by a committed predictor under the code of a data set, or the "mean" one."""
    unbound = _committed(space, kind, training_seed)
    with torch.inference_mode():
        code = unbound.code if name == "mean" else unbound.model.sets(task.class_features(name)).mean(0, keepdim=True)
    return _clean(space, task.TaskPredictor(unbound.model, code, get_space(space), standardise=False))


@cache
def _committed(space: str, kind: str, training_seed: int) -> task.TaskPredictor:
    return train.load(kind, task.NO_CODE, space=space, seed=training_seed)


@torch.inference_mode()
def _mean_code(model: torch.nn.Module, used: int) -> torch.Tensor:
    """The code that a model trained with the mean of the class features has seen, `(1, code)`."""
    features = torch.from_numpy(images.codes()["imagenet32/image"])[:used].mean(dim=0)
    return model.sets(features.expand(1, 20, -1))


# Measures -------------------------------------------------------------------------------------------------------------


def quality(name: str, benchmark: object, good: np.ndarray | None = None) -> Callable[[Run], float]:
    """A measure: one of `CORRELATIONS` of scores with test accuracy, over all architectures or the `good` ones."""
    part = slice(None) if good is None else good

    def measure(run: Run) -> float:
        truth = benchmark.column(run.column, split="test")
        return float(CORRELATIONS[name](run.arrays[run.column][part], truth[part]).statistic)

    return measure


def agreement(good: np.ndarray | None = None) -> Callable[[Run], float]:
    """A measure: Spearman's correlation of the scores with those under the data set's own code."""
    part = slice(None) if good is None else good
    return lambda run: float(stats.spearmanr(run.arrays[run.column][part], run.arrays[f"{run.column}/own"][part]).statistic)


def change(benchmark: object, good: np.ndarray | None = None) -> Callable[[Run], float]:
    """A measure: Spearman's correlation with test accuracy, minus that under the data set's own code."""
    found = quality("Spearman", benchmark, good)

    def measure(run: Run) -> float:
        return found(run) - found(run._replace(arrays={run.column: run.arrays[f"{run.column}/own"]}))

    return measure


def of_pool(measure: Callable[[Run], float], benchmark: object) -> Callable[[Run], float]:
    """A measure of pools, such as `measures.mean`, of the pool that the run's predictor guides."""

    def measured(run: Run) -> float:
        archs = run.arrays[f"{run.column}/archs"]
        valid = archs[(archs >= 0).any(axis=1)]
        values = benchmark.query(valid, run.column, split="test")
        return measure(run._replace(arrays={"archs": archs}, valid=valid, values=values))

    return measured


def of_held_out(name: str) -> Callable[[Run], float]:
    """A measure: a correlation of `CORRELATIONS` of predicted with true accuracies of held-out triplets."""
    return lambda run: float(CORRELATIONS[name](run.arrays["predicted"], run.arrays["accuracy"]).statistic)
