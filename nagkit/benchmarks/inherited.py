"""Measured accuracy of sub-networks with weights inherited from a supernet, after their batch statistics were taken anew."""

import numpy as np
import torch
from tqdm.auto import tqdm

from nagkit.benchmarks.supernet import Statistics, Supernet
from nagkit.data import images as data
from nagkit.errors import NagkitError
from nagkit.predictors.images import normalise
from nagkit.rng import numpy_stream

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

        The stem is common to all networks and runs once. Raises `NagkitError` when a label has no output.
        """
        if int(self._labels.max()) >= network.n_classes:
            raise NagkitError(f"label {int(self._labels.max())} has no output in a network of {network.n_classes} classes")
        device = network.head.weight.device
        noted = Statistics(n_first=N_CALIBRATION)
        calibration = network.stem(normalise(self._calibration.to(device)), noted)
        batches = [network.stem(normalise(part.to(device)), noted.replay()) for part in self._images.split(_BATCH)]
        labels = self._labels.to(device)
        found = []
        for arch in tqdm(archs, desc="measuring", unit="network", disable=not progress):
            noted = Statistics(n_first=N_CALIBRATION)
            network.pooled(calibration, arch, noted)
            guesses = [network.head(network.pooled(part, arch, noted.replay())).argmax(dim=1) for part in batches]
            found.append(100 * float((torch.cat(guesses) == labels).double().mean()))
        return np.array(found)
