"""Is dataset-awareness doing anything among MobileNetV3 networks? Ranking predictors with real, shuffled and mean codes.

Each predictor learns the meta-training tasks and is judged twice: on tasks that it never saw, and on the data sets of Table 1.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from nagkit import cluster
from nagkit.benchmarks import measured, meta, supernet
from nagkit.predictors import images, task, train
from nagkit.report.exhibits import Exhibit, by_profile
from nagkit.report.statistics import mean_ci, paired_difference
from nagkit.studies.ablation import CODES
from nagkit.studies.pools import lower, sign, spelled
from nagkit.studies.table1 import DATASETS

MEASURES = {"Spearman": stats.spearmanr, "Kendall τ": stats.kendalltau}
HELD_OUT = "unseen tasks"
NULLS = ("Multiply-accumulates", "Number of layers")


class Ablation(NamedTuple):
    """The rows, and one line about the oracle."""

    exhibit: Exhibit
    oracle: str


def ablation_mbv3(profile: str = "quick", seed: int = 0, *, n_workers: int = 1, progress: bool = True) -> Ablation:
    """Rank correlations of predicted with measured accuracy on the 1,000 committed networks of each data set of Table 1, and
    within each of the 75 meta-test tasks (mean over tasks), by the code that the predictor was trained with.

    Intervals are over training seeds; "difference of …" is paired by them. The two nulls need no predictor. The quick profile
    trains fewer and shorter.
    """
    n_seeds, steps = by_profile(profile, quick=(2, 50), paper=(3, train.get_recipe("ranking", "mbv3").steps))
    data = inputs()
    exhibit = Exhibit("ablation_mbv3", profile, seed=seed, seeds=n_seeds, oracle=measured.ORACLE, data=data)
    jobs = [{"code": code, "seed": 100 * seed + number, "steps": steps} for code in CODES for number in range(n_seeds)]
    made = iter(cluster.map_jobs(train_and_judge, jobs, data=data, n_workers=n_workers, progress=progress))
    found = {row: [next(made) for _ in range(n_seeds)] for row in CODES.values()}
    columns = (*DATASETS, HELD_OUT)
    for metric in MEASURES:
        values = {row: np.stack([one[metric] for one in each]) for row, each in found.items()}  # (seeds, columns)
        for row, each in values.items():
            for column, part in zip(columns, each.T, strict=True):
                exhibit.add(row, column, metric, mean_ci(part), n=n_seeds, unit="")
        real, *others = values
        for other in others:
            for column, a, b in zip(columns, values[real].T, values[other].T, strict=True):
                gap = paired_difference(a, b)
                exhibit.add(f"{real}, minus {lower(other)}", column, f"difference of {metric}", gap, n=n_seeds, unit="")
        for row, scores in _nulls().items():
            for column, value in zip(columns, _judged(scores)[metric], strict=True):
                exhibit.add(row, column, metric, value, n=1, unit="")
    return Ablation(exhibit, f"{measured.ORACLE}: committed accuracies of random networks, measured with inherited weights")


def inputs() -> list[Path]:
    """The committed files that the numbers rest on."""
    return [meta.FILE, *map(measured.file_of, DATASETS), images.CODES]


def train_and_judge(code: str, seed: int, steps: int) -> dict[str, np.ndarray]:
    """A job: train a ranking predictor on the meta-training tasks; each of `MEASURES` by column, float64 `(5,)`."""
    triplets = meta.load()
    rows = triplets.rows("train")
    model = train.train("ranking", triplets, space="mbv3", code=code, rows=rows, seed=seed, steps=steps, progress=False)
    features, first = task.task_classes("mbv3")
    mean = None
    if code == "mean":
        used = torch.from_numpy(np.unique(triplets.classes)) - first
        with torch.inference_mode():
            mean = model.sets(features[used].mean(dim=0).expand(1, triplets.classes.shape[1], -1))
    scores = {}
    for dataset in DATASETS:
        bound = train.bind(model, task.NO_CODE if code == "mean" else dataset, space="mbv3", mean_code=mean)
        scores[dataset] = bound.rank(_measurements(dataset)[0])
    held = triplets.rows("test")
    with torch.inference_mode():
        described = features[torch.from_numpy(triplets.classes[triplets.task[held]]) - first]
        codes = mean if code == "mean" else model.sets(described)
        scores[HELD_OUT] = model(meta.SPACE.encode(triplets.archs[held]), 0.0, codes).double().numpy()
    return _judged(scores)


def _nulls() -> dict[str, dict[str, np.ndarray]]:
    held = meta.load()
    archs = {dataset: _measurements(dataset)[0] for dataset in DATASETS} | {HELD_OUT: held.archs[held.rows("test")]}
    macs = {column: supernet.multiply_accumulates(part).astype(float) for column, part in archs.items()}
    return dict(zip(NULLS, (macs, {column: (part >= 0).sum(axis=1) for column, part in archs.items()}), strict=True))


def _judged(scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rank correlation of scores with measured accuracy by column, the one of tasks a mean over them, float64 `(5,)`."""
    triplets = meta.load()
    held = triplets.rows("test")
    tasks, truth = triplets.task[held], triplets.accuracy[held]
    found = {}
    for metric, measure in MEASURES.items():
        values = [measure(scores[dataset], _measurements(dataset)[1]).statistic for dataset in DATASETS]
        each = [measure(scores[HELD_OUT][tasks == one], truth[tasks == one]).statistic for one in np.unique(tasks)]
        found[metric] = np.array([*values, np.nanmean(each)])  # a task whose networks all tie says nothing
    return found


def _measurements(dataset: str) -> tuple[np.ndarray, np.ndarray]:
    return measured.measurements(dataset)[:2]


def verdict(study: Ablation) -> str:
    """What the numbers of `study` say, in words."""
    frame = study.exhibit.frame().set_index(["row", "column", "metric"])
    real = CODES["real"]
    lines = []
    for column in (*DATASETS, HELD_OUT):
        gaps = []
        for other in (CODES["shuffled"], CODES["mean"]):
            gap = frame.loc[f"{real}, minus {lower(other)}", column, "difference of Spearman"]
            gaps.append(f"{spelled(gap)} to {lower(other)} ({sign(gap)})")
        nulls = ", ".join(f"{name.lower()} {frame.loc[name, column, 'Spearman'].value:+.2f}" for name in NULLS)
        said = spelled(frame.loc[real, column, "Spearman"])
        lines.append(f"- **{column}**: Spearman {said} with real codes; {'; '.join(gaps)}. Without a predictor: {nulls}.")
    return "\n".join(lines)
