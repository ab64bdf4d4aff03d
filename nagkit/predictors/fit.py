"""The one training loop: score networks, predictors, image encoders, supernets and single networks all go through `fit`.

A run is resumable at any moment. Its whole state, everything that decides its future, lies in one file that is written in one
atomic step: the same call goes on from there and ends with the weights of an uninterrupted run, bit for bit on a CPU with the
same number of threads.
"""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nagkit import paths
from nagkit.data import io, resume
from nagkit.errors import NagkitError
from nagkit.rng import torch_stream

RECIPES = paths.DATA / "training.yaml"


@dataclass(frozen=True)
class Recipe:
    """Constants of a training run (data/training.yaml); lengths are in steps, or in epochs where `epochs` is given.

    AdamW, or with `momentum` stochastic gradient descent; the rate rises linearly over `warmup` and, if `cosine`, falls to 0.
    """

    lr: float
    """Highest learning rate."""
    batch: int = 0
    steps: int = 0
    epochs: int = 0
    warmup: float = 0.0
    from_zero: bool = False
    """Whether the warm-up begins at rate 0, and not at the rate of its first step."""
    cosine: bool = True
    momentum: float | None = None
    nesterov: bool = True
    decay: float = 0.0
    """Weight decay."""
    beta2: float = 0.999
    clip: float | None = None
    """Largest norm of the gradient."""
    ema: float | None = None
    """Ceiling of what is kept of the averaged weights in a step; after n steps it is (1 + n) / (10 + n) until it gets there."""
    save_every: int = 250
    """Steps between saved states: what an interruption loses at most."""
    report_every: int = 0
    """Steps between figures of validity, where there are such."""
    network: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Options of the network."""
    loss: str = ""
    smoothing: float = 0.0
    """Of labels, in a cross-entropy."""
    augment: tuple[str, ...] = ()
    """How images are varied: see `nagkit.benchmarks.train_arch.AUGMENTATIONS`."""
    resolution: int = 32
    """Side in pixels to which images are resized for the network, bilinearly."""
    images: int | None = None
    """Training images used, drawn by the seed; None: all."""

    def in_steps(self, per_epoch: int) -> "Recipe":
        """This recipe of epochs with its lengths in steps; a state is saved after every epoch."""
        lengths = {"steps": self.epochs * per_epoch, "warmup": self.warmup * per_epoch, "save_every": per_epoch}
        return replace(self, epochs=0, **lengths)

    def rate(self, step: int, lr: float | None = None) -> float:
        """Learning rate of a step (from 0), of weights whose highest rate is `lr` (default: the recipe's)."""
        rising = min(1.0, (step + (not self.from_zero)) / self.warmup) if self.warmup else 1.0
        falling = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.cosine else 1.0
        return (self.lr if lr is None else lr) * rising * falling


def recipes(what: str, space: str | None = None) -> dict[str, Recipe]:
    """The recipes of one kind of run ("score", "predictor", "images", "architecture") by name, as they are on `space`."""
    found = {name: constants | constants.get("spaces", {}).get(space, {}) for name, constants in settings(what).items()}
    for constants in found.values():
        constants.pop("spaces", None)
    return {name: Recipe(**constants) for name, constants in found.items() if constants}


def settings(what: str) -> dict:
    """One block of data/training.yaml."""
    return io.read_yaml(RECIPES)[what]


def fit(
    model: nn.Module, recipe: Recipe, batches: Callable[[int], Iterable], loss: Callable[..., Tensor], *,
    groups: list[dict] | None = None, beside: Mapping[str, nn.Module] | None = None,
    after: Callable[[float, nn.Module], bool | None] | None = None, at: dict | None = None, state: Path | None = None,
    run: str = "", save_seconds: float = math.inf, what: str = "training", progress: bool = True,
) -> nn.Module:  # fmt: skip
    """Train `model` for the steps of a recipe; returns it, or the average of its weights when the recipe has one, in eval mode.

    `batches(step)` gives the batches from that step on, and `loss(batch)` the scalar to descend; one without a graph has left
    its gradients behind already. `groups` are parameter groups of the optimiser (default: all weights of `model`), and `beside`
    further modules that they hold. `after(loss, network)` is called after every step and ends the run early when it returns
    True; `at["step"]` are then the steps done, `at["seconds"]` their wall time, and `at["curve"]` rows to be shown. With
    `state`, a file, `at` is saved with weights, moments and random streams, under the name `run`.

    Raises `NagkitError` when `state` belongs to another run, and for a loss that is not finite.
    """
    average = copy.deepcopy(model).requires_grad_(False) if recipe.ema else model
    modules = {"model": model, **({"average": average} if recipe.ema else {}), **(beside or {})}
    optimiser = _optimiser(recipe, groups or [{"params": list(model.parameters())}])
    at = {} if at is None else at
    at |= {"run": run, "step": 0, "seconds": 0.0}
    if state is not None and state.exists():
        if io.metadata(io.open_arrays(state)).get("run") != run:
            remedy = "delete it or name another"
            raise NagkitError(f"checkpoint {state.name} belongs to a run with other data or settings; {remedy}")
        at |= resume.restore(state, modules, optimiser, torch.default_generator)
    saved = time.monotonic()
    started = saved - at["seconds"]
    with tqdm(total=recipe.steps, initial=at["step"], desc=what, unit="step", mininterval=1, disable=not progress) as bar:
        for batch in islice(batches(at["step"]), recipe.steps - at["step"]):
            step = at["step"]
            model.train()
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(step, group["highest"])
            optimiser.zero_grad()
            value = loss(batch)
            if value.requires_grad:
                value.backward()
            value = float(value.detach())
            if not math.isfinite(value):
                raise NagkitError(f"the loss is {value} in step {step + 1}: training diverged; lower lr or add warmup")
            if recipe.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimiser.step()
            if recipe.ema:
                _follow(average, model, min(recipe.ema, (1 + step) / (10 + step)))
            at |= {"step": step + 1, "seconds": time.monotonic() - started}
            ended = after is not None and after(value, average)
            if state is not None and (at["step"] % recipe.save_every == 0 or time.monotonic() - saved > save_seconds):
                resume.store(state, at, modules, optimiser, torch.default_generator)
                saved = time.monotonic()
            bar.set_postfix({"loss": f"{value:.4f}"} | (at["curve"][-1] if at.get("curve") else {}), refresh=False)
            bar.update()
            if ended:
                break
    return average.eval()


def fit_images(
    model: nn.Module, recipe: Recipe, images: np.ndarray, labels: np.ndarray,
    loss: Callable[[int, Tensor, Tensor, torch.Generator], Tensor], report: Callable[[nn.Module, float], dict], *, role: str,
    per_epoch: int, seed: int = 0, at: dict | None = None, stop_after: int | None = None, **options,
) -> tuple[nn.Module, list[dict]]:  # fmt: skip
    """`fit` over epochs of `per_epoch` steps on images uint8 `(N, H, W, 3)` with labels int `(N,)`; and the curve.

    `loss(step, images, labels, generator)` gets a batch, on the device of `model`, and the random stream of its epoch, on the
    CPU so that it is the same on every device; where a state is saved within epochs, it has to derive one from the step.
    `report(network, mean loss)` gives what the curve says of an epoch. `stop_after` ends the call after so many epochs of the
    whole schedule; other `options` go to `fit`.
    """
    device = next(model.parameters()).device
    x, y = (torch.from_numpy(np.require(part, None, "CW")).to(device) for part in (images, labels.astype(np.int64)))
    at = {} if at is None else at
    at |= {"curve": [], "total": 0.0}

    def batches(start: int) -> Iterator[tuple]:
        for step in range(start, recipe.epochs * per_epoch):
            if step == start or step % per_epoch == 0:  # an epoch owns its stream, so resuming needs no saved one
                generator = torch_stream(seed, f"{role}/epoch {step // per_epoch}")
                parts = torch.randperm(len(x), generator=generator).to(device).tensor_split(per_epoch)
            rows = parts[step % per_epoch]
            yield step, x[rows], y[rows], generator

    def counted(batch: tuple) -> Tensor:
        value = loss(*batch)
        at["total"] += float(value.detach()) * len(batch[1])
        return value

    def after(_: float, network: nn.Module) -> bool:
        epoch, step = divmod(at["step"], per_epoch)
        if step == 0:
            at["curve"].append({"epoch": epoch} | report(network, at["total"] / len(x)))
            at["total"] = 0.0
        return step == 0 and epoch == stop_after

    return fit(model, recipe.in_steps(per_epoch), batches, counted, after=after, at=at, **options), at["curve"]


def _optimiser(recipe: Recipe, groups: list[dict]) -> torch.optim.Optimizer:
    if recipe.momentum is not None:
        how = {"momentum": recipe.momentum, "nesterov": recipe.nesterov, "weight_decay": recipe.decay}
        optimiser = torch.optim.SGD(groups, recipe.lr, **how)
    else:
        optimiser = torch.optim.AdamW(groups, recipe.lr, betas=(0.9, recipe.beta2), weight_decay=recipe.decay)
    for group in optimiser.param_groups:
        group["highest"] = group["lr"]
    return optimiser


def only_matrices_decay(model: nn.Module) -> list[dict]:
    """Parameter groups in which norms and biases have no weight decay."""
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) is wanted] for wanted in (True, False))
    return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, kept: float) -> None:
    for mean, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(new, 1 - kept)
        else:
            mean.copy_(new)


@contextmanager
def own_stream(seed: int, role: str, device: torch.device | None = None) -> Iterator[torch.Generator]:
    """Torch's global streams, which initial weights and dropout read, lent to `role` of `seed` and given back as they were."""
    gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if gpu else []):
        first = torch_stream(seed, role).initial_seed()
        if gpu:
            torch.cuda.manual_seed(first)
        yield torch.default_generator.manual_seed(first)


def fingerprint(settings: object, *arrays: np.ndarray) -> str:
    """SHA-256 of JSON-like settings and of the contents of arrays: two runs with the same one are the same run."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=vars).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
