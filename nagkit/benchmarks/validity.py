"""What the supernet's accuracies are worth: networks trained alone beside what they inherit, and repeats of that."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from nagkit import paths
from nagkit.benchmarks import supernet, supernet_train
from nagkit.benchmarks.inherited import Inherited
from nagkit.benchmarks.measured import N_IMAGES, Measured
from nagkit.data import images as data
from nagkit.data import io
from nagkit.predictors.fit import Recipe, recipes
from nagkit.rng import numpy_stream
from nagkit.spaces import mbv3
from nagkit.study.jobs import Task, run

SPACE = mbv3.Space()
FILE = paths.DATA / "measured" / "supernet_validity.csv"
FIRST = FILE.with_name("supernet_validity_first.csv")
"""The same measurements on an earlier supernet, twice as wide and trained with stronger augmentation."""
N_ALONE, EPOCHS = 20, 10
"""Networks trained alone, and their epochs: a third of the supernet's, otherwise its recipe."""
N_DRAWS = 5
"""Draws of images that each of these networks is measured on."""
_ALL = 4000  # test images of the meta-training classes


def groups() -> dict[str, np.ndarray]:
    """The networks of each part of the study: int8 `(n, 20)`.

    Those of "validity" are also trained alone, "fresh" are measured twice, "random" show the spread (all three by the
    Once-for-All law), and "depth 2", "depth 3" and "depth 4" have that depth in every stage.
    """
    sizes = {"validity": N_ALONE, "fresh": 10, "random": 200}
    found = {name: SPACE.random(n, numpy_stream(0, f"supernet/{name}")) for name, n in sizes.items()}
    for depth in mbv3.DEPTHS:
        archs = numpy_stream(0, f"supernet/depth {depth}").integers(0, mbv3.N_OPS, (50, mbv3.N_STAGES, mbv3.N_SLOTS))
        archs[:, :, depth:] = mbv3.ABSENT
        found[f"depth {depth}"] = archs.reshape(50, 20).astype(np.int8)
    return found


def build(path: Path = FILE, *, n_workers: int = 1, scheduler: str | None = None) -> pd.DataFrame:
    """Train and measure all networks of `groups`, and write what `table` reads to `path`; an interrupted run goes on."""
    how = {"n_workers": n_workers, "scheduler": scheduler}
    bench, rows = Measured(**how), []

    def add(group: str, kind: str, draw: int, n_images: int, values: np.ndarray) -> None:
        names = SPACE.to_string(archs[group])
        rows.append(pd.DataFrame({"arch": names, "group": group, "kind": kind, "draw": draw, "n_images": n_images,
                                  "accuracy": np.round(values, 3)}))  # fmt: skip

    archs = groups()
    jobs = [{"arch": name, "seed": 0} for name in SPACE.to_string(archs["validity"])]
    kinds = {"alone": [Task(alone, job | {"epochs": EPOCHS}) for job in jobs]}
    kinds["fine-tuned"] = [Task(fine_tuned, job, (supernet.CHECKPOINT,)) for job in jobs]
    for kind, tasks in kinds.items():
        add("validity", kind, 0, _ALL, np.concatenate([found.arrays["accuracy"] for found in run(tasks, label=kind, **how)]))
    draws = dict.fromkeys(archs, 1) | {"validity": N_DRAWS, "fresh": 2}
    for group, n_draws in draws.items():
        for draw in range(n_draws):
            found = bench.query(archs[group], "tiny_imagenet", split="test", draw=draw)
            add(group, "inherited", draw, N_IMAGES, found)
    found = bench.query(archs["validity"], "tiny_imagenet", split="test", n_images=_ALL)
    add("validity", "inherited", 0, _ALL, found)
    frame = pd.concat(rows, ignore_index=True)
    io.write_text(path, frame.to_csv(index=False))
    return frame


def table(path: Path = FILE) -> pd.DataFrame:
    """The measurements: `arch`, `group`, `kind` ("alone", "fine-tuned", "inherited"), `draw`, `n_images`, `accuracy` (%)."""
    return pd.read_csv(path)


def alone(arch: str, epochs: int, seed: int) -> dict[str, np.ndarray]:
    """Percent of all test images of the meta-training classes that `arch`, trained alone for `epochs`, names rightly, `(1,)`.

    A job; an interrupted one goes on after its last whole epoch.
    """
    return _train(arch, seed, replace(recipes("images")["supernet"], epochs=epochs))


def fine_tuned(arch: str, seed: int) -> dict[str, np.ndarray]:
    """The same after one epoch from the weights, classifier included, that `arch` inherits: a quarter of the learning rate."""
    return _train(arch, seed, replace(recipes("images")["adapted"], epochs=1), supernet.load(supernet.CHECKPOINT))


def _train(arch: str, seed: int, recipe: Recipe, start: supernet.Supernet | None = None) -> dict[str, np.ndarray]:
    genotype = SPACE.from_string([arch])
    images, labels = supernet_train.meta_images("train")
    test = supernet_train.meta_images("test")
    checkpoint = paths.cache() / "alone" / f"{arch}.{recipe.epochs}.{seed}.safetensors"
    network, _ = supernet_train.train(
        images, labels, arch=genotype[0], n_classes=len(data.meta_classes()[0]), checkpoint=checkpoint,
        recipe=recipe, seed=seed, start=start,
    )  # fmt: skip
    found = Inherited(images, *test, n_images=len(test[0])).accuracy(network, genotype, progress=False)
    checkpoint.unlink()
    return {"accuracy": found}
