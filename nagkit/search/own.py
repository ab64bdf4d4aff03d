"""An objective of one's own from the shell: a function that Python can import, or a table of values."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

from nagkit.errors import NagkitError
from nagkit.objectives import read_pairs
from nagkit.spaces.base import SearchSpace, is_listed, keys


def load(spec: str, space: SearchSpace) -> Callable[[np.ndarray], np.ndarray]:
    """What `spec` names as `(archs) → values`, the larger the better, NaN where an evaluation failed.

    "module:function", looked for in the current folder too, is called with int8 `(B, n_slots)` and returns floats `(B,)`. A
    file name ending in .csv is a table `arch,value` of a whole listed space; an empty value is a failed evaluation. Raises
    `NagkitError` for what cannot be imported, a table of part of a space, and one whose architectures are not of `space`.
    """
    if spec.endswith(".csv"):
        archs, values = read_pairs(Path(spec), space, failures=True)
        if not is_listed(space) or len(archs) < space.size:
            remedy = f"`nagkit suggest {spec}` proposes which to measure next"
            raise NagkitError(f"{spec} lists {len(archs):,} of the {space.size:,} architectures of {space.name}; {remedy}")
        order = np.argsort(keys(archs))
        listed = keys(archs)[order]
        return lambda asked: values[order[np.searchsorted(listed, keys(asked))]]
    module, colon, name = spec.partition(":")
    if not (module and colon and name):
        raise NagkitError(f"objective {spec!r} is neither a .csv file nor module:function; for example my_task:accuracy")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise NagkitError(f"objective {spec} cannot be imported ({error}); name a module here or on PYTHONPATH") from None
    if not callable(found):
        raise NagkitError(f"objective {spec} is {type(found).__name__}, not a function of architectures")
    return lambda archs: np.asarray(found(archs), np.float64)
