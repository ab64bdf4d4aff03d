"""Training as published: the noise-aware guide and the ranking predictor of NAS-Bench-201, and its score network.

A run saves its whole state every few hundred steps, in one atomic step, and a second call goes on from there: the result is
that of an uninterrupted run. `guide(seed)` is the published guide; every keyword is a quirk or a size, the published value its
default. The ranking predictor's training is unpublished and uses MetaD2A's constants.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nagkit import paths
from nagkit.data import io, resume, upstream
from nagkit.errors import unknown
from nagkit.predictors import images
from nagkit.published import data, graphs, losses
from nagkit.published.checkpoints import CODES, build, checkpoint, save, settings
from nagkit.rng import torch_stream
from nagkit.spaces.base import get_space

_SAVE_EVERY = 250


def guide(seed: int, *, path: Path | None = None, also: tuple[int, ...] = (), progress: bool = True, **changed) -> Path:
    """Train the noise-aware guide of NAS-Bench-201 from training seed `seed`, resuming an interrupted run; its path.

    `changed` settings: see `checkpoints.DEFAULTS`. `code` "mean" gives every task the mean features of all classes. `also`
    names earlier step counts at which the network is saved too, under the name of a run of so many steps. No moving average, as
    published. Every class of a batch is encoded once where its images do not change from draw to draw: no number changes.
    """
    full = settings("guide", changed)
    if full["code"] not in CODES:
        raise unknown("data set code", full["code"], CODES)
    triplets, space = upstream.triplets(), get_space("nb201")
    rows = data.training_rows(triplets.order)
    label = torch.from_numpy(losses.labels(triplets.accuracy, rows, full["divisor"])[rows]).float()
    x, classes = space.encode(triplets.archs[rows]), torch.from_numpy(triplets.classes[triplets.task[rows]]) - 1
    library, graph = data.class_images(), graphs.mask("nb201", full["mask"], full["wiring"])
    if full["code"] == "mean":
        library = library.mean(dim=(0, 1), keepdim=True).expand_as(library[:, :1])

    def loss(model: nn.Module, batch: Tensor, level: Tensor) -> Tensor:
        code = task_codes(model, library, classes[batch], full["images"])
        if not full["noisy"]:
            level = torch.full_like(level, losses.sigma(losses.FLOOR, full["sigma_max"]))
        z = torch.randn(x[batch].shape) if full["noisy"] else 0.0
        return losses.guide_loss(lambda at, s: model(at, s, graph, code), x[batch], level, z, label[batch])

    return _run("guide", seed, changed, len(x), library.shape[2], loss, path, also, progress)


def score(seed: int, *, path: Path | None = None, also: tuple[int, ...] = (), progress: bool = True, **changed) -> Path:
    """Train the score network of NAS-Bench-201 on all 15,625 cells; what is saved is the moving average. See `guide`."""
    full = settings("score", changed)
    space = get_space("nb201")
    x, graph = space.encode(space.all()), graphs.mask("nb201", full["mask"], full["wiring"])

    def loss(model: nn.Module, batch: Tensor, level: Tensor) -> Tensor:
        return losses.score_loss(lambda at, s: model(at, s, graph), x[batch], level, torch.randn(x[batch].shape))

    return _run("score", seed, changed, len(x), 0, loss, path, also, progress)


def ranker(seed: int, *, path: Path | None = None, progress: bool = True, **changed) -> Path:
    """Train the ranking predictor of NAS-Bench-201 with MetaD2A's constants, the paper having published none; its path.

    Adam at 1e-4, a tenth of it after ten epochs without a better training loss, squared error summed over batches of 32, and of
    all epochs the network whose predictions correlate best with the labels of the 400 validation triplets.
    """
    full = settings("ranker", changed)
    triplets = upstream.triplets()
    label = torch.from_numpy(losses.labels(triplets.accuracy, data.training_rows(triplets.order), full["divisor"])).float()
    types = torch.from_numpy(graphs.ranker_types("nb201", triplets.archs))
    classes, library = torch.from_numpy(triplets.classes[triplets.task]) - 1, data.class_images()
    rows = {"train": data.training_rows(triplets.order), "held": triplets.order[: data.VALIDATION]}
    rows = {key: torch.from_numpy(np.array(value)) for key, value in rows.items()}
    with torch.random.fork_rng(devices=[]):
        stream = _own(seed, "ranker")
        model = build("ranker", full, library.shape[2])
        best, optimiser = deepcopy(model), torch.optim.Adam(model.parameters(), lr=full["lr"])
        plan = {"factor": full["factor"], "patience": full["patience"]}
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, "min", **plan)
        modules, state = {"model": model, "best": best}, _state("ranker", seed, full)
        done = resume.restore(state, modules, optimiser, stream) if state.is_file() else {"epoch": 0, "highest": -1.0}
        if done["epoch"]:
            schedule.load_state_dict(done["schedule"])

        def predict(part: Tensor) -> Tensor:
            return model(types[part], task_codes(model, library, classes[part], full["images"]))

        for epoch in tqdm(range(done["epoch"], full["epochs"]), desc="published ranker", disable=not progress, mininterval=1.0):
            model.train()
            total = 0.0
            for step in range(-(-len(rows["train"]) // full["batch"])):
                batch = rows["train"][shuffled(len(rows["train"]), full["batch"], step, seed, epoch)]
                loss = (predict(batch) - label[batch]).square().sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += float(loss.detach())
            schedule.step(total / len(rows["train"]))
            model.eval()
            with torch.no_grad():
                guess = torch.cat([predict(part) for part in rows["held"].split(256)])
            correlation = float(torch.corrcoef(torch.stack([guess, label[rows["held"]]]))[0, 1])
            if correlation > done["highest"]:
                done["highest"] = correlation
                best.load_state_dict(model.state_dict())
            done |= {"epoch": epoch + 1, "schedule": schedule.state_dict()}
            resume.store(state, done, modules, optimiser, stream)
    return save(best, path or checkpoint("ranker", seed, **changed), "ranker", seed, full)


def shuffled(n: int, batch: int, step: int, seed: int, epoch: int | None = None) -> Tensor:
    """Rows of the batch of a step: epochs of all `n` rows in random order, the last batch of each being what is left."""
    batches = -(-n // batch)
    epoch, place = (step // batches, step % batches) if epoch is None else (epoch, step)
    order = torch.randperm(n, generator=torch_stream(seed, f"published/epoch {epoch}"))
    return order[place * batch : (place + 1) * batch]


def task_codes(model: nn.Module, library: Tensor, classes: Tensor, n_images: int) -> Tensor:
    """Codes of tasks given the `classes` `(B, classes)` of each, rows of `library` `(classes, images, features)`.

    Draws `n_images` of every class; where that is all of them, which the encoder reads in no order, a class is encoded once.
    """
    if library.shape[1] > n_images:
        return model.set_code(data.draw_images(library, classes, n_images))
    present, place = classes.unique(return_inverse=True)
    return model.inter_setpool(model.intra_setpool(library[present])[place])


def _run(
    kind: str, seed: int, changed: Mapping, n: int, n_features: int, loss: Callable[[nn.Module, Tensor, Tensor], Tensor],
    path: Path | None, also: tuple[int, ...], progress: bool,
) -> Path:  # fmt: skip
    """Train on `n` architectures by `loss(model, rows, noise levels)` and write the moving average, or else the network."""
    full = settings(kind, changed)

    def write(steps: int) -> Path:
        target = path if path and steps == full["steps"] else checkpoint(kind, seed, **(changed | {"steps": steps}))
        return save(average, target, kind, seed, full | {"steps": steps})

    with torch.random.fork_rng(devices=[]):
        stream = _own(seed, kind)
        model = build(kind, full, n_features).train()
        average = deepcopy(model) if "ema" in full else model
        optimiser = losses.adam(model.parameters())
        modules = {"model": model} | ({"average": average} if "ema" in full else {})
        state = _state(kind, seed, full)
        done = resume.restore(state, modules, optimiser, stream)["step"] if state.is_file() else 0
        bar = tqdm(initial=done, total=full["steps"], desc=f"published {kind}", disable=not progress, mininterval=2.0)
        for step in range(done, full["steps"]):
            batch = shuffled(n, full["batch"], step, seed)
            value = loss(model, batch, losses.sigma(losses.times(torch.rand(len(batch))), full["sigma_max"]))
            losses.update(value, optimiser, losses.rate(step, full["lr"], full["warmup"]), full["clip"])
            if "ema" in full:
                losses.follow(average, model, losses.decay(step, full["ema"]))
            bar.update()
            if step + 1 in also:
                write(step + 1)
            if (step + 1) % _SAVE_EVERY == 0 or step + 1 == full["steps"]:
                bar.set_postfix(loss=f"{float(value.detach()):.3g}")
                resume.store(state, {"step": step + 1}, modules, optimiser, stream)
        bar.close()
    return write(full["steps"])


def _own(seed: int, kind: str) -> torch.Generator:
    """The global stream, seeded for a run: dropout reads no other."""
    torch.default_generator.manual_seed(torch_stream(seed, f"published/{kind}").initial_seed())
    return torch.default_generator


def _state(kind: str, seed: int, full: Mapping) -> Path:
    """Where a run keeps its state: runs that differ in nothing but their number of steps share it."""
    what = {name: value for name, value in full.items() if name not in ("steps", "epochs")}
    digest = hashlib.sha256(json.dumps([kind, seed, what, io.sha256(images.CODES)], sort_keys=True).encode())
    return paths.cache() / "training" / f"published-{kind}_{seed}-{digest.hexdigest()[:16]}.safetensors"
