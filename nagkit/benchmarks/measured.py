"""Accuracies of MobileNetV3 networks on 32×32 images: measured with weights inherited from a supernet, or by a surrogate.

- "supernet": measured here and now, a fifth of a second a network and more; needs the images.
- "supernet-surrogate": a Gaussian process on the committed measurements of 1,000 random networks a data set.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from nagkit import paths
from nagkit.benchmarks import ofa, supernet, supernet_train
from nagkit.benchmarks.embedded import evaluate
from nagkit.benchmarks.inherited import Inherited
from nagkit.benchmarks.names import Named
from nagkit.data import io
from nagkit.errors import NagkitError, unknown
from nagkit.predictors.process import Process
from nagkit.rng import numpy_stream
from nagkit.spaces import mbv3
from nagkit.spaces.base import SearchSpace, checked
from nagkit.study.jobs import Task, run

ORACLE, SURROGATE = "supernet", "supernet-surrogate"
DATASETS = (supernet_train.META, *supernet_train.ADAPTED)
_TREE = {dataset: {"test": ("accuracy",)} for dataset in DATASETS}
N_IMAGES = 1000
"""Test images of a measurement."""
SPACE = mbv3.Space()
_CHUNK = 50  # networks a job: half a minute, the most that an interruption loses


class Measured(Named):
    """Top-1 accuracy in percent; `oracle` says where it comes from and travels with every number.

    "tiny_imagenet" are the 160 classes that the supernet learned, with test images that it never saw; for the other data
    sets it was trained on for a few minutes ("tiny_imagenet-held": the 40 other classes, a development set). `n_workers` and
    `scheduler`: see `nagkit.study.jobs.run`.
    """

    space, oracle, kind, tree = "mbv3", ORACLE, "data set of the supernet", _TREE

    def __init__(self, *, n_workers: int = 1, scheduler: str | None = None, progress: bool = True):
        self._how = {"n_workers": n_workers, "scheduler": scheduler, "progress": progress}

    def query(
        self, archs: np.ndarray, dataset: str, *, split: str, metric: str = "accuracy", draw: int = 0, n_images: int = N_IMAGES
    ) -> np.ndarray:
        """The accuracy of each network, float64 `(B,)`, on `n_images` test images; another `draw` is another choice of them.

        Fifty networks at a time are kept in the cache, so an interrupted measurement goes on. `NagkitError` for an unknown
        name, an invalid network, and a supernet or images that are not here.
        """
        self.check(dataset, split, metric)
        distinct, place = np.unique(checked(SPACE, archs), axis=0, return_inverse=True)  # sorted: neighbours share layers
        names = SPACE.to_string(distinct)
        chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
        how, file = {"dataset": dataset, "draw": draw, "n_images": n_images}, supernet.adapted(dataset)
        supernet.load(file)
        found = run([Task(measure, how | {"archs": chunk}, (file,)) for chunk in chunks], label="measuring", **self._how)
        return np.concatenate([np.empty(0), *(part.arrays["accuracy"] for part in found)])[place.ravel()]

    def fidelity(self, dataset: str, *, split: str, metric: str = "accuracy") -> None:
        """None: these are measurements."""
        self.check(dataset, split, metric)

    def describe(self) -> str:
        """One line: which oracle."""
        return f"{ORACLE}: measured on {N_IMAGES:,} test images with weights inherited from a supernet, not trained alone"


class Surrogate(Named):
    """The process on the committed measurements of each data set that has them; see `Measured`."""

    space, oracle, kind, tree = "mbv3", SURROGATE, "data set of the supernet", _TREE

    def query(self, archs: np.ndarray, dataset: str, *, split: str, metric: str = "accuracy") -> np.ndarray:
        """The accuracy of each network as predicted, float64 `(B,)`."""
        self.check(dataset, split, metric)
        return _predict(_process(dataset), checked(SPACE, archs))

    def fidelity(self, dataset: str, *, split: str, metric: str = "accuracy") -> dict[str, float]:
        """`r2`, `kendall_tau` and `rmse` on measured networks that were held out, a tenth at a time."""
        self.check(dataset, split, metric)
        return measurements(dataset)[2]["fidelity"]

    def describe(self) -> str:
        """One line: which oracle, and how well it is known to do."""
        known = [dataset for dataset in DATASETS if file_of(dataset).is_file()]
        figures = [f"{name} {self.fidelity(name, split='test')['kendall_tau']:.2f}" for name in known]
        return f"{SURROGATE}: Gaussian process on measured networks; held-out Kendall τ: {', '.join(figures)}"


def benchmark_of(space: SearchSpace, oracle: str, *, resolution: int | None, dataset: str | None) -> Named:
    """The benchmark of the space; "auto" is the supernet for a `dataset` of 32×32 images, else what `ofa` has for ImageNet."""
    known = (*ofa.ImageNet.tree, *DATASETS)
    if oracle == "auto" and dataset not in (None, *known):
        raise unknown(f"data set of {space.name}", dataset, known)
    if oracle not in (ORACLE, SURROGATE) and (oracle != "auto" or dataset not in DATASETS):
        return ofa.open_imagenet(oracle, 224 if resolution is None else resolution)
    if resolution not in (None, 32):
        raise NagkitError(f"the supernet sees images of 32×32 pixels, not {resolution}; leave the resolution out")
    return open_supernet(oracle, dataset)


def open_supernet(oracle: str, dataset: str | None = None) -> Measured | Surrogate:
    """The benchmark "supernet" or "supernet-surrogate"; "auto": measured where images are here, else the surrogate."""
    if oracle == SURROGATE or (oracle == "auto" and paths.images() is None and file_of(dataset).is_file()):
        return Surrogate()
    return Measured()


def measure(dataset: str, archs: list[str], draw: int, n_images: int) -> dict[str, np.ndarray]:
    """Accuracies of networks; a job."""
    network = supernet.load(supernet.adapted(dataset))
    return {"accuracy": _images(dataset, draw, n_images).accuracy(network, SPACE.from_string(archs), progress=False)}


@lru_cache(maxsize=1)
def _images(dataset: str, draw: int, n_images: int) -> Inherited:
    training, test = (supernet_train.images_of(dataset, split) for split in ("train", "test"))
    return Inherited(training[0], *test, n_images=n_images, draw=draw)


def random_networks(dataset: str) -> np.ndarray:
    """The networks whose accuracies are committed for each data set, drawn by the Once-for-All law: int8 `(1000, 20)`."""
    return SPACE.random(1000, numpy_stream(0, f"measured/{dataset}"))


def build(dataset: str, **how) -> Path:
    """Measure the `random_networks` of a data set and write them down; an interrupted run goes on. Returns the file."""
    archs = random_networks(dataset)
    accuracy = Measured(**how).query(archs, dataset, split="test")
    predicted = np.empty(len(archs))
    for held in np.array_split(np.arange(len(archs)), 10):
        rest = np.setdiff1d(np.arange(len(archs)), held)
        predicted[held] = _predict(_regress(archs[rest], accuracy[rest]), archs[held])
    metadata = {
        "dataset": dataset,
        "unit": f"percent of {N_IMAGES} test images",
        "fidelity": evaluate(predicted, accuracy),
        "rebuild": f"nagkit fit measured {dataset}",
    }
    return io.write_arrays(file_of(dataset), {"archs": archs, "accuracy": accuracy.astype(np.float32)}, metadata)


def file_of(dataset: str) -> Path:
    """Where the committed measurements of a data set lie."""
    return paths.DATA / "measured" / f"mbv3_{dataset}.safetensors"


def measurements(dataset: str) -> tuple[np.ndarray, np.ndarray, dict]:
    """The committed networks of a data set, int8 `(1000, 20)`, their accuracies in percent, and what the file says of them."""
    if not file_of(dataset).is_file():
        remedy = f"`nagkit train supernet --adapt {dataset}` and `nagkit fit measured {dataset}` make them"
        raise NagkitError(f"no measurements of mbv3 on {dataset} are committed; {remedy}")
    arrays, metadata = io.read_arrays(file_of(dataset))
    return arrays["archs"], arrays["accuracy"].astype(float), metadata


@lru_cache
def _process(dataset: str) -> Process:
    return _regress(*measurements(dataset)[:2])


def _regress(archs: np.ndarray, accuracy: np.ndarray) -> Process:
    """A process on accuracies; kernel and noise by its evidence."""
    kernels, noises = [(scale, linear) for scale in (0.0, 2.0, 4.0) for linear in (3.0, 30.0)], (0.1, 0.3, 1.0, 3.0, 10.0)
    return Process(kernels, noises).fit(torch.from_numpy(ofa.descriptors(archs)), torch.from_numpy(accuracy))


def _predict(process: Process, archs: np.ndarray, *, batch: int = 2048) -> np.ndarray:
    found = [process(torch.from_numpy(ofa.descriptors(archs[i : i + batch]))).numpy() for i in range(0, len(archs), batch)]
    return np.concatenate([np.empty(0), *found]).round(4)
