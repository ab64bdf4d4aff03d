"""ImageNet-1K top-1 accuracy of Once-for-All MobileNetV3 networks (width 1.0), from four oracles that are never mixed.

- "ofa": the accuracy predictor published with Once-for-All (Cai et al., 2020), a network of three hidden layers. Its authors
  fitted it to accuracies on images set aside from the training set, so it lies some points above measured top-1.
- "ofa-surrogate": a smaller network that this project fitted to the outputs of that predictor; embedded.
- "measured-surrogate": a Gaussian process that this project fitted to the measured networks at resolution 224; embedded.
- "measured": the networks that were measured (ILSVRC validation images), NaN for all others.
"""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch

from nagkit.benchmarks import embedded
from nagkit.benchmarks.names import Named
from nagkit.data import registry, upstream
from nagkit.errors import NagkitError, unknown
from nagkit.predictors.process import covariance
from nagkit.spaces import mbv3
from nagkit.spaces.base import checked

_PREDICTED = tuple(range(128, 225, 16))
RESOLUTIONS = {"ofa": _PREDICTED, "ofa-surrogate": _PREDICTED, "measured-surrogate": (224,), "measured": (128, 160, 192, 224)}
"""Input resolutions, in pixels, that each oracle knows."""
ORACLES = ("auto", *RESOLUTIONS)
NAMES = {"ofa-surrogate": "ofa_predictor", "measured-surrogate": "ofa_measured"}
"""Files of the embedded surrogates."""
REBUILD = "nagkit fit imagenet"
_PREDICTOR = "ofa-accuracy-predictor"
SPACE = mbv3.Space()

Layers = list[tuple[np.ndarray, np.ndarray]]


class ImageNet(Named):
    """Top-1 accuracy in percent at one `resolution`; `oracle` says where it comes from and travels with every number."""

    space, kind, tree = "mbv3", "data set of mbv3", {"imagenet": {"test": ("accuracy",)}}

    def __init__(self, oracle: str, resolution: int, predict: Callable[[np.ndarray], np.ndarray]):
        self.oracle, self.resolution, self._predict = oracle, resolution, predict

    @property
    def files(self) -> tuple[Path, ...]:
        """What the numbers are computed from."""
        return data(self.oracle)

    def query(self, archs: np.ndarray, dataset: str = "imagenet", *, split: str, metric: str = "accuracy") -> np.ndarray:
        """The accuracy of each network, float64 `(B,)`; NaN where the oracle "measured" has no measurement.

        `NagkitError` for an unknown name or an invalid network.
        """
        self.check(dataset, split, metric)
        return self._predict(checked(SPACE, archs))

    def beyond(self, values: np.ndarray) -> np.ndarray:
        """Which values of the measured surrogate lie outside the range that was ever measured, bool `(B,)`."""
        if self.oracle != "measured-surrogate":
            return np.zeros(len(values), bool)
        low, high = card(self.oracle)["measured_range"]
        return (values < low) | (values > high)

    def fidelity(self, dataset: str = "imagenet", *, split: str, metric: str = "accuracy") -> dict[str, float] | None:
        """Held-out `r2`, `kendall_tau` and `rmse` of a surrogate; None for the predictor and for measurements."""
        self.check(dataset, split, metric)
        if self.oracle == "ofa-surrogate":
            return card(self.oracle)["resolutions"][str(self.resolution)]["random"]
        return card(self.oracle)["leave_search_out"]["all"] if self.oracle == "measured-surrogate" else None

    def describe(self) -> str:
        """One line: which oracle, and how well it is known to do."""
        at = f"{self.oracle}, r = {self.resolution}:"
        figures = self.fidelity(split="test")
        if self.oracle == "measured":
            return f"{at} measured top-1 of Once-for-All networks; the others have no value"
        if self.oracle == "ofa":
            return f"{at} output of the accuracy predictor published with Once-for-All, not a measurement"
        quality = f"RMSE {figures['rmse']:.3f} points, Kendall τ {figures['kendall_tau']:.3f}"
        if self.oracle == "ofa-surrogate":
            return f"{at} network fitted to the published accuracy predictor; on random networks it never saw: {quality}"
        low, high = card(self.oracle)["measured_range"]
        what = f"Gaussian process on {card(self.oracle)['networks']:,} measured networks ({low:.2f} to {high:.2f} %)"
        return f"{at} {what}; leaving a whole search out: {quality}"


def open_imagenet(oracle: str = "auto", resolution: int = 224) -> ImageNet:
    """The ImageNet benchmark of the MobileNetV3 space at an input `resolution` in pixels.

    "auto" is the published predictor when its file is on this machine, else the surrogate of it. No network is used.
    `NagkitError` for an unknown oracle, a resolution that it does not know, and a file that is not here.
    """
    if oracle not in ORACLES:
        raise unknown("oracle of mbv3", oracle, (*ORACLES, "supernet", "supernet-surrogate"))
    if oracle == "auto":
        oracle = "ofa" if registry.local(registry.entries()[_PREDICTOR]).is_file() else "ofa-surrogate"
    if resolution not in RESOLUTIONS[oracle]:
        known = ", ".join(map(str, RESOLUTIONS[oracle]))
        others = ", ".join(name for name, sizes in RESOLUTIONS.items() if resolution in sizes) or "no oracle"
        raise NagkitError(f"oracle {oracle} does not know resolution {resolution}, only {known}; {others} knows {resolution}")
    if oracle == "measured":
        return ImageNet(oracle, resolution, _lookup(resolution))
    if oracle == "measured-surrogate":
        return ImageNet(oracle, resolution, _process)
    layers = predictor_layers() if oracle == "ofa" else _student()
    return ImageNet(oracle, resolution, lambda archs: forward(layers, features(archs, resolution)))


def data(oracle: str) -> tuple[Path, ...]:
    """Paths of the files that the numbers of `oracle` rest on."""
    if oracle in NAMES:
        return (embedded.weights_of(NAMES[oracle]),)
    names = [_PREDICTOR] if oracle == "ofa" else [key for key in registry.entries() if key.startswith("ofa-measured")]
    return tuple(registry.local(registry.entries()[name]) for name in names)


# The published predictor and the surrogate of it ---------------------------------------------------------------------------


def features(archs: np.ndarray, resolution: int) -> np.ndarray:
    """Input of the published predictor, float64 `(B, 128)`: kernels (60), expansions (60), resolution (8), all one-hot."""
    chosen = (SPACE.encode(archs).numpy() > 0).reshape(-1, SPACE.n_nodes, len(mbv3.KERNELS), len(mbv3.EXPANDS))
    size = np.broadcast_to(np.arange(112, 225, 16) == resolution, (len(archs), 8))
    kernels, expansions = (chosen.any(axis=axis).reshape(len(archs), 60) for axis in (3, 2))
    return np.concatenate([kernels, expansions, size], axis=1).astype(float)


def forward(layers: Layers, x: np.ndarray, *, batch: int = 8192) -> np.ndarray:
    """Accuracy in percent of inputs `(B, 128)`, by a network of rectified layers, float64 `(B,)`."""
    found = [np.empty(0)]
    for start in range(0, len(x), batch):
        part = x[start : start + batch]
        for weight, bias in layers[:-1]:
            part = np.maximum(part @ weight.T + bias, 0)
        weight, bias = layers[-1]
        found.append(100 * (part @ weight[0] + bias[0]))
    return np.concatenate(found)


def predictor_layers() -> Layers:
    """Weights of the published predictor, float64; `NagkitError` with the remedy when its file is not on this machine."""
    content = registry.read(registry.entries()[_PREDICTOR])
    return _layers({key: value.numpy() for key, value in torch.load(io.BytesIO(content), "cpu", weights_only=True).items()})


@cache
def _student() -> Layers:
    return _layers(_arrays("ofa-surrogate"))


def _layers(arrays: dict[str, np.ndarray]) -> Layers:
    numbers = sorted({int(key.split(".")[0]) for key in arrays})
    return [tuple(arrays[f"{i}.{part}"].astype(np.float64) for part in ("weight", "bias")) for i in numbers]


# The measurements and the surrogate of them --------------------------------------------------------------------------------


def _lookup(resolution: int) -> Callable[[np.ndarray], np.ndarray]:
    archs, accuracy = measurements(resolution)
    known = {arch.tobytes(): value for arch, value in zip(archs, accuracy, strict=True)}
    return lambda archs: np.array([known.get(arch.tobytes(), np.nan) for arch in archs.astype(np.int8)], np.float64)


def measurements(resolution: int = 224) -> tuple[np.ndarray, np.ndarray]:
    """Distinct measured networks, int8 `(N, 20)`, and the mean of the accuracies measured for each, percent `(N,)`."""
    if resolution == 224:
        rows = upstream.measured_networks()
        archs, accuracy = rows.archs, rows.accuracy
    else:
        archs, accuracy = upstream.measured_resolutions(resolution)
    archs, number, count = np.unique(archs, axis=0, return_inverse=True, return_counts=True)
    return archs, np.bincount(number.ravel(), accuracy) / count


def descriptors(archs: np.ndarray) -> np.ndarray:
    """What the process sees, float64 `(B, 90)`: the features of the space, indicators all, of unit variance.

    Mean and variance are exactly those of the Once-for-All law; the whole is divided by the square root of 90, so that two
    random networks are about a distance of √2 apart.
    """
    chance = _chances()
    return ((SPACE.features((SPACE.encode(archs) + 1) / 2) - chance) / (chance * (1 - chance) * len(chance)).sqrt()).numpy()


@cache
def _chances() -> torch.Tensor:
    """Mean of every feature: the prior's answer to endless noise."""
    nothing = torch.zeros(1, SPACE.n_nodes, SPACE.n_ops, dtype=torch.float64)
    return SPACE.features(SPACE.prior().probabilities(nothing, 1e9))[0]


@cache
def _support() -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    arrays = _arrays("measured-surrogate")
    return torch.from_numpy(descriptors(arrays["archs"])), {name: arrays[name] for name in ("weights", "mean", "kernel")}


def left_out() -> tuple[np.ndarray, np.ndarray]:
    """Measured networks, int8 `(N, 20)`, and their accuracy as predicted without a search, `(5, N)`; NaN: no part in it."""
    arrays = _arrays("measured-surrogate")
    return arrays["archs"], arrays["left_out"].astype(np.float64)


def _process(archs: np.ndarray, *, batch: int = 2048) -> np.ndarray:
    support, at = _support()
    found = [np.empty(0)]
    for start in range(0, len(archs), batch):
        here = torch.from_numpy(descriptors(archs[start : start + batch]))
        log_error = covariance(here, support, tuple(at["kernel"])).numpy() @ at["weights"] + at["mean"]
        found.append(100 - np.exp(log_error))
    return np.concatenate(found).round(4)


def card(oracle: str) -> dict:
    """The data card of an embedded surrogate; `NagkitError` when it is missing."""
    return embedded.card(NAMES[oracle], REBUILD)


def forget() -> None:
    """Drop what was read from files that have been written anew."""
    for cached in (_student, _support):
        cached.cache_clear()


def _arrays(oracle: str) -> dict[str, np.ndarray]:
    return embedded.arrays(NAMES[oracle], REBUILD)
