"""A predictor bound to one data set: what guidance differentiates and what ranks pools."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from nagkit.data.images import meta_classes
from nagkit.devices import beside, threads
from nagkit.errors import NagkitError, unknown
from nagkit.predictors import images
from nagkit.predictors.fit import settings
from nagkit.rng import numpy_stream
from nagkit.spaces.base import SearchSpace, get_space, is_listed

NO_CODE = "none"
CODED = ("cifar10", "cifar100", "imagenet16-120", "mnist", "fashion_mnist")
"""Data sets with committed class features; others are predicted with the mean code and labelled "no dataset code"."""
HELD = "tiny_imagenet-held"
"""The classes of Tiny ImageNet that no meta-training task of MBv3 has: the development set of that space."""


def class_features(dataset: str, *, draws: int = 10, seed: int = 0) -> torch.Tensor:
    """Features of the classes of `dataset`, float32 `(draws, classes, 256)`; every draw takes one image of each class.

    The meta-training tasks are described by one image per class too. ImageNet16-120, whose own images are not at hand, is
    described by the single images of the same 120 ImageNet classes.
    """
    if dataset not in (*CODED, HELD):
        raise unknown("data set with class features", dataset, (*CODED, HELD))
    codes = images.codes()
    if dataset == "imagenet16-120":
        return torch.from_numpy(codes["imagenet32/image"][None, :120])
    samples = codes["tiny_imagenet/samples"][meta_classes()[1]] if dataset == HELD else codes[f"{dataset}/samples"]
    rng = numpy_stream(seed, f"codes/draws/{dataset}")
    pick = rng.integers(0, samples.shape[1], (draws, len(samples)))
    return torch.from_numpy(samples[np.arange(len(samples)), pick])


def task_images(space: str | SearchSpace) -> str:
    """Whose classes the meta-training tasks of a space are made of, as data/training.yaml says."""
    name, known = get_space(space).name, settings("tasks")
    if name not in known:
        raise NagkitError(f"no meta-training tasks of {name} are known; add them to data/training.yaml")
    return known[name]


def task_classes(space: str | SearchSpace) -> tuple[torch.Tensor, int]:
    """Features of the classes of a space's meta-training tasks, one image each, `(classes, 256)`, and the id of the first."""
    name, codes = task_images(space), images.codes()
    single, several = f"{name}/image", f"{name}/samples"  # ids of the former are those of ImageNet-32, which start at 1
    return (torch.from_numpy(codes[single]), 1) if single in codes else (torch.from_numpy(codes[several][:, 0]), 0)


class TaskPredictor:
    """`(x, sigma) → (B,)` for one data set, given `model(x, sigma, code)` and the data set's `code`.

    Values are standardised over `space` (all of it, or 5,000 random architectures of one too large to list) when `standardise`,
    so that a guidance scale is in standard deviations of the predicted score; otherwise they stay in the model's own unit,
    standard deviations of the meta-training accuracies. The weights of `model` and the code follow `x` to its device.
    """

    def __init__(self, model: Callable, code: torch.Tensor, space: SearchSpace, *, standardise: bool = True):
        self.model, self.code, self.space = model, code, space
        self.centre, self.spread = 0.0, 1.0
        if standardise:
            rng = numpy_stream(0, "predictors/standardise")
            scores = self.rank(space.all() if is_listed(space) else space.random(5_000, rng))
            self.centre, self.spread = float(scores.mean()), float(scores.std())

    def __call__(self, x: torch.Tensor, sigma: float | torch.Tensor = 0.0) -> torch.Tensor:
        model = beside(self.model, x) if isinstance(self.model, nn.Module) else self.model
        return (model(x, sigma, self.code.to(x.device)) - self.centre) / self.spread

    def rank(self, archs: np.ndarray, batch_size: int = 512) -> np.ndarray:
        """Scores of clean architectures, float64 `(B,)`; on one thread of the CPU."""
        with torch.inference_mode(), threads(1):
            return torch.cat([self(part) for part in self.space.encode(archs).split(batch_size)]).double().numpy()
