"""What surrogates see of an architecture: features of its code that stay defined, and differentiable, between architectures."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from nagkit.rng import numpy_stream
from nagkit.spaces import mbv3, nb201
from nagkit.spaces.base import SearchSpace, get_space

_REFERENCE = 4096  # draws that set the unit of every feature
_PATHS = ((3,), (0, 4), (1, 5), (0, 2, 5))
"""The ways from input to output of an NB201 cell, as slots."""


def features(space: SearchSpace, x: Tensor) -> Tensor:
    """Structural features of codes `(B, n_nodes, n_ops)` in [-1, 1], float64 `(B, F)`.

    NB201: the operation of every edge, the same for edges on a live path, and how often each operation is on one. MBv3: depth,
    kernel and expansion of every layer. Linear or multilinear in the probabilities (x + 1) / 2, so that at a posterior
    mean of independent rows they are the expected features. Centred, of unit variance over the space's own law and divided
    by the square root of their number: two random architectures are about √2 apart.
    """
    centre, scale = _units(space.name)
    return (_raw(space.name, (x.double() + 1) / 2) - centre) / scale


def encode(space: SearchSpace, archs: np.ndarray) -> Tensor:
    """`features` of architectures."""
    return features(space, space.encode(archs))


def paths(archs: np.ndarray) -> Tensor:
    """Path encoding of NB201 cells (White et al., 2021): which sequences of operations lead through it, float64 `(B, 155)`."""
    archs = np.asarray(archs, np.int64)
    found = np.zeros((len(archs), 5 + 25 + 125))
    for path in _PATHS:
        offset = sum(5**length for length in range(1, len(path)))
        found[np.arange(len(archs)), offset + archs[:, path] @ 5 ** np.arange(len(path))] = 1
    return torch.from_numpy(found)


@cache
def _units(name: str) -> tuple[Tensor, Tensor]:
    space = get_space(name)
    draws = space.random(_REFERENCE, numpy_stream(0, "search/encoding"))
    raw = _raw(name, (space.encode(draws).double() + 1) / 2)
    spread = raw.std(dim=0)
    moving = spread > 0
    return raw.mean(dim=0), torch.where(moving, spread, 1.0) * moving.sum().sqrt()


def _raw(name: str, p: Tensor) -> Tensor:
    return {nb201.Space.name: _cells, mbv3.Space.name: _networks}[name](p)


def _cells(p: Tensor) -> Tensor:
    chosen = p[:, 1:7, 2:]  # (B, 6, 5)
    on = 1 - chosen[:, :, nb201.NONE]
    a, b, c, d, e, f = on.unbind(dim=1)
    after_1, before_2 = _either(e, c * f), _either(b, a * c)
    # probability that an edge that is not cut lies on a path from input to output
    live = torch.stack([after_1, f, a * f, torch.ones_like(d), a, before_2], dim=1)
    working = chosen[:, :, 1:] * live[:, :, None]
    return torch.cat([chosen.flatten(1), working.flatten(1), working.sum(dim=1)], dim=1)


def _either(a: Tensor, b: Tensor) -> Tensor:
    return 1 - (1 - a) * (1 - b)


def _networks(p: Tensor) -> Tensor:
    return p.flatten(1) @ _layer_properties()


@cache
def _layer_properties() -> Tensor:
    """Which of the 180 probabilities add up to each of the 90 features: presence of slots 3 and 4, kernel, expansion."""
    table = torch.eye(20 * mbv3.N_OPS, dtype=torch.float64).unflatten(1, (20, 3, 3))  # (180, slot, kernel, expansion)
    late = torch.arange(20) % mbv3.N_SLOTS >= mbv3.DEPTHS[0]
    parts = table.sum(dim=(2, 3))[:, late], table.sum(dim=3)[..., 1:].flatten(1), table.sum(dim=2)[..., 1:].flatten(1)
    return torch.cat(parts, dim=1)
