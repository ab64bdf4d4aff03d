"""Is dataset-awareness doing anything? Predictors with other codes, other graphs and without a network (not in the paper).

Four questions: how well the committed predictors rank all cells beside rules that need no network ("predictors"), how much a
ranking changes when the data set's code is replaced ("replaced code"), what training with real, shuffled and mean codes
gives ("codes"), and what the noise-aware predictor owes to the graph ("input"); and what the published validation split hides
("validation"). Intervals are over training seeds of the predictor.
"""

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from nagkit import cluster, guidance, paths, presets
from nagkit.benchmarks.table import open_benchmark
from nagkit.data import upstream
from nagkit.diffusion import samplers
from nagkit.diffusion.sde import VE
from nagkit.errors import NagkitError
from nagkit.predictors import images, task, train
from nagkit.report.exhibits import Exhibit, by_profile
from nagkit.report.plots import NAMES
from nagkit.report.statistics import mean_ci, paired_difference
from nagkit.rng import torch_stream
from nagkit.spaces import nb201
from nagkit.studies import pools

SPACE = nb201.Space()
TARGETS = ("cifar10", "cifar100", "imagenet16-120")
GOOD = 90.0
"""CIFAR-10 test accuracy, percent, above which ranking is judged a second time."""

KINDS = {"ranking": "Ranking predictor", "noise-aware": "Noise-aware predictor, clean cells"}
CODES = {"real": "Real codes", "shuffled": "Shuffled codes", "mean": "Mean code"}
INPUTS = {
    "True line graph": {"graph": "closure", "adjacency": "true"},
    "Official graph": {"graph": "closure", "adjacency": "official"},
    "Flat one-hot": {"graph": "flat", "adjacency": "true"},
}
PARTS = {"official": "official split", "disjoint": "no cell or task shared"}
STEPS = {"ranking": 500, "noise-aware": 500}
"""Training steps of the ablation's own predictors, fewer than those of the committed ones."""
_TRAINERS = tuple(Path(train.__file__).with_stem(name) for name in ("train", "ranking", "digcn", "sets"))
"""A change of these files starts the training anew."""

Scores = dict[str, list[np.ndarray]]


class Ablation(NamedTuple):
    """The rows of the ablation."""

    exhibit: Exhibit
    left_out: str
    """What this run leaves out and why; "" when nothing."""
    oracle: str
    """One line about the benchmark that was asked."""


def ablation_dataset(profile: str = "quick", seed: int = 0, *, n_workers: int = 1, progress: bool = True) -> Ablation:
    """Ranking quality on all 15,625 cells and on those above 90 % CIFAR-10 accuracy, with and without dataset-awareness.

    Metrics start with the question (see the module). The quick profile asks the committed ranking predictors only; the
    recorded run trains 30 small ones, for which it needs the triplets.
    """
    (n_trained,) = by_profile(profile, quick=(0,), paper=(3,))
    bench = open_benchmark("nb201")
    source = upstream.table_path() if bench.oracle == "table" else paths.DATA / "surrogates" / "nb201.safetensors"
    exhibit = Exhibit(
        "ablation_dataset", profile, seed=seed, seeds=max(n_trained, 1), oracle=bench.oracle, data=(source, *pools.inputs())
    )
    truth = {dataset: bench.query(SPACE.all(), dataset, split="test") for dataset in TARGETS}
    good = truth["cifar10"] > GOOD
    ranking = _ranking_scores()
    _committed(exhibit, truth, good, ranking, noise_aware=n_trained > 0)
    _replaced(exhibit, truth, good, ranking)
    left_out = ""
    if n_trained == 0:
        left_out = "The quick profile trains nothing: it leaves out the noise-aware predictor, codes, inputs and splits."
    else:
        try:
            upstream.triplets()
        except NagkitError as error:
            left_out = f"Nothing was trained, because the triplets are not on this machine ({error})."
    if not left_out:
        seeds = [100 * seed + number for number in range(n_trained)]
        options = {"n_workers": n_workers, "progress": progress}
        _codes(exhibit, truth, good, seeds, **options)
        _inputs(exhibit, truth, good, seeds, **options)
        _validation(exhibit, seeds, **options)
    return Ablation(exhibit, left_out, bench.describe())


# Correlations ---------------------------------------------------------------------------------------------------------


def correlations(scores: np.ndarray, truth: np.ndarray, good: np.ndarray) -> dict[str, float]:
    """Spearman and Kendall τ (b, which counts ties) of `scores` with `truth`, over all cells and over the `good` ones."""
    found = {}
    for name, part in (("all cells", slice(None)), ("above 90 %", good)):
        found[f"Spearman, {name}"] = float(stats.spearmanr(scores[part], truth[part]).statistic)
        found[f"Kendall τ, {name}"] = float(stats.kendalltau(scores[part], truth[part]).statistic)
    return found


def _compare(
    exhibit: Exhibit, question: str, scores: Mapping[str, Scores], truth: dict, good: np.ndarray, pairs: list[tuple[str, str]]
) -> None:
    """Rows of correlations for `scores[row][dataset]` (one array a training seed) and of differences, paired by seed."""
    found: dict = {}
    for row, dataset in product(scores, TARGETS):
        each = [correlations(values, truth[dataset], good) for values in scores[row][dataset]]
        for metric in each[0]:
            values = found[row, dataset, metric] = np.array([one[metric] for one in each])
            exhibit.add(row, dataset, f"{question}: {metric}", mean_ci(values), n=len(values), unit="")
    for row, other in pairs:
        for dataset, metric in dict.fromkeys(key[1:] for key in found):
            values, reference = found[row, dataset, metric], found[other, dataset, metric]
            gap = paired_difference(values, np.resize(reference, len(values)))  # a rule without seeds is the same for all
            name = f"{row}, minus {pools.lower(other)}"
            exhibit.add(name, dataset, f"{question}: difference of {metric}", gap, n=len(values), unit="")


def clean_scores(predictor: task.TaskPredictor) -> np.ndarray:
    """Scores of all cells, float64 `(15625,)`; a noise-aware predictor is asked at its lowest noise level."""
    with torch.inference_mode():
        parts = SPACE.encode(SPACE.all()).split(1024)
        return torch.cat([predictor(part, VE().sigma_min) for part in parts]).double().numpy()


def _ranking_scores() -> Scores:
    """Scores of all cells by the committed ranking predictors with the code of every data set, and with the mean code."""
    scores: Scores = {}
    for number in range(3):
        unbound = train.load("ranking", task.NO_CODE, seed=number)
        for name in (*task.CODED, task.NO_CODE):
            with torch.inference_mode():
                code = (
                    unbound.code
                    if name == task.NO_CODE
                    else unbound.model.sets(task.class_features(name)).mean(0, keepdim=True)
                )
            bound = task.TaskPredictor(unbound.model, code, SPACE, standardise=False)
            scores.setdefault(name, []).append(clean_scores(bound))
    return scores


def _committed(exhibit: Exhibit, truth: dict, good: np.ndarray, ranking: Scores, noise_aware: bool) -> None:
    every, scores = SPACE.all(), {KINDS["ranking"]: ranking}
    if noise_aware:
        scores[KINDS["noise-aware"]] = {
            dataset: [clean_scores(train.load("noise-aware", dataset, seed=number)) for number in range(3)]
            for dataset in TARGETS
        }
    learned = list(scores)
    params, macs = nb201.cost(every)
    scores["Parameter count"] = dict.fromkeys(TARGETS, [params + macs / macs.max()])  # multiply-accumulates break ties
    scores["Hand rule"] = dict.fromkeys(TARGETS, [nb201.hand_rule(every)])
    pairs = list(product(learned, ("Parameter count", "Hand rule")))
    _compare(exhibit, "predictors", scores, truth, good, pairs)


def _replaced(exhibit: Exhibit, truth: dict, good: np.ndarray, scores: Scores) -> None:
    for target, name in product(TARGETS, scores):
        if target == name:
            continue
        row = "mean code" if name == task.NO_CODE else f"code of {name}"
        for label, part in (("all cells", slice(None)), ("above 90 %", good)):
            both = list(zip(scores[name], scores[target], strict=True))
            same = [stats.spearmanr(other[part], own[part]).statistic for other, own in both]
            exhibit.add(row, target, f"replaced code: agreement, {label}", mean_ci(np.array(same)), n=len(same), unit="")
            change = [
                stats.spearmanr(other[part], truth[target][part]).statistic
                - stats.spearmanr(own[part], truth[target][part]).statistic
                for other, own in both
            ]
            metric = f"replaced code: change of Spearman, {label}"
            exhibit.add(row, target, metric, mean_ci(np.array(change)), n=len(change), unit="")
    for target, other in product(TARGETS, TARGETS):
        if target != other:
            for label, part in (("all cells", np.ones_like(good)), ("above 90 %", good)):
                value = stats.spearmanr(truth[other][part], truth[target][part]).statistic
                exhibit.add(
                    f"accuracy on {other}", target, f"replaced code: agreement, {label}", value, n=int(part.sum()), unit=""
                )


# Training -------------------------------------------------------------------------------------------------------------


def train_and_score(
    kind: str, seed: int, steps: int, code: str = "real", graph: str = "closure", adjacency: str = "true", draws: int = 0
) -> dict[str, np.ndarray]:
    """A job for `map_jobs`: train a predictor on all triplets; its scores of all cells for each target, float64 `(15625,)`.

    With `draws`, also raw draws guided at x_t by it, int8 `(draws, 6)`, under "DATASET/archs": exact prior, 20 ancestral
    steps, the preset's strength.
    """
    model = train.train(
        kind, upstream.triplets(), space=nb201.Space(adjacency), code=code, graph=graph, seed=seed, steps=steps, progress=False
    )
    found = {}
    for dataset in TARGETS:
        predictor = train.bind(model, task.NO_CODE if code == "mean" else dataset, mean_code=_mean_code(model))
        found[dataset] = clean_scores(predictor)
        if draws:
            scale = presets.load()["nb201"]["scale"]["xt"]["exact"]
            denoiser = guidance.guide(presets.prior("nb201", "exact"), predictor, scale, rule="xt")
            generator = torch_stream(seed, f"ablation/{dataset}")
            found[f"{dataset}/archs"] = samplers.generate(SPACE, denoiser, draws, generator=generator)[0]
    return found


def train_and_validate(kind: str, seed: int, steps: int, part: str) -> dict[str, np.ndarray]:
    """A job for `map_jobs`: train on one `part` of the triplets, predict the other: `predicted` and `accuracy` (percent).

    `part` "official" is the published split, whose 400 validation triplets share cells and tasks with training; "disjoint" is
    `train.split`.
    """
    triplets = upstream.triplets()
    rows, held = (triplets.order[400:], triplets.order[:400]) if part == "official" else train.split(triplets)
    model = train.train(kind, triplets, rows=rows, seed=seed, steps=steps, progress=False)
    with torch.inference_mode():
        features = torch.from_numpy(images.codes()["imagenet32/image"])
        code = model.sets(features[torch.from_numpy(triplets.classes[triplets.task[held]]) - 1])
        cells = SPACE.encode(triplets.archs[held])
        predicted = torch.cat([model(x, VE().sigma_min, c) for x, c in zip(cells.split(64), code.split(64), strict=True)])
    return {"predicted": predicted.double().numpy(), "accuracy": triplets.accuracy[held]}


@torch.inference_mode()
def _mean_code(model) -> torch.Tensor:
    """The code that a model trained with the mean of the class features has seen, `(1, code)`."""
    used = int(upstream.triplets().classes.max())
    features = torch.from_numpy(images.codes()["imagenet32/image"])[:used].mean(dim=0)
    return model.sets(features.expand(1, 20, -1))


def _jobs(function: Callable, rows: Mapping[str, dict], seeds: list[int], data: tuple = (), **options) -> dict[str, list[dict]]:
    jobs = [job | {"seed": number} for job in rows.values() for number in seeds]
    made = iter(cluster.map_jobs(function, jobs, data=(images.CODES, *_TRAINERS, *data), **options))
    return {row: [next(made) for _ in seeds] for row in rows}


def _codes(exhibit: Exhibit, truth: dict, good: np.ndarray, seeds: list[int], **options) -> None:
    rows = {row: {"kind": "ranking", "code": code, "steps": STEPS["ranking"]} for code, row in CODES.items()}
    made = _jobs(train_and_score, rows, seeds, **options)
    scores = {row: {dataset: [one[dataset] for one in each] for dataset in TARGETS} for row, each in made.items()}
    _compare(exhibit, "codes", scores, truth, good, [("Real codes", "Shuffled codes"), ("Real codes", "Mean code")])


def _inputs(exhibit: Exhibit, truth: dict, good: np.ndarray, seeds: list[int], **options) -> None:
    rows = {row: {"kind": "noise-aware", "steps": STEPS["noise-aware"], "draws": 1000, **how} for row, how in INPUTS.items()}
    made = _jobs(train_and_score, rows, seeds, (paths.DATA / "presets.yaml",), **options)
    scores = {row: {dataset: [one[dataset] for one in each] for dataset in TARGETS} for row, each in made.items()}
    pairs = [("True line graph", "Official graph"), ("True line graph", "Flat one-hot")]
    _compare(exhibit, "input", scores, truth, good, pairs)
    measures = {"mean of a guided pool": (pools.average, "%"), "distinct cells of a guided pool": (pools.distinct, "count")}
    for dataset, (metric, (measure, unit)) in product(TARGETS, measures.items()):
        found = {
            row: np.array([measure(one[f"{dataset}/archs"], truth[dataset]) for one in each]) for row, each in made.items()
        }
        for row, values in found.items():
            exhibit.add(row, dataset, f"input: {metric}", mean_ci(values), n=len(values), unit=unit)
        for row, other in pairs:
            gap = paired_difference(found[row], found[other])
            exhibit.add(
                f"{row}, minus {pools.lower(other)}", dataset, f"input: difference, {metric}", gap, n=len(seeds), unit=unit
            )


def _validation(exhibit: Exhibit, seeds: list[int], **options) -> None:
    measures = {"Pearson": stats.pearsonr, "Spearman": stats.spearmanr, "Kendall τ": stats.kendalltau}
    for kind, row in KINDS.items():
        jobs = {part: {"kind": kind, "part": part, "steps": STEPS[kind]} for part in PARTS}
        made = _jobs(train_and_validate, jobs, seeds, **options)
        for name, measure in measures.items():
            found = {
                part: np.array([measure(one["predicted"], one["accuracy"]).statistic for one in made[part]]) for part in PARTS
            }
            for part, values in found.items():
                exhibit.add(row, PARTS[part], f"validation: {name}", mean_ci(values), n=len(values), unit="")
            gap = paired_difference(found["official"], found["disjoint"])
            exhibit.add(row, "official minus disjoint", f"validation: {name}", gap, n=len(seeds), unit="")


# Verdict --------------------------------------------------------------------------------------------------------------


def ablation_verdict(study: Ablation) -> str:
    """What the numbers of `study` say about dataset-awareness, the graph and the rules without a network, in words."""
    rows = study.exhibit.frame().set_index(["row", "column", "metric"])
    paragraphs = []
    for dataset in TARGETS[:2]:
        said = []
        for other in ("Parameter count", "Hand rule"):
            row = f"{KINDS['ranking']}, minus {pools.lower(other)}"
            gaps = [
                rows.loc[row, dataset, f"predictors: difference of Spearman, {part}"] for part in ("all cells", "above 90 %")
            ]
            words = " and ".join(
                f"{pools.spelled(gap, '+.3f')} ({pools.sign(gap)}) on {part}"
                for gap, part in zip(gaps, ("all cells", "cells above 90 %"), strict=True)
            )
            said.append(f"to *{pools.lower(other)}*: {words}")
        paragraphs.append(f"**{NAMES[dataset]}, ranking predictor.** Difference of Spearman {'; '.join(said)}.")
        agree = rows.loc["code of mnist", dataset, "replaced code: agreement, all cells"]
        change = rows.loc["code of mnist", dataset, "replaced code: change of Spearman, all cells"]
        paragraphs.append(
            f"- Told that the images are MNIST's, it ranks the cells almost as before (Spearman {agree.value:.4f} to its own "
            f"ranking); the correlation with accuracy changes by {pools.spelled(change, '+.4f')} ({pools.sign(change)})."
            if agree.value > 0.99
            else f"- Told that the images are MNIST's, its ranking agrees with its own at Spearman {agree.value:.4f}; the "
            f"correlation with accuracy changes by {pools.spelled(change, '+.4f')} ({pools.sign(change)})."
        )
        for question, row, others in (
            ("codes", "Real codes", ("Shuffled codes", "Mean code")),
            ("input", "True line graph", ("Official graph", "Flat one-hot")),
        ):
            keys = [
                (f"{row}, minus {pools.lower(other)}", dataset, f"{question}: difference of Spearman, all cells")
                for other in others
            ]
            if keys[0] in rows.index:
                gaps = [(rows.loc[key], pools.lower(other)) for key, other in zip(keys, others, strict=True)]
                words = "; ".join(f"{pools.spelled(gap, '+.4f')} ({pools.sign(gap)}) beside *{other}*" for gap, other in gaps)
                paragraphs.append(f"- Trained with *{pools.lower(row)}*, Spearman on all cells differs by {words}.")
    return "\n\n".join([*paragraphs, *filter(None, [study.left_out])])
