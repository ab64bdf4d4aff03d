"""What the published predictors are trained on: triplets, their shipped split, and images of the classes of a task."""

import numpy as np
import torch
from torch import Tensor

from nagkit.errors import NagkitError, unknown
from nagkit.predictors import images

VALIDATION = 400
"""The first so many entries of the shipped permutation are the validation part; the other 4,230 train."""
TARGETS = ("cifar10", "cifar100", "imagenet16-120", "mnist", "fashion_mnist")


def training_rows(order: np.ndarray) -> np.ndarray:
    """Rows that the published code trains on, given the shipped permutation `order`."""
    return np.asarray(order)[VALIDATION:]


def class_images() -> Tensor:
    """Features of the images of ImageNet-32's classes, row i of class id i + 1: float32 `(1000, 1, 256)`.

    The published run has hundreds of images a class and 512 features of a ResNet-18; here one image of every class is at
    hand, and our encoder's features. The published draw of 20 images a class then always gives that one.
    """
    return torch.from_numpy(images.codes()["imagenet32/image"])[:, None]


def target_images(dataset: str) -> Tensor:
    """Features of images of the classes of a data set to be predicted, float32 `(classes, images, 256)`.

    As many images a class as the committed features hold: 10, of CIFAR-100 5, of ImageNet16-120 1 (of the same classes).
    """
    if dataset not in TARGETS:
        raise unknown("data set with class images", dataset, TARGETS)
    codes = images.codes()
    if dataset == "imagenet16-120":
        return torch.from_numpy(codes["imagenet32/image"])[:120, None]
    return torch.from_numpy(codes[f"{dataset}/samples"])


def draw_images(
    library: Tensor, classes: Tensor, n: int, *, order: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """`n` images of every class without replacement, or all where there are fewer: `(*classes.shape, images, features)`.

    `library` holds features `(classes, images, features)`, `classes` rows of it. `order` gives the permutation of the images of
    each entry of `classes`; without it one is drawn from `generator`. Raises `NagkitError` for fewer than one image.
    """
    if n < 1:
        raise NagkitError(f"images of a class must be at least 1, got {n}")
    available = library.shape[1]
    if order is None:
        if available == 1:
            return library[classes]
        order = torch.rand(*classes.shape, available, generator=generator).argsort(dim=-1)
    return library[classes[..., None], order[..., :n]]
