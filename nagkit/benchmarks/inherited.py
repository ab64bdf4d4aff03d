"""Measured accuracy of sub-networks with weights inherited from a supernet, after their batch statistics were taken anew."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from nagkit.benchmarks.supernet import Statistics, Supernet
from nagkit.data import images as data
from nagkit.errors import NagkitError
from nagkit.predictors.images import normalise
from nagkit.rng import numpy_stream
from nagkit.spaces import mbv3

N_CALIBRATION = 250
"""Training images that the batch statistics are taken from."""
_BATCH = 250  # images at a time: larger ones leave the processor's cache


class Inherited:
    """Images to measure networks on: `n_images` for the accuracy, drawn from `(images, labels)`, and calibration images.

    `training` are images uint8 `(M, 32, 32, 3)` of which `N_CALIBRATION` give the batch statistics. `draw` names the random
    choice of both; two draws give independent measurements of one network.
    """

    def __init__(self, training: np.ndarray, images: np.ndarray, labels: np.ndarray, *, n_images: int = 1000, draw: int = 0):
        data.check(training)
        data.check(images)
        if labels.shape != (len(images),):
            raise NagkitError(f"labels must be {len(images)} integers, one an image, got shape {labels.shape}")
        if not 1 <= n_images <= len(images):
            raise NagkitError(f"n_images must be 1 to {len(images)} (the images given), got {n_images}")
        rng = numpy_stream(draw, "inherited/images")
        rows = np.sort(rng.permutation(len(images))[:n_images])
        self._calibration = torch.from_numpy(training[rng.permutation(len(training))[:N_CALIBRATION]])
        self._images, self._labels = torch.from_numpy(images[rows]), torch.from_numpy(labels[rows])

    @torch.inference_mode()
    def accuracy(self, network: Supernet, archs: np.ndarray, *, progress: bool = True) -> np.ndarray:
        """Percent of the images that each of `archs`, int8 `(B, 20)`, names rightly: float64 `(B,)`.

        Networks are taken in lexicographic order, and layers that one shares with the one before are not computed again.
        Raises `NagkitError` when a label has no output.
        """
        if int(self._labels.max()) >= network.n_classes:
            raise NagkitError(f"label {int(self._labels.max())} has no output in a network of {network.n_classes} classes")
        labels = self._labels.to(network.head.weight.device)
        found = np.empty(len(archs))
        passed, before = [self._stem(network)], np.empty(0, np.int8)  # activations after so many slots of the last network
        for row in tqdm(np.lexsort(archs.T[::-1]), desc="measuring", unit="network", disable=not progress):
            shared = _common(before, archs[row])
            del passed[shared + 1 :]
            for layer, op in zip(network.layers[shared:], archs[row, shared:].tolist(), strict=True):
                passed.append(passed[-1] if op == mbv3.ABSENT else _through(layer, passed[-1], op))
            _, *features = _through(network.finish, passed[-1])
            guesses = torch.cat([network.head(part).argmax(dim=1) for part in features])
            found[row], before = 100 * float((guesses == labels).double().mean()), archs[row]
        return found

    def _stem(self, network: Supernet) -> list[Tensor]:
        device = network.head.weight.device
        parts = (self._calibration, *self._images.split(_BATCH))
        return _through(network.stem, [normalise(part.to(device)) for part in parts])


def _through(function: Callable[..., Tensor], parts: list[Tensor], *arguments: int) -> list[Tensor]:
    """`function` of every part, normalised by the statistics of the first one."""
    noted = Statistics(n_first=N_CALIBRATION)
    calibration = function(parts[0], *arguments, noted)
    return [calibration, *(function(part, *arguments, noted.replay()) for part in parts[1:])]


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """How many leading entries of `a` are those of `b`."""
    differs = a != b[: len(a)]
    return int(differs.argmax()) if differs.any() else len(a)
