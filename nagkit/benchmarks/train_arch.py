"""Training one architecture on images, by the published recipe or one that fits a CPU: its accuracy measured, not looked up.

data/training.yaml says which of `NETWORKS` a space has and how it is trained.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from nagkit import paths
from nagkit.benchmarks import cells, subnet, supernet
from nagkit.data import images as data
from nagkit.devices import get_device
from nagkit.errors import NagkitError, unknown
from nagkit.predictors.fit import Recipe, fingerprint, fit_images, own_stream, recipes
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces.base import SearchSpace, checked

AUGMENTATIONS = ("flip", "crop", "cutout")
Set = tuple[np.ndarray, np.ndarray]
"""Images uint8 `(N, 32, 32, 3)` and labels int `(N,)`."""


NETWORKS: dict[str, Callable[..., nn.Module]] = {"CellNetwork": cells.CellNetwork, "SubNetwork": subnet.build}
"""What a recipe's `network` makes of an architecture, a number of classes, and the recipe's settings."""


class Result(NamedTuple):
    """A finished run; `accuracy` is that of the last epoch, in percent, so that no epoch is chosen on the test images."""

    curve: pd.DataFrame
    """One row an epoch: `epoch`, `lr` of its last step, `train_loss`, `test_accuracy` in percent."""
    accuracy: float
    params: int
    seconds: float
    """Wall time of the steps that count, over all parts of an interrupted run."""
    recipe: Recipe
    model: nn.Module
    """The trained network in eval mode; it reads normalised pixels."""
    checkpoint: Path
    repeated: bool
    """Whether the run had been finished before this call."""


def preset(space: str, name: str, *, epochs: int | None = None, augment: tuple[str, ...] | None = None) -> Recipe:
    """The recipe `name` of a space (data/training.yaml), with other epochs, of which the warm-up keeps its share, or images.

    "paper" is the published one, "cpu" our own (the book's page on training says how it was chosen), and "short" that of the
    fine-tuned accuracies of Table 1.
    """
    known = recipes("architecture", space)
    if not known:
        raise NagkitError(f"no way to train architectures of {space} is known; add one to data/training.yaml")
    if name not in known:
        raise unknown(f"training recipe of {space}:", name, known)
    recipe = known[name]
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs, warmup=recipe.warmup * epochs / recipe.epochs)
    return recipe if augment is None else replace(recipe, augment=augment)


def load_sets(name: str) -> tuple[Set, Set, str]:
    """Training and test part of a data set that `nagkit.data.images.load` knows, and a remark on where the test part is from.

    A data set without a test split gives up a fifth of each class for it, the same fifth for every seed.
    """
    have = data.splits(name)
    if have[:2] == ["train", "test"]:
        return data.load(name, "train"), data.load(name, "test"), ""
    if have == ["test"]:
        raise NagkitError(f"{name} has only the split 'test'; training needs 'train' and 'test', or 'all'")
    images, labels = data.load(name, have[0])
    held, rng = np.zeros(len(labels), bool), numpy_stream(0, "train-arch/held out")
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            raise NagkitError(f"class {label} of {name} has one image, too few to hold one out; add images or a split 'test'")
        held[members[: math.ceil(len(members) / 5)]] = True
    remark = f"{name} has no test split: tested on {held.sum():,} of its {len(held):,} images, a fifth of each class held out"
    return (images[~held], labels[~held]), (images[held], labels[held]), remark


def train(
    space: SearchSpace, arch: np.ndarray, train_set: Set, test_set: Set, recipe: Recipe, *, seed: int = 0,
    checkpoint: Path | None = None, device: str | None = None, save_seconds: float = 30.0, progress: bool = True,
) -> Result:  # fmt: skip
    """Train `arch`, int `(n_slots,)`, on `train_set` and test it on `test_set` after every epoch.

    The whole state goes to `checkpoint` (default: in the cache, under a hash of the run) after every epoch and after
    `save_seconds` within one (see `nagkit.predictors.fit`); when the run is finished the same call returns at once.
    `device` is that of torch, by default the GPU where there is one. Raises `NagkitError` for images, labels or a recipe
    that cannot be trained, for a loss that is not finite, and when `checkpoint` belongs to another run.
    """
    if recipe.network not in NETWORKS:
        raise unknown("network to train", recipe.network, NETWORKS)
    target = get_device(device)
    arch = checked(space, np.asarray(arch)[None])[0]
    n_classes = _check(train_set, test_set, recipe)
    # all that decides the result but the device; where an inherited checkpoint is missing, nothing can be built
    inherited = recipe.network == "SubNetwork" and supernet.CHECKPOINT.is_file()
    weights = [np.fromfile(supernet.CHECKPOINT, np.uint8)] if inherited else []
    run = fingerprint([space.name, space.to_string(arch[None])[0], recipe, seed], *weights, *train_set, *test_set)
    if recipe.images is not None:
        rows = numpy_stream(seed, "train-arch/images").permutation(len(train_set[0]))[: recipe.images]
        train_set = tuple(part[np.sort(rows)] for part in train_set)
    checkpoint = checkpoint or paths.cache() / "train-arch" / f"{run[:16]}.safetensors"
    steps, at, fresh = math.ceil(len(train_set[0]) / recipe.batch), {}, []
    shown, *tested = (torch.from_numpy(np.require(part, None, "CW")).to(target) for part in (train_set[0], *test_set))
    pixels = Pixels(shown, recipe.resolution)

    def loss(step: int, images: torch.Tensor, labels: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        generator = torch_stream(seed, f"train-arch/step {step}")  # a run may go on in the middle of an epoch
        x = pixels(jitter(images, recipe.augment, generator))
        if "cutout" in recipe.augment:
            x = cutout(x, generator)
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # for dropout, which reads the global stream
        fresh.append(step)
        return F.cross_entropy(model(x), labels)

    def report(network: nn.Module, value: float) -> dict:
        lr = recipe.in_steps(steps).rate(at["step"] - 1)
        return {"lr": lr, "train_loss": value, "test_accuracy": top_1(network, pixels, *tested)}

    with own_stream(seed, "train-arch/weights", target):
        model = NETWORKS[recipe.network](arch, n_classes, **recipe.settings).to(target, memory_format=torch.channels_last)
        _, curve = fit_images(
            model, recipe, *train_set, loss, report, role="train-arch", per_epoch=steps, seed=seed, at=at, state=checkpoint,
            run=run, save_seconds=save_seconds, what="train-arch", progress=progress,
        )  # fmt: skip
    params = sum(parameter.numel() for parameter in model.parameters())
    return Result(pd.DataFrame(curve), curve[-1]["test_accuracy"], params, at["seconds"], recipe, model, checkpoint, not fresh)


class Pixels:
    """Images uint8 `(B, 32, 32, 3)` → float32 `(B, 3, R, R)`, channels last, standardised over the training images."""

    def __init__(self, images: torch.Tensor, resolution: int = 32):
        channels, levels = images.unbind(dim=3), torch.arange(256, device=images.device)
        counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in channels])
        share = counts.double() / channels[0].numel()
        mean = share @ levels.double()
        # a channel that hardly varies is not blown up: its unit is at least one grey level
        std = (share * (levels - mean[:, None]) ** 2).sum(dim=1).sqrt().clamp_min(1.0)
        self.mean, self.std = mean.float(), std.float()
        self.size = (resolution, resolution)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        pixels = ((images.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        return pixels if pixels.shape[2:] == self.size else F.interpolate(pixels, self.size, mode="bilinear")


def jitter(images: torch.Tensor, names: tuple[str, ...], generator: torch.Generator) -> torch.Tensor:
    """Images uint8 `(B, 32, 32, 3)`, each flipped with probability one half and shifted over a black border of 4 pixels."""
    n, side = images.shape[:2]
    rows, columns = (torch.arange(side).repeat(n, 1) for _ in range(2))  # drawn on the CPU: one stream on every device
    if "flip" in names:
        flipped = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    if "crop" in names:
        images = F.pad(images, (0, 0, 4, 4, 4, 4))
        rows = rows + torch.randint(9, (n, 1), generator=generator)
        columns = columns + torch.randint(9, (n, 1), generator=generator)
    batch, rows, columns = (part.to(images.device) for part in (torch.arange(n), rows, columns))
    return images[batch[:, None, None], rows[:, :, None], columns[:, None, :]]


def cutout(pixels: torch.Tensor, generator: torch.Generator, side: int = 16) -> torch.Tensor:
    """Pixels `(B, 3, H, W)` with a square around a random point set to the mean, 0 (DeVries & Taylor, 2017)."""
    height, width = pixels.shape[2:]
    inside = []
    for length in (height, width):
        offset = torch.arange(length) - torch.randint(length, (len(pixels), 1), generator=generator)
        inside.append((offset >= -(side // 2)) & (offset < side - side // 2))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return pixels.masked_fill(hole.to(pixels.device), 0.0)


@torch.inference_mode()
def top_1(model: nn.Module, pixels: Pixels, images: torch.Tensor, labels: torch.Tensor, batch_size: int = 250) -> float:
    """Percentage of images that `model` gives their own label; leaves it in eval mode."""
    model.eval()
    parts = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    return 100 * sum(int((model(pixels(x)).argmax(dim=1) == y).sum()) for x, y in parts) / len(labels)


def _check(train_set: Set, test_set: Set, recipe: Recipe) -> int:
    """Number of classes, when everything can be trained."""
    for what, (images, labels) in (("training", train_set), ("test", test_set)):
        data.check(images)
        if not len(images):
            raise NagkitError(f"there are no {what} images; give at least one")
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise NagkitError(f"{what} labels must be {len(images)} integers from 0, got {labels.dtype} {labels.shape}")
    seen = np.unique(train_set[1])
    if len(seen) < 2:
        raise NagkitError(f"all training labels are {seen[0]}; training needs at least two classes")
    unseen = np.setdiff1d(test_set[1], seen)
    if len(unseen):
        raise NagkitError(f"test label {unseen[0]} has no training image; add some, or remove the class from the test images")
    for name in recipe.augment:
        if name not in AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS)
    for field in ("epochs", "batch", "lr", "resolution"):
        value = getattr(recipe, field)
        if not (value >= 1 or (field == "lr" and value > 0)) or not math.isfinite(value):
            raise NagkitError(f"{field} of the recipe is {value}; it must be {'positive' if field == 'lr' else 'at least 1'}")
    return int(seen[-1]) + 1
