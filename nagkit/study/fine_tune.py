"""A job that stays when the rest of its exhibit changes: a network, fine-tuned from the weights it inherits."""

import numpy as np

from nagkit.benchmarks import supernet, supernet_train, train_arch
from nagkit.spaces.base import get_space
from nagkit.study.jobs import Task


def task(dataset: str, arch: str, seed: int) -> Task:
    """The task of `fine_tune`."""
    return Task(fine_tune, {"dataset": dataset, "arch": arch, "seed": seed}, (supernet.CHECKPOINT,))


def fine_tune(dataset: str, arch: str, seed: int) -> dict[str, np.ndarray]:
    """A job: percent of all test images after a short fine-tuning from the supernet's weights, `accuracy (1,)`."""
    training, test, _ = train_arch.load_sets(supernet_train.ADAPTED[dataset])
    home, recipe = get_space("mbv3"), train_arch.preset("mbv3", "short")
    found = train_arch.train(home, home.from_string([arch])[0], training, test, recipe, seed=seed, progress=False)
    found.checkpoint.unlink()
    return {"accuracy": np.array([found.accuracy])}
