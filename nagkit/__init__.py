"""nagkit: guided generation of neural architectures with diffusion models, and the study of DiffusionNAG built on it.

The names below load their modules on first use, so `import nagkit` and `nagkit --help` need neither torch nor pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nagkit.benchmarks.table import open_benchmark
    from nagkit.diffusion.exact import exact_prior
    from nagkit.errors import NagkitError
    from nagkit.guidance import guide
    from nagkit.sampling import Pool, generate, load_predictor, load_prior
    from nagkit.search.methods import search
    from nagkit.spaces.base import get_space

__version__ = "0.1.0"
__all__ = [
    "NagkitError", "Pool", "exact_prior", "generate", "get_space", "guide", "load_predictor", "load_prior", "open_benchmark",
    "search",
]  # fmt: skip

_HOME = {
    "NagkitError": "errors",
    "Pool": "sampling",
    "exact_prior": "diffusion.exact",
    "generate": "sampling",
    "get_space": "spaces.base",
    "guide": "guidance",
    "load_predictor": "sampling",
    "load_prior": "sampling",
    "open_benchmark": "benchmarks.table",
}


def __getattr__(name: str) -> object:
    if name == "search":  # a package that can be called
        return import_module("nagkit.search")
    if name not in _HOME:
        raise AttributeError(f"module 'nagkit' has no attribute {name!r}; it has {', '.join(__all__)}")
    found = globals()[name] = getattr(import_module(f"nagkit.{_HOME[name]}"), name)
    return found
