"""Meta-training of the predictors on (task, architecture, accuracy) triplets, and their checkpoints.

"noise-aware": the paper's directed graph network on noisy architectures with the paper's loss and constants. "ranking": our
ensemble on clean ones. Both read data set codes; the tasks have 20 classes, and one image stands for a class
(`nagkit.benchmarks.meta.triplets` says which). The unit of every target is one standard deviation of the triplets' accuracy.
"""

from dataclasses import replace
from functools import cache
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nagkit import paths
from nagkit.data import io
from nagkit.data.triplets import Triplets
from nagkit.devices import get_device
from nagkit.diffusion.sde import VE
from nagkit.errors import NagkitError, unknown
from nagkit.predictors import images, task
from nagkit.predictors.digcn import DirectedGCN
from nagkit.predictors.fit import Recipe, fingerprint, fit, own_stream, recipes
from nagkit.predictors.ranking import get_ranker
from nagkit.rng import numpy_stream
from nagkit.spaces.base import DEFAULT, SearchSpace, get_space, keys

KINDS = ("ranking", "noise-aware")
CODES = ("real", "shuffled", "mean")
_PULL = 0.1  # weight of a space's rule on architectures drawn from it
Space = str | SearchSpace


def split(
    triplets: Triplets, seed: int = 0, share: float = 0.25, *, space: Space = DEFAULT
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for validation that share neither an architecture (of cells: an isomorphism class) nor a task.

    `share` of the classes and of the tasks are set aside; triplets with only one of the two set aside are in neither part
    (the published split shares 317 of 354 validation cells and 228 of 388 tasks with training).
    """
    rng, space = numpy_stream(seed, "predictors/split"), get_space(space)

    def aside(groups: np.ndarray) -> np.ndarray:
        names = np.unique(groups)
        return np.isin(groups, rng.permutation(names)[: int(share * len(names))])

    known = hasattr(space, "isomorphism_classes")
    archs = aside(space.isomorphism_classes()[space.code(triplets.archs)] if known else keys(triplets.archs))
    tasks = aside(triplets.task)
    return np.flatnonzero(~archs & ~tasks), np.flatnonzero(archs & tasks)


def train(
    kind: str, triplets: Triplets, *, space: Space = DEFAULT, code: str = "real", graph: str = "closure",
    rows: np.ndarray | None = None, seed: int = 0, steps: int | None = None, state: Path | None = None,
    device: str | None = "cpu", progress: bool = True,
) -> nn.Module:  # fmt: skip
    """A predictor of `kind` "ranking" or "noise-aware", trained on `rows` of the triplets (default: all).

    `code`: "real" data set codes, "shuffled" between tasks, or the "mean" code for every task. `graph` ("closure",
    "adjacency", "flat") is for the noise-aware predictor. With `state`, a file, the run is saved there every 250 steps and
    resumed from there. `device` None is a GPU where there is one.
    """
    recipe, space, device = get_recipe(kind, space), get_space(space), get_device(device)
    if code not in CODES:
        raise unknown("data set code", code, CODES)
    with own_stream(seed, f"predictors/{kind}", device):
        batch = _Batches(triplets, space, rows, code, seed, device)
        model = _build(kind, space, batch.features.shape[1], graph).to(device)
        effects = nn.ParameterDict({"classes": torch.zeros(batch.n_classes, 1, device=device)})
        groups, loss = [{"params": list(model.parameters())}], _noise_aware_loss
        if kind == "ranking":
            groups.append({"params": list(effects.parameters()), "lr": 3 * recipe.lr, "weight_decay": 0.0})
            loss = _level_loss if batch.by_task is None else _contrast_loss
        fit(
            model, replace(recipe, steps=steps or recipe.steps), repeat,
            lambda _: loss(model, effects["classes"], batch, recipe.batch),
            groups=groups, beside={"effects": effects}, state=state, what=f"{kind} predictor", progress=progress,
        )  # fmt: skip
    return model.requires_grad_(False)


def get_recipe(kind: str, space: Space = DEFAULT) -> Recipe:
    """How the predictor of `kind` is trained on a space; `NagkitError` for an unknown kind."""
    return recipes("predictor", get_space(space).name)[_known(kind)]


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise unknown("predictor", kind, KINDS)
    return kind


class _Batches:
    """The triplets as tensors, and random batches of them, drawn on the CPU: one stream on every device."""

    def __init__(
        self, triplets: Triplets, space: SearchSpace, rows: np.ndarray | None, code: str, seed: int, device: torch.device
    ):
        rows = np.arange(len(triplets.archs)) if rows is None else rows
        self.space, self.device, self.archs = space, device, space.encode(triplets.archs[rows])
        accuracy = torch.as_tensor(triplets.accuracy, dtype=torch.float32)
        self.target = ((accuracy - accuracy.mean()) / accuracy.std())[rows]
        self.classes = torch.from_numpy(triplets.classes[triplets.task[rows]])  # (N, 20)
        _, counts = np.unique(triplets.task[rows], return_counts=True)
        order = torch.from_numpy(np.argsort(triplets.task[rows], kind="stable"))
        alike = (counts == counts[0]).all() and counts[0] > 1
        self.by_task = order.view(len(counts), -1) if alike else None  # (tasks, triplets of each)
        self.n_classes = 1 + int(triplets.classes.max())
        described = triplets.classes
        if code == "shuffled":
            described = numpy_stream(seed, "predictors/shuffle").permutation(described)
        self.described = torch.from_numpy(described[triplets.task[rows]])
        self.features, self.first = task.task_classes(space)
        if code == "mean":
            used = torch.from_numpy(np.unique(triplets.classes)) - self.first
            self.features = self.features[used].mean(dim=0, keepdim=True).expand_as(self.features)

    def draw(self, size: int) -> tuple[Tensor, ...]:
        """Codes `(size, nodes, ops)`, class features `(size, 20, d)`, class ids `(size, 20)` and targets `(size,)`."""
        return self._at(torch.randint(len(self.archs), (size,)))

    def draw_tasks(self, n: int) -> tuple[Tensor, ...]:
        """The same of all triplets of `n` different tasks (or all there are), each of which has as many, task by task."""
        return self._at(self.by_task[torch.randperm(len(self.by_task))[:n]].flatten())

    def _at(self, rows: Tensor) -> tuple[Tensor, ...]:
        found = self.archs[rows], self.features[self.described[rows] - self.first], self.classes[rows], self.target[rows]
        return tuple(part.to(self.device) for part in found)


def _build(kind: str, space: SearchSpace, n_features: int, graph: str = "closure") -> nn.Module:
    if kind == "ranking":
        return get_ranker(space, n_features)
    return DirectedGCN(space.adjacency, space.n_ops, n_features, graph=graph)


def _noise_aware_loss(model: DirectedGCN, effects: Tensor, batch: _Batches, size: int) -> Tensor:
    """Mean squared error at a noise level drawn as in score matching (paper, equation 10).

    Each triplet appears at two noise levels: the data set code is the dear part.
    """
    clean, features, _, target = batch.draw(size)
    clean, code, target = clean.repeat(2, 1, 1), model.sets(features).repeat(2, 1), target.repeat(2)
    sigma = VE().std(torch.rand(len(clean))).to(clean)
    noisy = clean + sigma[:, None, None] * torch.randn(clean.shape).to(clean)
    return (model(noisy, sigma, code) - target).square().mean()


def _level_loss(model: nn.Module, effects: Tensor, batch: _Batches, size: int) -> Tensor:
    """Squared error of score + task difficulty, which is the mean effect of the task's classes, under a ridge penalty.

    Where the space has a rule that needs no data, there is a weak pull towards it: the triplets hold hardly any bad cell, so on
    architectures drawn uniformly the score is also pulled, up to a constant, towards `_rule`, with a tenth of the weight of an
    accuracy.
    """
    x, features, classes, target = batch.draw(size)
    code, pull = model.sets(features), 0.0
    if hasattr(batch.space, "common_sense"):
        codes, expected = _rule(batch.space)
        drawn = torch.randint(len(codes), (size,))
        score, anywhere = model.members(torch.cat([x, codes[drawn].to(x)]), code.repeat(2, 1)).split(size, dim=1)
        gap = anywhere - expected[drawn].to(x)
        pull = _PULL * (gap - gap.mean(dim=1, keepdim=True)).square().mean(dim=1)
    else:
        score = model.members(x, code)
    difficulty = effects[classes, 0].mean(dim=1) * classes.shape[1] ** 0.5
    ridge = 1e-3 * size / len(batch.archs) * effects.square().sum()
    return ((score + difficulty - target).square().mean(dim=1) + pull).sum() + len(score) * ridge


def _contrast_loss(model: nn.Module, effects: Tensor, batch: _Batches, size: int) -> Tensor:
    """Squared error within `size` tasks: of score and accuracy, both less their mean over the networks of a task.

    For tasks with equally many networks, which differ in difficulty by far more than the networks of one.
    """
    each = batch.by_task.shape[1]
    archs, features, _, target = batch.draw_tasks(size)
    code = model.sets(features[::each]).repeat_interleave(each, dim=0)
    score, target = model.members(archs, code).unflatten(1, (-1, each)), target.view(-1, each)
    gap = score - score.mean(dim=2, keepdim=True) - (target - target.mean(dim=1, keepdim=True))
    return gap.square().mean(dim=(1, 2)).sum()


@cache
def _rule(space: SearchSpace) -> tuple[Tensor, Tensor]:
    """Codes of all architectures and their rule, standardised."""
    archs = space.all()
    rule = space.common_sense(archs)
    return space.encode(archs), torch.from_numpy((rule - rule.mean()) / rule.std()).float()


def build(kind: str, space: Space = DEFAULT, *, seed: int = 0, device: str | None = "cpu", progress: bool = True) -> Path:
    """Train the committed predictor of `kind` and training seed `seed`, resuming an interrupted run; its path."""
    from nagkit.benchmarks import meta

    path = checkpoint(kind, space, seed)
    triplets, rows = meta.triplets(space)
    run = fingerprint([kind, seed, get_recipe(kind, space), io.sha256(images.CODES)])[:16]
    state = paths.cache() / "training" / f"{path.stem}-{run}.safetensors"
    model = train(kind, triplets, space=space, rows=rows, seed=seed, state=state, device=device, progress=progress)
    save(model.cpu(), triplets, path, space=space, rows=rows, seed=seed)
    state.unlink(missing_ok=True)
    return path


def checkpoint(kind: str, space: Space = DEFAULT, seed: int = 0) -> Path:
    """Path of the committed predictor of `kind` from training seed `seed`; `NagkitError` for an unknown kind."""
    return paths.DATA / "checkpoints" / f"{_known(kind)}_{get_space(space).name}_{seed}.safetensors"


@torch.inference_mode()
def save(
    model: nn.Module, triplets: Triplets, path: Path, *, space: Space = DEFAULT, rows: np.ndarray | None = None, seed: int
) -> None:
    """Write a trained predictor and the mean code of the tasks of `rows` (default: all), atomically."""
    features, first = task.task_classes(space)
    used = np.unique(triplets.task if rows is None else triplets.task[rows])
    codes = [model.sets(features[part - first]) for part in torch.from_numpy(triplets.classes[used]).split(256)]
    arrays = {f"model.{key}": value.numpy() for key, value in model.state_dict().items()}
    arrays["mean_code"] = torch.cat(codes).mean(dim=0, keepdim=True).numpy()
    kind = "noise-aware" if isinstance(model, DirectedGCN) else "ranking"
    metadata = {"model": f"{kind} predictor", "space": get_space(space).name, "seed": seed}
    io.write_arrays(path, arrays, metadata | {"codes": io.sha256(images.CODES)})


def load(
    kind: str, dataset: str, *, space: Space = DEFAULT, seed: int = 0, path: Path | None = None
) -> task.TaskPredictor:
    """The committed predictor of `kind` and training seed `seed`, bound to `dataset`.

    A ranking predictor is standardised over the space; a noise-aware one keeps the paper's unit. `dataset`
    "none" takes the mean code of the training tasks. Raises `NagkitError` when the file is absent, another kind of
    checkpoint, or was trained on other data set codes than the committed ones.
    """
    space = get_space(space)
    path = path or checkpoint(kind, space, seed)
    arrays, metadata = io.read_arrays(path)
    remedy = f"`nagkit train predictor {kind} --space {space.name}` makes one"
    if metadata.get("model") != f"{kind} predictor" or metadata.get("space") != space.name:
        raise NagkitError(f"{path.name} is no checkpoint of a {kind} predictor of {space.name}; {remedy}")
    if metadata["codes"] != io.sha256(images.CODES):
        raise NagkitError(f"{path.name} was trained on other data set codes than {images.CODES.name}; {remedy}")
    model = _build(kind, space, arrays["model.sets.embed.weight"].shape[1])
    model.load_state_dict({k.removeprefix("model."): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("model.")})
    return bind(model.eval().requires_grad_(False), dataset, space=space, mean_code=torch.from_numpy(arrays["mean_code"]))


def bind(
    model: nn.Module, dataset: str, *, space: Space = DEFAULT, mean_code: Tensor | None = None
) -> task.TaskPredictor:
    """`model` for `dataset`: its code averaged over random draws of one image a class, or `mean_code` for "none"."""
    code = mean_code
    if dataset != task.NO_CODE:
        with torch.inference_mode():
            weights = next(model.sets.parameters())
            code = model.sets(task.class_features(dataset).to(weights.device)).mean(dim=0, keepdim=True)
    return task.TaskPredictor(model, code.clone(), get_space(space), standardise=not isinstance(model, DirectedGCN))
