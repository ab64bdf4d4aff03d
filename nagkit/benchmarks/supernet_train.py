"""Training of the supernet by the sandwich rule with in-place distillation, and of single networks of it by the same recipe."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from nagkit import paths
from nagkit.benchmarks.inherited import Inherited
from nagkit.benchmarks.supernet import CHECKPOINT, LARGEST, SMALLEST, WIDTHS, Supernet, initialise, load, save
from nagkit.benchmarks.train_arch import jitter
from nagkit.data import images as data
from nagkit.data import io
from nagkit.devices import get_device
from nagkit.errors import unknown
from nagkit.predictors.fit import Recipe, fingerprint, fit_images, only_matrices_decay, own_stream, recipes
from nagkit.predictors.images import check_labels, normalise
from nagkit.predictors.task import HELD
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces import mbv3

SPACE = mbv3.Space()
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
    images: np.ndarray, labels: np.ndarray, *, checkpoint: Path, arch: np.ndarray | None = None, n_classes: int,
    recipe: Recipe | None = None, widths: tuple[int, ...] = WIDTHS, start: Supernet | None = None,
    validation: Inherited | None = None, seed: int = 0, device: str | None = None, stop_after: int | None = None,
    progress: bool = True,
) -> tuple[Supernet, pd.DataFrame]:  # fmt: skip
    """A supernet, or with `arch` int8 `(20,)` that network alone, trained on images uint8 `(N, 32, 32, 3)`; and the curve.

    In each step of a supernet the largest network learns the labels, and the smallest and two random ones learn what the
    largest says of the same images (sandwich rule and in-place distillation: Yu et al., 2020; Once-for-All does this in
    stages). It begins with random weights, or with those of `start`, whose classifier is kept when it has as many classes.

    The curve has `epoch`, `loss` (of a step's first network) and, when `validation` measures them, the accuracies in
    percent of the smallest and the largest network (or of `arch`) with the averaged weights. The state goes to `checkpoint`
    after every epoch (see `nagkit.predictors.fit`). `stop_after` ends the call early after so many epochs of the whole
    schedule. `NagkitError` when `checkpoint` belongs to another run.
    """
    recipe, device = recipe or recipes("images")["supernet"], get_device(device)
    check_labels(images, labels, n_classes)
    measured = {"smallest": SMALLEST, "largest": LARGEST} if arch is None else {"accuracy": arch}
    networks = cache(lambda epoch: numpy_stream(seed, f"supernet/networks {epoch}"))
    steps = max(1, len(images) // recipe.batch)

    def loss(step: int, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        pixels = normalise(jitter(x, recipe.augment, generator))
        drawn = [LARGEST, SMALLEST, *SPACE.random(2, networks(step // steps))] if arch is None else [arch]
        return _descend(model, pixels, y, drawn, recipe.smoothing)

    def report(network: Supernet, value: float) -> dict:
        row = {"loss": round(value, 4)}
        if validation is None:
            return row
        found = validation.accuracy(network, np.stack(list(measured.values())), progress=False).round(2).tolist()
        return row | dict(zip(measured, found, strict=True))

    with own_stream(seed, "supernet", device):
        model = Supernet(n_classes, widths).to(device)
        initialise(model, torch_stream(seed, "supernet/weights"))
        if start is not None:
            kept = start.n_classes == n_classes
            weights = {key: value for key, value in start.state_dict().items() if kept or not key.startswith("head.")}
            model.load_state_dict(model.state_dict() | weights)
        begun = [] if start is None else [value.cpu().numpy() for value in start.state_dict().values()]
        settings = [n_classes, recipe, widths, seed, None if arch is None else arch.tolist()]
        average, curve = fit_images(
            model, recipe, images, labels, loss, report, role="supernet", per_epoch=steps, seed=seed, stop_after=stop_after,
            groups=only_matrices_decay(model), state=checkpoint, run=fingerprint(settings, images, labels, *begun),
            what="supernet" if arch is None else "network", progress=progress,
        )  # fmt: skip
    return average, pd.DataFrame(curve)


def _descend(
    model: Supernet, pixels: torch.Tensor, labels: torch.Tensor, networks: list[np.ndarray], smoothing: float
) -> torch.Tensor:
    """Add up the gradients of all networks, the first on the labels and the others on its answers; the first one's loss."""
    shared = model.stem(pixels)
    x = shared.detach().requires_grad_()  # the stem's own backward pass runs once, on the sum
    first, *others = networks
    output = model.head(model.pooled(x, first))
    found, answers = F.cross_entropy(output, labels, label_smoothing=smoothing), output.detach().softmax(dim=1)
    (found / len(networks)).backward()
    for arch in others:
        (F.cross_entropy(model.head(model.pooled(x, arch)), answers) / len(networks)).backward()
    shared.backward(x.grad)
    return found.detach()


def adapt(dataset: str, path: Path, *, seed: int = 0) -> pd.DataFrame:
    """Train the committed supernet on for the classes of a data set, save it to `path` and its curve beside it.

    A new classifier and a quarter of the learning rate, about `ADAPT_STEPS` steps on at most `N_ADAPT` training images,
    otherwise the recipe of the supernet (digits are not mirrored). The validation accuracies of the curve are those of test
    images; nothing is chosen by them.
    """
    if dataset not in ADAPTED:
        raise unknown("data set to adapt to", dataset, ADAPTED)
    network = load(CHECKPOINT)
    images, labels = images_of(dataset, "train")
    rows = np.sort(numpy_stream(seed, f"supernet/{dataset}").permutation(len(images))[:N_ADAPT])
    recipe = recipes("images")["adapted"]
    augment = ("crop",) if dataset == "mnist" else recipe.augment  # a mirrored digit is none
    recipe = replace(recipe, epochs=round(ADAPT_STEPS * recipe.batch / len(rows)), augment=augment)
    return _build(path, dataset, (images[rows], labels[rows]), recipe, seed, np.arange(labels.max() + 1), network)


def build(path: Path, *, seed: int = 0) -> pd.DataFrame:
    """Train the supernet on the meta-training classes of Tiny ImageNet, save it to `path` and its curve beside it."""
    return _build(path, META, meta_images("train"), recipes("images")["supernet"], seed, data.meta_classes()[0])


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
