"""One network of the supernet as a network of its own: the weights it uses, running statistics, and a new classifier."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nagkit.benchmarks import supernet
from nagkit.benchmarks.supernet import Layer, Norm, Running, Statistics, Supernet
from nagkit.spaces import mbv3


class SubNetwork(nn.Module):
    """`arch`, int8 `(20,)`, cut out of `network`, with a classifier of `n_classes` that starts at zero.

    Reads normalised pixels `(B, 3, 32, 32)`. In training mode it normalises by the batch and keeps running statistics, which
    evaluation mode uses, folded into the weights.
    """

    def __init__(self, network: Supernet, arch: np.ndarray, n_classes: int, *, dropout: float = 0.0):
        super().__init__()
        self.network, self.arch, self.dropout = _cut(network, arch), np.array(arch), dropout
        self.network.head = nn.Linear(network.features, n_classes)
        nn.init.zeros_(self.network.head.weight)
        nn.init.zeros_(self.network.head.bias)
        self.network.n_classes = n_classes
        self.running = Running([len(norm.weight) for norm in _norms(self.network, arch)])

    def forward(self, pixels: Tensor) -> Tensor:
        statistics = self.running if self.training else self._noted()
        features = self.network.pooled(self.network.stem(pixels, statistics), self.arch, statistics)
        return self.network.head(F.dropout(features, self.dropout, self.training))

    def _noted(self) -> Statistics:
        noted = []
        for norm, (mean, variance) in zip(_norms(self.network, self.arch), self.running.pairs(), strict=True):
            scale = norm.weight * (variance + supernet.EPS).rsqrt()
            noted.append((scale[:, None], (norm.bias - mean * scale)[:, None]))
        return Statistics(noted=noted)


def build(arch: np.ndarray, n_classes: int, *, dropout: float = 0.0) -> SubNetwork:
    """`arch` with the weights of the committed supernet; `NagkitError` when that is not there."""
    return SubNetwork(supernet.load(supernet.CHECKPOINT), arch, n_classes, dropout=dropout)


def _cut(network: Supernet, arch: np.ndarray) -> Supernet:
    """A supernet that holds just what `arch` uses."""
    cut = Supernet(network.n_classes, network.widths, network.features)
    cut.load_state_dict(network.state_dict())
    for slot, op in enumerate(np.asarray(arch).tolist()):
        cut.layers[slot] = nn.Identity() if op == mbv3.ABSENT else _cut_layer(cut.layers[slot], op)
    return cut


def _cut_layer(layer: Layer, op: int) -> Layer:
    size, n = mbv3.KERNELS[op // 3], mbv3.EXPANDS[op % 3] * layer.n_in
    with torch.no_grad():
        parts = {"expand": layer.expand[:n], "kernel": layer.kernels(n, size), "project": layer.project[:, :n]}
        for name, part in parts.items():
            setattr(layer, name, nn.Parameter(part.clone()))
        layer.to_5 = layer.to_3 = None
        for norm in layer.norms[:2]:
            norm.weight, norm.bias = (nn.Parameter(part[:n].clone()) for part in (norm.weight, norm.bias))
        if layer.excite is not None:
            for linear, (rows, columns) in ((layer.excite.squeeze, (n // 4, n)), (layer.excite.stretch, (n, n // 4))):
                linear.weight = nn.Parameter(linear.weight[:rows, :columns].clone())
                linear.bias = nn.Parameter(linear.bias[:rows].clone())
    return layer


def _norms(network: Supernet, arch: np.ndarray) -> Sequence[Norm]:
    """The normalisations that `arch` passes, in order."""
    layers = [layer for layer, op in zip(network.layers, np.asarray(arch).tolist(), strict=True) if op != mbv3.ABSENT]
    return [*network.stem_norms, *(norm for layer in layers for norm in layer.norms), network.last_norm]
