"""Measured accuracies of MobileNetV3 networks on 32×32 images, with weights inherited from the committed supernets."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from nagkit import paths
from nagkit.benchmarks import supernet, supernet_train
from nagkit.benchmarks.inherited import Inherited
from nagkit.cluster import map_jobs
from nagkit.data import io
from nagkit.errors import unknown
from nagkit.rng import numpy_stream
from nagkit.spaces import mbv3
from nagkit.spaces.base import checked

ORACLE = "supernet"
DATASETS = (supernet_train.META, *supernet_train.ADAPTED)
N_IMAGES = 1000
"""Test images of a measurement."""
SPACE = mbv3.Space()
_CHUNK = 50  # networks a job: half a minute, the most that an interruption loses


class Measured:
    """Top-1 accuracy in percent; `oracle` says where it comes from and travels with every number.

    "tiny_imagenet" are the 160 classes that the supernet learned, with test images that it never saw; for the other data
    sets it was trained on for a few minutes ("tiny_imagenet-held": the 40 other classes, a development set). `n_workers` and
    `scheduler`: see `nagkit.cluster.map_jobs`.
    """

    space, oracle, datasets = "mbv3", ORACLE, DATASETS

    def __init__(self, *, n_workers: int = 1, scheduler: str | None = None, progress: bool = True):
        self._how = {"n_workers": n_workers, "scheduler": scheduler, "progress": progress}

    def splits(self, dataset: str) -> tuple[str, ...]:
        if dataset not in DATASETS:
            raise unknown("data set of the supernet", dataset, DATASETS)
        return ("test",)

    def metrics(self, dataset: str, *, split: str) -> tuple[str, ...]:
        if split not in self.splits(dataset):
            raise unknown(f"split of {dataset}", split, self.splits(dataset))
        return ("accuracy",)

    def query(
        self, archs: np.ndarray, dataset: str, *, split: str, metric: str = "accuracy", draw: int = 0, n_images: int = N_IMAGES
    ) -> np.ndarray:
        """The accuracy of each network, float64 `(B,)`, on `n_images` test images; another `draw` is another choice of them.

        Fifty networks at a time are kept in the cache, so an interrupted measurement goes on. `NagkitError` for an unknown
        name, an invalid network, and a supernet or images that are not here.
        """
        if metric not in self.metrics(dataset, split=split):
            raise unknown(f"metric of {dataset}/{split}", metric, self.metrics(dataset, split=split))
        distinct, place = np.unique(checked(SPACE, archs), axis=0, return_inverse=True)  # sorted: neighbours share layers
        names = SPACE.to_string(distinct)
        jobs = [
            {"dataset": dataset, "archs": names[start : start + _CHUNK], "draw": draw, "n_images": n_images}
            for start in range(0, len(names), _CHUNK)
        ]
        supernet.load(supernet.adapted(dataset))
        found = map_jobs(measure, jobs, data=[supernet.adapted(dataset)], **self._how)
        return np.concatenate([np.empty(0), *(part["accuracy"] for part in found)])[place.ravel()]

    def fidelity(self, dataset: str, *, split: str, metric: str = "accuracy") -> None:
        """None: these are measurements."""
        self.metrics(dataset, split=split)

    def describe(self) -> str:
        """One line: which oracle."""
        return f"{ORACLE}: measured on {N_IMAGES:,} test images with weights inherited from a supernet, not trained alone"


def measure(dataset: str, archs: list[str], draw: int, n_images: int) -> dict[str, np.ndarray]:
    """Accuracies of networks; a job of `nagkit.cluster.map_jobs`."""
    network, _ = supernet.load(supernet.adapted(dataset))
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
    accuracy = Measured(**how).query(archs, dataset, split="test").astype(np.float32)
    path = paths.DATA / "measured" / f"mbv3_{dataset}.safetensors"
    metadata = {"dataset": dataset, "unit": f"percent of {N_IMAGES} test images", "rebuild": f"nagkit fit measured {dataset}"}
    return io.write_arrays(path, {"archs": archs, "accuracy": accuracy}, metadata)
