"""Does the data set code help to rank MobileNetV3 networks? Ranking predictors with real, shuffled and mean codes, and nulls.

Each predictor learns the meta-training tasks and is judged twice: on tasks that it never saw, and on data sets whose random
networks were measured.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy import stats

from nagkit.benchmarks import measured, meta, supernet
from nagkit.predictors import images, task, train
from nagkit.study.exhibit import Run
from nagkit.study.jobs import Task

HELD_OUT = "unseen"
"""The column of the meta-test tasks."""
MEASURES = {"Spearman": stats.spearmanr, "Kendall τ": stats.kendalltau}
NULLS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "macs": supernet.multiply_accumulates,
    "layers": lambda archs: (archs >= 0).sum(axis=1),
}


def predictor(code: str, datasets: Sequence[str], *, steps: int) -> Task:
    """A row: a ranking predictor trained with the codes `code` ("real", "shuffled" or "mean"), to be repeated over `seed`."""
    return Task(train_and_judge, {"code": code, "datasets": list(datasets), "steps": steps}, _files(datasets))


def null(name: str, datasets: Sequence[str]) -> Task:
    """A row: one of `NULLS`, which need no predictor."""
    return Task(judge_null, {"name": name, "datasets": list(datasets)}, _files(datasets))


def correlation(name: str, columns: Sequence[str]) -> Callable[[Run], float]:
    """A measure: the rank correlation `name` of `MEASURES` in the column of the run, which is one of `columns`."""
    return lambda run: float(run.arrays[name][columns.index(run.column)])


def _files(datasets: Sequence[str]) -> tuple:
    return (meta.FILE, *map(measured.file_of, datasets), images.CODES)


# Jobs -----------------------------------------------------------------------------------------------------------------


def train_and_judge(code: str, datasets: Sequence[str], seed: int, steps: int) -> dict[str, np.ndarray]:
    """A job: train a ranking predictor on the meta-training tasks; each of `MEASURES`, float64 `(data sets + 1,)`."""
    triplets = meta.load()
    rows = meta.rows(triplets, "train")
    model = train.train("ranking", triplets, space="mbv3", code=code, rows=rows, seed=seed, steps=steps, progress=False)
    features, first = task.task_classes("mbv3")
    mean = None
    if code == "mean":
        used = torch.from_numpy(np.unique(triplets.classes)) - first
        with torch.inference_mode():
            mean = model.sets(features[used].mean(dim=0).expand(1, triplets.classes.shape[1], -1))
    scores = {}
    for dataset in datasets:
        bound = train.bind(model, task.NO_CODE if code == "mean" else dataset, space="mbv3", mean_code=mean)
        scores[dataset] = bound.rank(measured.measurements(dataset)[0])
    held = meta.rows(triplets, "test")
    with torch.inference_mode():
        described = features[torch.from_numpy(triplets.classes[triplets.task[held]]) - first]
        codes = mean if code == "mean" else model.sets(described)
        scores[HELD_OUT] = model(meta.SPACE.encode(triplets.archs[held]), 0.0, codes).double().numpy()
    return _judged(scores, datasets)


def judge_null(name: str, datasets: Sequence[str]) -> dict[str, np.ndarray]:
    """A job: `MEASURES` of a ranking that needs no predictor, as of a trained one."""
    held = meta.load()
    archs = {dataset: measured.measurements(dataset)[0] for dataset in datasets}
    archs[HELD_OUT] = held.archs[meta.rows(held, "test")]
    return _judged({column: NULLS[name](part).astype(float) for column, part in archs.items()}, datasets)


def _judged(scores: Mapping[str, np.ndarray], datasets: Sequence[str]) -> dict[str, np.ndarray]:
    """Rank correlations of scores with measured accuracy by data set and, last, of unseen tasks, a mean over them."""
    triplets = meta.load()
    held = meta.rows(triplets, "test")
    tasks, truth = triplets.task[held], triplets.accuracy[held]
    found = {}
    for metric, measure in MEASURES.items():
        values = [measure(scores[dataset], measured.measurements(dataset)[1]).statistic for dataset in datasets]
        each = [measure(scores[HELD_OUT][tasks == one], truth[tasks == one]).statistic for one in np.unique(tasks)]
        found[metric] = np.array([*values, np.nanmean(each)])  # a task whose networks all tie says nothing
    return found
