"""Meta-training data of the MobileNetV3 space: accuracies of random networks on random tasks of 20 classes (as MetaD2A's)."""

from copy import copy
from functools import cache

import numpy as np
import torch
from torch import nn

from nagkit import paths
from nagkit.benchmarks import supernet, supernet_train
from nagkit.benchmarks.inherited import Inherited
from nagkit.data import images as data
from nagkit.data import io, upstream
from nagkit.data.triplets import Triplets
from nagkit.errors import NagkitError
from nagkit.predictors.task import task_images
from nagkit.rng import numpy_stream
from nagkit.spaces import mbv3
from nagkit.study.jobs import Task, run

SPACE = mbv3.Space()
FILE = paths.DATA / "measured" / "mbv3_meta.safetensors"
N_TASKS, N_CLASSES, N_NETWORKS = 500, 20, 10
"""Tasks, classes of a task, networks measured on it."""
SPLITS = {"train": 0.7, "validation": 0.15, "test": 0.15}
"""Shares of the tasks; no task is in two parts."""
_CHUNK = 5  # tasks a job


def rows(triplets: Triplets, split: str) -> np.ndarray:
    """Rows of `triplets` in the part `split` of the tasks, int64."""
    edges = np.cumsum([0.0, *SPLITS.values()]) * len(triplets.classes)
    part = list(SPLITS).index(split)
    place = numpy_stream(0, "meta/split").permutation(len(triplets.classes))[triplets.task]
    return np.flatnonzero((place >= round(edges[part])) & (place < round(edges[part + 1])))


def tasks() -> tuple[np.ndarray, np.ndarray]:
    """Every task's classes, positions among the meta-training classes, `(500, 20)`, and its networks, int8 `(500, 10, 20)`."""
    every = np.tile(np.arange(len(data.meta_classes()[0])), (N_TASKS, 1))
    classes = np.sort(numpy_stream(0, "meta/tasks").permuted(every, axis=1)[:, :N_CLASSES], axis=1)
    return classes, SPACE.random(N_TASKS * N_NETWORKS, numpy_stream(0, "meta/networks")).reshape(N_TASKS, N_NETWORKS, 20)


def build(*, n_workers: int = 1, scheduler: str | None = None, progress: bool = True) -> Triplets:
    """Measure every task's networks with the committed supernet and write `FILE`; an interrupted run goes on."""
    supernet.load(supernet.CHECKPOINT)
    chunks = [list(range(start, min(start + _CHUNK, N_TASKS))) for start in range(0, N_TASKS, _CHUNK)]
    jobs = [Task(measure, {"tasks": chunk}, (supernet.CHECKPOINT,)) for chunk in chunks]
    found = run(jobs, n_workers=n_workers, scheduler=scheduler, progress=progress, label="measuring")
    classes, archs = tasks()
    arrays = {
        "archs": archs.reshape(-1, 20),
        "accuracy": np.concatenate([part.arrays["accuracy"] for part in found]).astype(np.float32),
        "classes": data.meta_classes()[0][classes].astype(np.int16),
    }
    metadata = {"what": "random networks on random tasks", "unit": "percent of 500 test images", "rebuild": "nagkit fit meta"}
    io.write_arrays(FILE, arrays, metadata)
    return load()


def load() -> Triplets:
    """The committed triplets: 5,000 on 500 tasks of the meta-training classes of Tiny ImageNet."""
    arrays, _ = io.read_arrays(FILE)
    n_tasks, n = len(arrays["classes"]), len(arrays["archs"])
    if n != len(arrays["accuracy"]) or n % n_tasks:
        raise NagkitError(f"{FILE.name} holds {n} networks for {n_tasks} tasks; restore it, or run `nagkit fit meta`")
    task = np.repeat(np.arange(n_tasks), n // n_tasks)
    return Triplets(arrays["archs"], arrays["accuracy"].astype(float), task, arrays["classes"].astype(np.int64))


def triplets(space: str) -> tuple[Triplets, np.ndarray | None]:
    """What predictors of a space are meta-trained on, and the rows for training (None: all).

    The published triplets for tasks of ImageNet-32's classes, our own for those of Tiny ImageNet's.
    """
    if task_images(space) == "imagenet32":
        return upstream.triplets(), None
    found = load()
    return found, rows(found, "train")


def measure(tasks: list[int]) -> dict[str, np.ndarray]:
    """Accuracies of the networks of some tasks, one after the other; a job.

    A task is told apart by the outputs of its own classes alone; the batch statistics come from its own training images.
    """
    network = supernet.load(supernet.CHECKPOINT)
    classes, archs = _tasks()
    found = []
    for task in tasks:
        training, test = (_of_task(split, classes[task]) for split in ("train", "test"))
        images = Inherited(training[0], *test, n_images=len(test[0]))
        found.append(images.accuracy(_among(network, classes[task]), archs[task], progress=False))
    return {"accuracy": np.concatenate(found)}


_tasks = cache(tasks)
_meta_images = cache(supernet_train.meta_images)


def _of_task(split: str, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images, labels = _meta_images(split)
    kept = np.isin(labels, classes)
    return images[kept], np.searchsorted(classes, labels[kept])


def _among(network: supernet.Supernet, classes: np.ndarray) -> supernet.Supernet:
    """`network` with the outputs of some classes only; all other weights are shared."""
    part = copy(network)
    part._modules = dict(network._modules)
    part.head, part.n_classes = nn.Linear(network.features, len(classes)), len(classes)
    with torch.no_grad():
        part.head.weight.copy_(network.head.weight[classes])
        part.head.bias.copy_(network.head.bias[classes])
    return part
