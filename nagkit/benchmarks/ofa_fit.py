"""How the two embedded ImageNet surrogates of the MobileNetV3 space are made and how far they can be trusted."""

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from nagkit.benchmarks import embedded, ofa
from nagkit.benchmarks.embedded import evaluate
from nagkit.data import upstream
from nagkit.predictors.process import Process
from nagkit.rng import numpy_stream, torch_stream

_KERNELS, _NOISES = [(scale, linear) for scale in (1.0, 2.0, 4.0) for linear in (3.0, 30.0)], (1e-3, 3e-3, 1e-2)
_WIDTH, _EPOCHS, _BATCH, _RATE = 256, 16, 512, 2e-3
_DRAWS = {"ofa": 700_000, "uniform": 100_000}  # networks to learn from, per law over the space
_CLIMBS, _GENERATIONS = 512, 60  # and per resolution, what a search for the best would visit


def fit(progress: bool = True, seed: int = 0) -> None:
    """Fit both surrogates and write weights and data cards under `data/surrogates/`; a few minutes on one core.

    `NagkitError` without the published predictor or the measured networks.
    """
    fit_measured(progress)
    fit_predictor(progress, seed)


# Measured networks -----------------------------------------------------------------------------------------------------------


def fit_measured(progress: bool = True) -> dict:
    """The Gaussian process on the logarithm of the measured error, `ofa_measured`; returns its card."""
    archs, accuracy, _ = measured()
    process = _regress(archs, accuracy)
    predicted = leave_search_out(progress)
    left_out = np.stack(list(predicted.values()))
    took = ~np.isnan(left_out)
    arrays = {"archs": archs, "weights": process.weights.numpy(), "mean": np.array([process.mean])}
    arrays |= {"kernel": np.array(process.kernel), "left_out": left_out.astype(np.float32)}
    card = {
        "what": "Gaussian process fitted by this project to measured ImageNet top-1 of Once-for-All networks (r = 224).",
        "kernel": {"length_scale": process.kernel[0], "linear": process.kernel[1], "noise": process.noise},
        "networks": len(archs),
        "measured_range": [float(accuracy.min()), float(accuracy.max())],
        "leave_search_out": {
            "what": "every network of one search predicted by a process, kernel included, that saw none of them",
            "all": evaluate(left_out[took], np.broadcast_to(accuracy, took.shape)[took]),
            **{name: evaluate(predicted[name][mask], accuracy[mask]) for name, mask in zip(predicted, took, strict=True)},
        },
    }
    return _write("measured-surrogate", arrays, card)


def measured() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Distinct measured networks `(N, 20)`, accuracy `(N,)`, and for each search which of them it visited, bool `(N,)`."""
    archs, accuracy = ofa.measurements(224)
    rows = upstream.measured_networks()
    visited = {name: {arch.tobytes() for arch in rows.archs[rows.search == name]} for name in dict.fromkeys(rows.search)}
    return archs, accuracy, {name: np.array([arch.tobytes() in seen for arch in archs]) for name, seen in visited.items()}


def leave_search_out(progress: bool = True) -> dict[str, np.ndarray]:
    """For each search the accuracy of its networks, predicted by a process fitted to all others, percent `(N,)`, else NaN."""
    archs, accuracy, visited = measured()
    predicted = {}
    for name, mask in tqdm(visited.items(), desc="leave a search out", disable=not progress):
        process = _regress(archs[~mask], accuracy[~mask])
        predicted[name] = np.full(len(archs), np.nan)
        predicted[name][mask] = 100 - torch.exp(process(torch.from_numpy(ofa.descriptors(archs[mask])))).numpy()
    return predicted


def _regress(archs: np.ndarray, accuracy: np.ndarray) -> Process:
    features, log_error = torch.from_numpy(ofa.descriptors(archs)), torch.from_numpy(np.log(100 - accuracy))
    return Process(_KERNELS, _NOISES).fit(features, log_error)


# The published predictor -----------------------------------------------------------------------------------------------------


def fit_predictor(progress: bool = True, seed: int = 0) -> dict:
    """The small network in place of the published predictor, `ofa_predictor`; returns its card."""
    layers, sizes = ofa.predictor_layers(), ofa.RESOLUTIONS["ofa"]
    stream = numpy_stream(seed, "ofa/learn")
    archs = [ofa.SPACE.random(n, stream, law=law) for law, n in _DRAWS.items()]
    resolution = [stream.choice(sizes, len(part)) for part in archs]
    for size in tqdm(sizes, desc="climb", disable=not progress):
        archs.append(climb(layers, size, stream, keep_all=True))
        resolution.append(np.full(len(archs[-1]), size))
    archs, resolution = np.concatenate(archs), np.concatenate(resolution)
    x, accuracy = np.empty((len(archs), 128), np.uint8), np.empty(len(archs))
    for size in tqdm(sizes, desc="predict", disable=not progress):
        for rows in np.array_split(np.flatnonzero(resolution == size), 32):
            inputs = ofa.features(archs[rows], size)
            x[rows], accuracy[rows] = inputs, ofa.forward(layers, inputs)
    student = _train(x, accuracy, seed, progress)

    figures = {}
    for size in sizes:
        held = numpy_stream(seed, f"ofa/held out/{size}")
        pools = {"random": ofa.SPACE.random(5_000, held), "climbed": np.unique(climb(layers, size, held), axis=0)}
        figures[size] = {}
        for name, pool in pools.items():
            inputs = ofa.features(pool, size)
            figures[size][name] = evaluate(ofa.forward(student, inputs), ofa.forward(layers, inputs))
        del figures[size]["climbed"]["r2"], figures[size]["climbed"]["kendall_tau"]  # its networks are nearly tied
    arrays = {}
    for i, (weight, bias) in enumerate(student):
        arrays |= {f"{2 * i}.weight": weight.astype(np.float32), f"{2 * i}.bias": bias.astype(np.float32)}
    card = {
        "what": "Network fitted by this project to outputs of the accuracy predictor published with Once-for-All.",
        "held_out": "random: 5,000 draws of the Once-for-All law; climbed: the population of an evolution on the predictor",
        "learnt_from": len(archs),
        "seed": seed,
        "resolutions": figures,
    }
    return _write("ofa-surrogate", arrays, card)


def _write(oracle: str, arrays: dict[str, np.ndarray], card: dict) -> dict:
    ofa.forget()
    return embedded.write(ofa.NAMES[oracle], arrays, ofa.REBUILD, card)


def climb(layers: ofa.Layers, size: int, rng: np.random.Generator, *, keep_all: bool = False) -> np.ndarray:
    """Networks that an evolution on the predictor at resolution `size` ends with, int8 `(B, 20)`, or all that it visits."""
    population = ofa.SPACE.random(_CLIMBS, rng)
    visited = [population]
    for _ in range(_GENERATIONS):
        children = ofa.SPACE.mutate(population, rng)
        visited.append(children)
        both = np.unique(np.concatenate([population, children]), axis=0)
        population = both[np.argsort(-ofa.forward(layers, ofa.features(both, size)))[:_CLIMBS]]
    return np.concatenate(visited) if keep_all else population


def _train(x: np.ndarray, accuracy: np.ndarray, seed: int, progress: bool) -> ofa.Layers:
    network = nn.Sequential(nn.Linear(128, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, 1))
    embedded.initialise(network, torch_stream(seed, "ofa/weights"))
    mean, sd = accuracy.mean(), accuracy.std()
    inputs, targets = torch.from_numpy(x), torch.from_numpy((accuracy - mean) / sd).float()

    def loss(batch: torch.Tensor) -> torch.Tensor:
        return (network(inputs[batch].float())[:, 0] - targets[batch]).square().mean()

    rows, shuffle = torch.arange(len(x)), torch_stream(seed, "ofa/batches")
    constants = {"epochs": _EPOCHS, "batch": _BATCH, "rate": _RATE, "decay": 1e-5}
    embedded.one_cycle(network, loss, rows, shuffle, progress=progress, **constants)
    with torch.no_grad():  # the published predictor's unit is a fraction
        network[-1].weight.mul_(sd / 100)
        network[-1].bias.mul_(sd / 100).add_(mean / 100)
    return [(layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()) for layer in network[::2]]
