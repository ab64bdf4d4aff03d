"""The embedded stand-in for the tables: one small network fitted to them, with its held-out fidelity in a data card.

Accuracies come from a network that pushes a feature vector through the cell as the cell itself does: a cut edge gives
zero, a skip passes its input on, every other operation is a learned map, and feature maps add up. So isomorphic cells
get the same value by construction. Latency and energy, which also see dead edges, come from a plain network.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from nagkit.benchmarks import embedded
from nagkit.data.io import read_arrays
from nagkit.data.upstream import convert
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces.base import get_space
from nagkit.spaces.cell import NONE, live_edges

SPACE = get_space()
REBUILD = "nagkit fit surrogate"
HELD_OUT = 0.1  # of the isomorphism classes
_EPOCHS, _BATCH, _RATE = 60, 128, 3e-3
_ROBUST = ("robust_clean", "apgd_ce_eps1.0")  # and the 15 corruptions at severity 2
_DEVICES = ("edgegpu", "eyeriss", "fpga", "pixel3", "raspi4")  # the Edge TPU lacks a third of the cells


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class Network(nn.Module):
    """Cells, int64 `(B, 6)`, and their live edges, bool `(B, 6)`, to standardised targets `(B, n_accuracy + n_cost)`."""

    def __init__(self, n_accuracy: int, n_cost: int, width: int = 64, hidden: int = 128):
        super().__init__()
        self.start = nn.Parameter(torch.empty(width))
        self.maps = nn.ModuleList([_mlp(width, hidden, width) for _ in SPACE.ops[2:]])
        self.accuracy = _mlp(width, hidden, hidden, n_accuracy)
        self.cost = _mlp(2 * SPACE.n_slots * len(SPACE.ops), hidden, hidden, n_cost)

    def initialise(self, generator: torch.Generator) -> "Network":
        """Draw the weights from `generator` alone: uniform in ±1/√fan-in, biases zero."""
        nn.init.normal_(self.start, std=0.5, generator=generator)
        embedded.initialise(self, generator)
        return self

    def _messages(self, x: Tensor) -> Tensor:
        """What each operation makes of the feature maps `x` `(B, width)`: `(B, ops, width)`, in the order of the space."""
        return torch.stack([torch.zeros_like(x), x, *(x + op(x) for op in self.maps)], dim=1)

    def forward(self, archs: Tensor, live: Tensor) -> Tensor:
        rows, ops = torch.arange(len(archs)), torch.where(live, archs, NONE)
        m0 = self._messages(self.start[None])[0]
        m1 = self._messages(m0[ops[:, 0]])
        m2 = self._messages(m0[ops[:, 1]] + m1[rows, ops[:, 2]])
        output = m0[ops[:, 3]] + m1[rows, ops[:, 4]] + m2[rows, ops[:, 5]]
        raw = torch.cat([nn.functional.one_hot(a, len(SPACE.ops)).flatten(1) for a in (archs, ops)], dim=1).float()
        return torch.cat([self.accuracy(output), self.cost(raw)], dim=1)


def _inputs() -> tuple[Tensor, Tensor]:
    archs = SPACE.all()
    return torch.from_numpy(archs.astype(np.int64)), torch.from_numpy(live_edges(archs))


def card() -> dict:
    """The data card of the embedded surrogate; `NagkitError` when it is missing."""
    return embedded.card(SPACE.name, REBUILD)


def columns() -> list[str]:
    """Names "dataset/split/metric" of the fitted columns."""
    return list(card()["columns"])


def column(name: str) -> np.ndarray:
    """The surrogate's figure of every cell in the order of `Space.all()`, float64 `(size,)`."""
    return _predictions()[:, columns().index(name)].copy()


@cache
def _predictions() -> np.ndarray:
    arrays = embedded.arrays(SPACE.name, REBUILD)
    scale = {key: arrays.pop(key) for key in ("ceiling", "mean", "sd")}
    network = Network(n_accuracy := len(scale["ceiling"]), len(scale["mean"]) - n_accuracy)
    network.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
    return _predict(network, scale)


@torch.inference_mode()
def _predict(network: Network, scale: dict[str, np.ndarray]) -> np.ndarray:
    """Figures of all cells in their units, float64 `(size, K)`."""
    z = network(*_inputs()).double().numpy() * scale["sd"] + scale["mean"]
    n_accuracy = len(scale["ceiling"])
    figures = np.concatenate([scale["ceiling"] - np.exp(-z[:, :n_accuracy]), z[:, n_accuracy:]], axis=1)
    return figures.round(4)  # hides the order of float32 sums, which differs among isomorphic cells


def held_out(seed: int = 0) -> np.ndarray:
    """Which cells the fit under `seed` never saw, bool `(size,)`: whole isomorphism classes, a tenth of them."""
    classes = SPACE.isomorphism_classes()
    n_classes = classes.max() + 1
    return np.isin(classes, numpy_stream(seed, "surrogate/held-out").permutation(n_classes)[: round(HELD_OUT * n_classes)])


def _targets(table: dict[str, np.ndarray]) -> tuple[list[str], list[str]]:
    """Columns to fit: accuracies of every kind, and hardware costs."""
    corrupted = [name for name in table if name.startswith("cifar10/test/") and name.endswith("_sev2")]
    accuracy = [name for name in table if name.endswith("/accuracy")] + [f"cifar10/test/{name}" for name in _ROBUST] + corrupted
    costs = tuple(f"{quantity}_{device}" for quantity in ("latency", "energy") for device in _DEVICES)
    return accuracy, [name for name in table if name.endswith(costs)]


def _within_class_sd(values: np.ndarray) -> float:
    """Pooled standard deviation among isomorphic cells: training noise, which no prediction from the graph can beat."""
    classes = SPACE.isomorphism_classes()
    size = np.bincount(classes)
    mean = np.bincount(classes, values) / size
    return round(float(np.sqrt(((values - mean[classes]) ** 2).sum() / (size - 1).sum())), 5)


def _train(network: Network, measured: Tensor, scale: dict[str, np.ndarray], rows: Tensor, seed: int, progress: bool) -> None:
    """Huber loss of the standardised log error, plus half the same of the accuracy itself, which guards the low tail."""
    archs, live = _inputs()
    n_accuracy = len(scale["ceiling"])
    ceiling, mean, sd = (torch.from_numpy(scale[key]).float() for key in ("ceiling", "mean", "sd"))
    targets = (torch.cat([-torch.log(ceiling - measured[:, :n_accuracy]), measured[:, n_accuracy:]], dim=1) - mean) / sd
    spread = measured[rows, :n_accuracy].std(dim=0)

    def loss(batch: Tensor) -> Tensor:
        z = network(archs[batch], live[batch])
        exponent = (z[:, :n_accuracy] * sd[:n_accuracy] + mean[:n_accuracy]).clamp(-8, 8)  # no overflow early on
        error = (ceiling - torch.exp(-exponent) - measured[batch, :n_accuracy]) / spread
        logs = nn.functional.smooth_l1_loss(z, targets[batch], beta=0.3)
        return logs + 0.5 * nn.functional.smooth_l1_loss(error, torch.zeros_like(error), beta=0.3)

    shuffle = torch_stream(seed, "surrogate/batches")
    constants = {"epochs": _EPOCHS, "batch": _BATCH, "rate": _RATE, "decay": 1e-4}
    embedded.one_cycle(network, loss, rows, shuffle, progress=progress, **constants)


def fit(progress: bool = True, seed: int = 0) -> dict:
    """Fit the surrogate to the tables, write weights and data card under `data/surrogates/`, and return the card.

    Trains on nine tenths of the isomorphism classes and reports the rest; nothing is refitted afterwards. The same seed
    gives the same weights on the same machine and library versions. A few minutes on one core. `NagkitError` without
    the tables.
    """
    source = convert(progress)
    table, _ = read_arrays(source)
    accuracy, cost = _targets(table)
    values = np.stack([table[name] for name in accuracy + cost], axis=1)
    test = held_out(seed)
    top = values[~test, : len(accuracy)].max(axis=0)
    ceiling = top + 0.5 * (100 - top) + 1  # above anything attainable, so that the log error is finite and even
    z = np.concatenate([-np.log(ceiling - values[:, : len(accuracy)]), values[:, len(accuracy) :]], axis=1)[~test]
    scale = {"ceiling": ceiling, "mean": z.mean(axis=0), "sd": z.std(axis=0)}

    network = Network(len(accuracy), len(cost)).initialise(torch_stream(seed, "surrogate/weights"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order: the same seed gives the same weights
    try:
        _train(network, torch.from_numpy(values).float(), scale, torch.from_numpy(np.flatnonzero(~test)), seed, progress)
        predicted = _predict(network, scale)
    finally:
        torch.set_num_threads(threads)

    good = test & (table["cifar10/test/accuracy"] > 90)
    figures = {}
    for i, name in enumerate(accuracy + cost):
        unit = "percent" if i < len(accuracy) else "ms" if "/latency_" in name else "mJ"
        figures[name] = {"unit": unit, "all": embedded.evaluate(predicted[test, i], values[test, i])}
        if unit == "percent":
            figures[name]["above_90"] = embedded.evaluate(predicted[good, i], values[good, i])
        if name.endswith("/accuracy"):  # robustness was measured once per class
            figures[name]["within_class_sd"] = _within_class_sd(values[:, i])
    _predictions.cache_clear()
    card = {
        "what": f"Surrogate of the {SPACE.title} tables, fitted by this project; figures are of held-out cells only.",
        "seed": seed,
        "table": source.name,
        "parameters": sum(tensor.numel() for tensor in network.parameters()),
        "split": {
            "unit": "isomorphism classes",
            "held_out_classes": len(np.unique(SPACE.isomorphism_classes()[test])),
            "held_out_cells": int(test.sum()),
            "training_cells": int((~test).sum()),
        },
        "above_90": "held-out cells with more than 90 % CIFAR-10 test accuracy",
        "within_class_sd": "pooled standard deviation among isomorphic cells of the table (training noise)",
        "columns": figures,
    }
    arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()} | scale
    return embedded.write(SPACE.name, arrays, REBUILD, card)
