"""Training of the supernet by the sandwich rule with in-place distillation, and of single networks of it by the same recipe."""

import hashlib
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from nagkit import paths
from nagkit.benchmarks.inherited import Inherited
from nagkit.benchmarks.supernet import CHECKPOINT, LARGEST, SMALLEST, WIDTHS, Supernet, initialise, load, save
from nagkit.benchmarks.train_arch import jitter
from nagkit.data import images as data
from nagkit.data import io, resume
from nagkit.errors import NagkitError, unknown
from nagkit.predictors.images import follow, normalise
from nagkit.predictors.task import HELD
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces import mbv3


class Recipe(NamedTuple):
    """Stochastic gradient descent with Nesterov momentum 0.9, warm-up of an epoch, cosine to 0, averaged weights."""

    epochs: int = 30
    batch: int = 128
    lr: float = 0.2
    decay: float = 1e-4
    """Weight decay, of matrices only."""
    smoothing: float = 0.1
    augment: tuple[str, ...] = ("flip", "crop")
    """Of those of `nagkit.benchmarks.train_arch.jitter`."""
    average: float = 0.995
    """What is kept of the averaged weights in a step."""


STANDARD = Recipe()
META = "tiny_imagenet"
"""The data set whose meta-training classes the supernet learns; the other classes are `HELD`."""
ADAPTED = {HELD: META, "cifar10": "cifar10_full", "cifar100": "cifar100", "fashion_mnist": "fashion_mnist", "mnist": "mnist"}
"""Data sets that a supernet is adapted to, and the images used (`nagkit.data.images`)."""
N_ADAPT, ADAPT_STEPS = 10_000, 300
"""Most training images that an adaptation sees, and about how many steps it takes."""


def meta_images(split: str, *, held: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Images of the meta-training classes (`held`: of the others), uint8 `(N, 32, 32, 3)`, and their positions among these
    classes, int64 `(N,)`."""
    images, labels = data.load("tiny_imagenet", split)
    classes = data.meta_classes()[int(held)]
    kept = np.isin(labels, classes)
    return images[kept], np.searchsorted(classes, labels[kept])


def images_of(dataset: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `(N, 32, 32, 3)` and labels int64 `(N,)` of `META` or of one of `ADAPTED`."""
    if dataset in (META, HELD):
        return meta_images(split, held=dataset == HELD)
    return data.load(ADAPTED[dataset], split)


def train(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    checkpoint: Path,
    arch: np.ndarray | None = None,
    n_classes: int,
    recipe: Recipe = STANDARD,
    widths: tuple[int, ...] = WIDTHS,
    start: Supernet | None = None,
    validation: Inherited | None = None,
    seed: int = 0,
    device: str | None = None,
    stop_after: int | None = None,
    progress: bool = True,
) -> tuple[Supernet, pd.DataFrame]:
    """A supernet, or with `arch` int8 `(20,)` that network alone, trained on images uint8 `(N, 32, 32, 3)`; and the curve.

    In each step of a supernet the largest network learns the labels, and the smallest and two random ones learn what the
    largest says of the same images (sandwich rule and in-place distillation: Yu et al., 2020; Once-for-All does this in
    stages). It begins with random weights, or with those of `start`, whose classifier is kept when it has as many classes.

    The curve has `epoch`, `loss` (of a step's first network) and, when `validation` measures them, the accuracies in
    percent of the smallest and the largest network (or of `arch`) with the averaged weights. The state goes to `checkpoint`
    after every epoch; the same call goes on from there and ends as an uninterrupted run. `stop_after` ends the call early
    after so many epochs of the whole schedule. `NagkitError` when `checkpoint` belongs to another run.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    data.check(images)
    if labels.shape != (len(images),) or labels.min() < 0 or labels.max() >= n_classes:
        raise NagkitError(f"labels must be {len(images)} integers in 0..{n_classes - 1}, got {labels.shape}")
    settings = [n_classes, recipe, widths, seed, None if arch is None else arch.tolist()]
    settings += [] if start is None else [_digest(start)]
    run = _fingerprint(images, labels, settings)
    model, average = (Supernet(n_classes, widths).to(device) for _ in range(2))
    initialise(model, torch_stream(seed, "supernet/weights"))
    if start is not None:
        kept = start.n_classes == n_classes
        weights = {key: value for key, value in start.state_dict().items() if kept or not key.startswith("head.")}
        model.load_state_dict(model.state_dict() | weights)
    average.load_state_dict(model.state_dict())
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": recipe.decay},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.SGD(groups, recipe.lr, momentum=0.9, nesterov=True)
    modules = {"model": model, "average": average}
    curve = resume.go_on(checkpoint, run, modules, optimiser).get("curve", [])
    x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels.astype(np.int64)).to(device)
    steps, last = max(1, len(x) // recipe.batch), min(recipe.epochs, stop_after or recipe.epochs)
    with tqdm(total=last * steps, initial=len(curve) * steps, desc="supernet" if arch is None else "network", unit="step",
              mininterval=5, disable=not progress) as bar:  # fmt: skip
        for epoch in range(len(curve), last):
            generator = torch_stream(seed, f"supernet/epoch {epoch}")  # an epoch owns its streams: resuming needs none saved
            rng = numpy_stream(seed, f"supernet/networks {epoch}")
            total = 0.0
            for step, rows in enumerate(torch.randperm(len(x), generator=generator).to(device).tensor_split(steps)):
                done = (epoch * steps + step) / (recipe.epochs * steps)
                for group in optimiser.param_groups:
                    group["lr"] = recipe.lr * min(1.0, done * recipe.epochs) * 0.5 * (1 + math.cos(math.pi * done))
                pixels = normalise(jitter(x[rows], recipe.augment, generator))
                networks = [LARGEST, SMALLEST, *mbv3.Space().random(2, rng)] if arch is None else [arch]
                optimiser.zero_grad()
                total += _descend(model, pixels, y[rows], networks, recipe.smoothing)
                optimiser.step()
                follow(average, model, min(recipe.average, (1 + epoch * steps + step) / (10 + epoch * steps + step)))
                bar.update()
            line = {"epoch": epoch + 1, "loss": round(total / steps, 4)}
            if validation is not None:
                measured = np.stack([SMALLEST, LARGEST] if arch is None else [arch])
                found = validation.accuracy(average, measured, progress=False).round(2).tolist()
                line |= dict(zip(("smallest", "largest") if arch is None else ("accuracy",), found, strict=True))
            curve.append(line)
            bar.set_postfix(line)
            resume.store(checkpoint, {"run": run, "curve": curve}, modules, optimiser)
    return average.eval(), pd.DataFrame(curve)


def _descend(
    model: Supernet, pixels: torch.Tensor, labels: torch.Tensor, networks: list[np.ndarray], smoothing: float
) -> float:
    """Add up the gradients of all networks, the first on the labels and the others on its answers; the first one's loss."""
    shared = model.stem(pixels)
    x = shared.detach().requires_grad_()  # the stem's own backward pass runs once, on the sum
    answers = None
    for arch in networks:
        output = model.head(model.pooled(x, arch))
        if answers is None:
            loss = F.cross_entropy(output, labels, label_smoothing=smoothing)
            answers, first = output.detach().softmax(dim=1), loss.item()
        else:
            loss = F.cross_entropy(output, answers)
        (loss / len(networks)).backward()
    shared.backward(x.grad)
    return first


def _fingerprint(images: np.ndarray, labels: np.ndarray, settings: list) -> str:
    found = hashlib.sha256(json.dumps(settings).encode())
    found.update(np.ascontiguousarray(images).data)
    found.update(labels.astype(np.int64).data)
    return found.hexdigest()


def _digest(network: Supernet) -> str:
    found = hashlib.sha256()
    for value in network.state_dict().values():
        found.update(np.ascontiguousarray(value.cpu().numpy()).data)
    return found.hexdigest()


def adapt(dataset: str, path: Path, *, seed: int = 0) -> pd.DataFrame:
    """Train the committed supernet on for the classes of a data set, save it to `path` and its curve beside it.

    A new classifier and a quarter of the learning rate, `ADAPT_STEPS` steps on at most `N_ADAPT` training images, otherwise
    the recipe of the supernet (digits are not mirrored). The validation accuracies of the curve are those of test images;
    nothing is chosen by them.
    """
    if dataset not in ADAPTED:
        raise unknown("data set to adapt to", dataset, ADAPTED)
    network, _ = load(CHECKPOINT)
    images, labels = images_of(dataset, "train")
    rows = np.sort(numpy_stream(seed, f"supernet/{dataset}").permutation(len(images))[:N_ADAPT])
    epochs = round(ADAPT_STEPS * STANDARD.batch / len(rows))
    augment = ("crop",) if dataset == "mnist" else STANDARD.augment  # a mirrored digit is none
    recipe = STANDARD._replace(epochs=epochs, lr=STANDARD.lr / 4, augment=augment)
    return _build(path, dataset, (images[rows], labels[rows]), recipe, seed, np.arange(labels.max() + 1), network)


def build(path: Path, *, seed: int = 0) -> pd.DataFrame:
    """Train the supernet on the meta-training classes of Tiny ImageNet, save it to `path` and its curve beside it."""
    return _build(path, META, meta_images("train"), STANDARD, seed, data.meta_classes()[0])


def _build(
    path: Path, dataset: str, training: tuple, recipe: Recipe, seed: int, classes: np.ndarray, start: Supernet | None = None
) -> pd.DataFrame:
    validation = Inherited(training[0], *images_of(dataset, "test"), n_images=1000)
    checkpoint = paths.cache() / f"{path.stem}.run.safetensors"
    network, curve = train(
        *training, n_classes=len(classes), checkpoint=checkpoint, recipe=recipe, validation=validation, seed=seed, start=start
    )
    save(network, path, classes.tolist())
    io.write_text(path.with_suffix(".csv"), curve.to_csv(index=False))
    return curve
