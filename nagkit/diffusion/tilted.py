"""The law of a space tilted by any values, and its exact denoiser: what guidance aims at, without approximation."""

from functools import lru_cache

import numpy as np

from nagkit.diffusion.exact import ListedDenoiser
from nagkit.errors import NagkitError
from nagkit.spaces.base import SearchSpace, is_listed


def tilted_law(space: SearchSpace, values: np.ndarray, scale: float = 1.0) -> ListedDenoiser:
    """The law over a listed space with probability proportional to exp(scale · values), a denoiser.

    `values` is `(size,)`, one finite number an architecture in the order of `space.all()`; -inf rules one out. At scale 0 the
    law is uniform. Raises `NagkitError` for a space that cannot be listed, and as `ListedDenoiser.tilted`.
    """
    return _uniform(space).tilted(values, scale)


@lru_cache(maxsize=4)
def _uniform(space: SearchSpace) -> ListedDenoiser:
    if not is_listed(space):
        raise NagkitError(f"{space.name} is too large to list, so its tilted law has no closed form; guide its prior instead")
    return ListedDenoiser(space.encode(space.all()))
