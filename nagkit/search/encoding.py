"""What surrogates see of an architecture: features of its code that stay defined, and differentiable, between architectures."""

from functools import lru_cache

import numpy as np
from torch import Tensor, ones_like, where

from nagkit.rng import numpy_stream
from nagkit.spaces.base import SearchSpace

_REFERENCE = 4096  # draws that set the unit of every feature


def features(space: SearchSpace, x: Tensor) -> Tensor:
    """The features that a space gives of codes `(B, n_nodes, n_ops)` in [-1, 1], in units of that space, float64 `(B, F)`.

    Centred, of unit variance over the space's own law and divided by the square root of their number: two random
    architectures are about √2 apart.
    """
    centre, scale = _units(space)
    return (_raw(space, x) - centre.to(x.device)) / scale.to(x.device)


def encode(space: SearchSpace, archs: np.ndarray) -> Tensor:
    """`features` of architectures."""
    return features(space, space.encode(archs))


@lru_cache(maxsize=8)
def _units(space: SearchSpace) -> tuple[Tensor, Tensor]:
    draws = space.random(_REFERENCE, numpy_stream(0, "search/encoding"))
    raw = _raw(space, space.encode(draws))
    spread = raw.std(dim=0)
    moving = spread > 0
    return raw.mean(dim=0), where(moving, spread, ones_like(spread)) * moving.sum().sqrt()


def _raw(space: SearchSpace, x: Tensor) -> Tensor:
    return space.features((x.double() + 1) / 2)
