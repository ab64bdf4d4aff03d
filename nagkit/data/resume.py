"""The state of a training run, everything that decides its future, in one atomic file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from nagkit.data import io

Modules = Mapping[str, nn.Module]


def store(
    path: Path, progress: Mapping, modules: Modules, optimiser: torch.optim.Optimizer, stream: torch.Generator | None = None
) -> None:
    """Write weights and buffers of `modules`, the moments of `optimiser`, the random `stream` and JSON-like `progress`."""
    arrays = {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for index, moments in optimiser.state_dict()["state"].items():
        arrays |= {f"optimiser.{index}.{key}": value for key, value in moments.items()}
    if stream is not None:
        arrays["stream"] = stream.get_state()
        if torch.cuda.is_available():
            arrays["stream of the GPU"] = torch.cuda.get_rng_state()
    io.write_arrays(path, {key: value.cpu().numpy() for key, value in arrays.items()}, progress)


def restore(path: Path, modules: Modules, optimiser: torch.optim.Optimizer, stream: torch.Generator | None = None) -> dict:
    """Put back what `store` wrote, in place, and return its `progress`."""
    arrays, progress = io.read_arrays(path)
    arrays = {key: torch.from_numpy(value) for key, value in arrays.items()}
    for name, module in modules.items():
        module.load_state_dict({k.removeprefix(f"{name}."): v for k, v in arrays.items() if k.startswith(f"{name}.")})
    state = optimiser.state_dict() | {"state": {}}
    for key, value in arrays.items():
        if key.startswith("optimiser."):
            _, index, moment = key.split(".")
            state["state"].setdefault(int(index), {})[moment] = value
    optimiser.load_state_dict(state)
    if stream is not None:
        stream.set_state(arrays["stream"])
        if "stream of the GPU" in arrays and torch.cuda.is_available():
            torch.cuda.set_rng_state(arrays["stream of the GPU"])
    return progress
