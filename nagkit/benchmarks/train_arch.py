"""Training one architecture on images, by the published recipe or one that fits a CPU: its accuracy measured, not looked up.

`BUILD` says how the network of a space is made and `PRESETS` how it is trained. The loop below them knows no space.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from nagkit import paths
from nagkit.benchmarks import cells, subnet, supernet
from nagkit.data import images as data
from nagkit.data import io, resume
from nagkit.errors import NagkitError, unknown
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces.base import SearchSpace, checked

AUGMENTATIONS = ("flip", "crop", "cutout")
Set = tuple[np.ndarray, np.ndarray]
"""Images uint8 `(N, 32, 32, 3)` and labels int `(N,)`."""


class Recipe(NamedTuple):
    """How a network is trained: SGD on the cross-entropy, with a rate that falls along a cosine to 0."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    network: Mapping[str, float]
    """Options of the builder of the space."""
    nesterov: bool = False
    momentum: float = 0.9
    warmup: float = 0.0
    """Share of the run in which the rate also rises linearly from 0."""
    augment: tuple[str, ...] = ()
    """Of `AUGMENTATIONS`: horizontal flip, crop after a black border of 4 pixels, and a grey square of 16×16."""
    clip: float | None = None
    """Largest norm of the gradient."""
    resolution: int = 32
    """Side in pixels to which images are resized for the network, bilinearly."""
    images: int | None = None
    """Training images used, drawn by the seed; None: all."""


BUILD: dict[str, Callable[[SearchSpace, np.ndarray, int, Recipe], nn.Module]] = {
    "nb201": cells.build,
    "mbv3": subnet.build,
}
"""`build(space, arch, n_classes, recipe)` gives the network of a space; initial weights come from torch's global stream."""

PRESETS = {
    "nb201": {
        "paper": Recipe(200, 256, 0.1, 5e-4, {"channels": 16, "cells": 5}, nesterov=True),
        "cpu": Recipe(4, 128, 0.1, 5e-4, {"channels": 8, "cells": 1}, nesterov=True, warmup=0.1, resolution=16),
    },
    # fine-tuning from the weights of our supernet, at its 32 pixels; the published code has 224, AutoAugment and drop-path
    "mbv3": {
        "paper": Recipe(20, 96, 0.01, 4e-5, {"dropout": 0.2}, augment=("cutout",), clip=5.0),
        "cpu": Recipe(3, 96, 0.01, 4e-5, {"dropout": 0.2}, clip=5.0),
        "short": Recipe(1, 96, 0.01, 4e-5, {"dropout": 0.2}, clip=5.0, images=5_000),
    },
}
"""Recipes by space and name: "paper" as published, "cpu" our own; the book's page on training says how it was chosen.
"short" is that of the fine-tuned accuracies of Table 1."""


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


def preset(space: str, name: str) -> Recipe:
    """The recipe `name` of a space."""
    _builder(space)
    if name not in PRESETS[space]:
        raise unknown(f"training preset of {space}:", name, PRESETS[space])
    return PRESETS[space][name]


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
    space: SearchSpace,
    arch: np.ndarray,
    train_set: Set,
    test_set: Set,
    recipe: Recipe,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    device: str | None = None,
    save_seconds: float = 30.0,
    progress: bool = True,
) -> Result:
    """Train `arch`, int `(n_slots,)`, on `train_set` and test it on `test_set` after every epoch.

    The whole state goes to `checkpoint` (default: in the cache, under a hash of the run) in one atomic step, after
    every epoch and after `save_seconds` within one. The same call goes on from there and ends with the weights of an
    uninterrupted run, bit for bit on a CPU with the same number of threads; when the run is finished it returns at once.
    `device` is that of torch, by default the GPU where there is one. Raises `NagkitError` for images, labels or a recipe
    that cannot be trained, for a loss that is not finite, and when `checkpoint` belongs to another run.
    """
    target, build = _device(device), _builder(space.name)
    arch = checked(space, np.asarray(arch)[None])[0]
    n_classes = _check(train_set, test_set, recipe)
    run = fingerprint(space, arch, train_set, test_set, recipe, seed)
    if recipe.images is not None:
        rows = numpy_stream(seed, "train-arch/images").permutation(len(train_set[0]))[: recipe.images]
        train_set = tuple(part[np.sort(rows)] for part in train_set)
    checkpoint = checkpoint or paths.cache() / "train-arch" / f"{run[:16]}.safetensors"
    state = {"run": run, "epoch": 0, "step": 0, "loss": 0.0, "seconds": 0.0, "curve": []}
    with torch.random.fork_rng(devices=[target] if target.type == "cuda" else []):
        torch.manual_seed(torch_stream(seed, "train-arch/weights").initial_seed())
        model = build(space, arch, n_classes, recipe).to(target, memory_format=torch.channels_last)
        optimiser = torch.optim.SGD(
            model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
        )
        if checkpoint.exists():
            if io.metadata(io.open_arrays(checkpoint)).get("run") != run:
                raise NagkitError(f"checkpoint {checkpoint.name} belongs to a run with another architecture, data set or "
                                  "settings; delete it or name another")  # fmt: skip
            state = resume.restore(checkpoint, {"model": model}, optimiser)
        repeated = state["epoch"] == recipe.epochs
        if not repeated:
            _loop(model, optimiser, recipe, seed, train_set, test_set, state, checkpoint, save_seconds, progress)
    curve = pd.DataFrame(state["curve"], columns=["epoch", "lr", "train_loss", "test_accuracy"])
    params = sum(parameter.numel() for parameter in model.parameters())
    final = float(curve["test_accuracy"].iloc[-1])
    return Result(curve, final, params, state["seconds"], recipe, model.eval(), checkpoint, repeated)


def _loop(model, optimiser, recipe, seed, train_set, test_set, state, checkpoint, save_seconds, progress) -> None:
    """The steps that `state` says are still to be done; it is updated in place."""
    device = next(model.parameters()).device
    images, labels, *test_set = (torch.from_numpy(np.require(a, None, "CW")).to(device) for a in (*train_set, *test_set))
    pixels = Pixels(images, recipe.resolution)
    steps = math.ceil(len(images) / recipe.batch_size)
    total, done = steps * recipe.epochs, steps * state["epoch"] + state["step"]
    saved = time.monotonic()

    def save() -> None:
        nonlocal saved
        state["seconds"] += time.monotonic() - saved
        saved = time.monotonic()
        resume.store(checkpoint, state, {"model": model}, optimiser)

    with tqdm(total=total, initial=done, desc="train-arch", unit="step", mininterval=1, disable=not progress) as bar:
        for epoch in range(state["epoch"], recipe.epochs):
            order = torch.randperm(len(images), generator=torch_stream(seed, f"train-arch/epoch {epoch}")).to(device)
            model.train()
            for rows in order.tensor_split(steps)[state["step"] :]:
                generator = torch_stream(seed, f"train-arch/step {done}")  # derived, so no stream has to be saved
                loss = _step(model, optimiser, recipe, rate(recipe, done, total), pixels, images[rows], labels[rows], generator)
                done += 1
                state["step"] += 1
                state["loss"] += loss * len(rows)
                if not math.isfinite(loss):
                    raise NagkitError(f"the loss is {loss} in epoch {epoch + 1}: training diverged; lower lr or add warmup")
                if time.monotonic() - saved > save_seconds:
                    save()
                shown = f"{state['curve'][-1][3]:.2f}%" if state["curve"] else "-"
                bar.set_postfix(epoch=epoch + 1, loss=f"{loss:.3f}", test=shown, refresh=False)
                bar.update()
            row = [epoch + 1, rate(recipe, done - 1, total), state["loss"] / len(images), top_1(model, pixels, *test_set)]
            state["curve"].append(row)
            state |= {"epoch": epoch + 1, "step": 0, "loss": 0.0}
            save()


def _step(model, optimiser, recipe, lr, pixels, images, labels, generator) -> float:
    """One step of SGD on a batch; its loss."""
    for group in optimiser.param_groups:
        group["lr"] = lr
    x = pixels(jitter(images, recipe.augment, generator))
    if "cutout" in recipe.augment:
        x = cutout(x, generator)
    torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # for dropout, which reads the global stream
    loss = F.cross_entropy(model(x), labels.long())
    optimiser.zero_grad()
    loss.backward()
    if recipe.clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimiser.step()
    return loss.item()


def fingerprint(space: SearchSpace, arch: np.ndarray, train_set: Set, test_set: Set, recipe: Recipe, seed: int) -> str:
    """SHA-256 of all that decides the result but the device: two runs with the same one are the same run."""
    said = [space.name, space.to_string(arch[None])[0], recipe._asdict() | {"network": dict(recipe.network)}, seed]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    if space.name == "mbv3" and supernet.CHECKPOINT.is_file():  # where it is missing, nothing can be built
        digest.update(supernet.CHECKPOINT.read_bytes())
    for images, labels in (train_set, test_set):
        digest.update(np.ascontiguousarray(images).data)
        digest.update(labels.astype(np.int64).data)
    return digest.hexdigest()


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


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate of one of `steps` steps (from 0)."""
    rising = min(1.0, (step + 1) / (recipe.warmup * steps)) if recipe.warmup else 1.0
    return recipe.lr * rising * 0.5 * (1 + math.cos(math.pi * step / steps))


def _builder(space: str) -> Callable[..., nn.Module]:
    if space not in BUILD:
        raise unknown("search space to train in", space, BUILD)
    return BUILD[space]


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
    for field in ("epochs", "batch_size", "lr", "resolution"):
        value = getattr(recipe, field)
        if not (value >= 1 or (field == "lr" and value > 0)) or not math.isfinite(value):
            raise NagkitError(f"{field} of the recipe is {value}; it must be {'positive' if field == 'lr' else 'at least 1'}")
    return int(seen[-1]) + 1


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise unknown("device", name, ("cpu", "cuda")) from None
    if device.type not in ("cpu", "cuda"):
        raise unknown("device", name, ("cpu", "cuda"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise NagkitError(f"device {name!r} is not here: PyTorch sees no CUDA GPU; leave --device out to train on the CPU")
    return device
