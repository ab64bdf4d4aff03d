"""The network of NAS-Bench-201 (Dong & Yang, 2020): a stem, three stages of one cell repeated, and a linear classifier.

Convolutions have no bias, batch norms have scale and shift, and every convolution of a cell or of a reduction comes as
ReLU, convolution, batch norm. A 3×3 average pool keeps the size and counts no padding.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nagkit.errors import NagkitError
from nagkit.spaces.cell import CONV1, CONV3, EDGES, NONE, POOL


def computed_edges(arch: np.ndarray) -> list[int]:
    """Slots whose result can differ from zero and reaches the output of the cell; the others need no computation.

    More than those of `live_edges`: a convolution of a zero map is still there, because its batch norm adds a learned shift to
    it. Leaving the other edges out changes no output and no gradient of what is left.
    """
    convolved = [op in (CONV1, CONV3) for op in arch]
    zero, useful, slots = {1, 2, 3}, {3}, []
    for slot, (source, target) in enumerate(EDGES):  # in the order of targets, so that a source is settled before it is read
        if convolved[slot] or (arch[slot] != NONE and source not in zero):
            zero.discard(target)
            slots.append(slot)
    for slot, (source, target) in reversed(list(enumerate(EDGES))):
        if arch[slot] != NONE and target in useful:
            useful.add(source)
    return [slot for slot in slots if EDGES[slot][1] in useful]


def relu_conv_norm(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(n_out))


def operation(op: int, channels: int) -> nn.Module:
    """The module of an operation other than `none`, on maps `(B, channels, H, W)`."""
    if op in (CONV1, CONV3):
        return relu_conv_norm(channels, channels, 3 if op == CONV3 else 1)
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False) if op == POOL else nn.Identity()


class Cell(nn.Module):
    """Four maps `(B, C, H, W)`, of which the first is the input and the last the output; a map sums its incoming edges.

    Operations that need no computation are there all the same: the benchmark counts their parameters.
    """

    def __init__(self, arch: np.ndarray, channels: int):
        super().__init__()
        self.edges = computed_edges(arch)
        self.ops = nn.ModuleDict({str(slot): operation(op, channels) for slot, op in enumerate(arch) if op != NONE})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = {0: x}
        for node in (1, 2, 3):
            terms = []
            for slot in self.edges:
                source, target = EDGES[slot]
                if target == node:
                    terms.append(self.ops[str(slot)](maps[source]))
            # a map without terms is zero; it is read by convolutions only, or it is the output of a disconnected cell
            maps[node] = sum(terms[1:], start=terms[0]) if terms else torch.zeros_like(x)
        return maps[3]


class Reduction(nn.Module):
    """Residual block of stride 2 between two stages, `(B, C, H, W)` → `(B, 2C, H/2, W/2)`."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.first, self.second = relu_conv_norm(n_in, n_out, 3, 2), relu_conv_norm(n_out, n_out, 3)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(n_in, n_out, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.second(self.first(x))


class CellNetwork(nn.Module):
    """Pixels `(B, 3, H, W)` → logits `(B, n_classes)`: `cells` copies of the cell in each stage, C, 2C and 4C wide.

    The benchmark has `channels` = 16 and `cells` = 5; its number of parameters is then the `cost` of the space, also for
    operations that are never computed.
    """

    def __init__(self, arch: np.ndarray, n_classes: int, channels: int = 16, cells: int = 5):
        super().__init__()
        if min(channels, cells, n_classes) < 1:
            raise NagkitError(f"channels, cells and classes must be at least 1, got {channels}, {cells} and {n_classes}")
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        layers = []
        for width in (channels, 2 * channels, 4 * channels):
            if width > channels:
                layers.append(Reduction(width // 2, width))
            layers += [Cell(arch, width) for _ in range(cells)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(4 * channels)
        self.head = nn.Linear(4 * channels, n_classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.norm(self.layers(self.stem(pixels)))).mean(dim=(2, 3)))
