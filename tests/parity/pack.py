"""Reading a parity pack: arrays, metadata and weights of a case, and the measure of agreement."""

import json
import os
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from nagkit.errors import NagkitError

FOLDER = Path(os.environ.get("NAGKIT_PARITY") or Path(__file__).parent / "data")
COMMIT = "3e981a5"
CASES = [f"N{i}" for i in range(1, 9)] + [f"M{i}" for i in range(1, 8)] + [f"F{i}" for i in range(1, 5)] + ["U1", "U2", "I1"]


class Case:
    """One file of the pack: `case["in.x"]` is a float64 (or integer) tensor, `case.weights(dtype)` the official state dict."""

    def __init__(self, name: str, arrays: dict[str, np.ndarray], metadata: dict[str, str]):
        self.name, self.arrays, self.metadata = name, arrays, metadata

    def __getitem__(self, key: str) -> torch.Tensor:
        if key not in self.arrays:
            raise NagkitError(f"parity case {self.name} has no array {key!r}; take a pack of commit {COMMIT}")
        value = torch.from_numpy(self.arrays[key])
        return value.double() if value.is_floating_point() else value

    def json(self, key: str):
        return json.loads(self.metadata[key])

    def stored(self, prefix: str = "") -> dict[str, torch.Tensor]:
        head = f"weights.{prefix}"
        return {key.removeprefix(head): self[key] for key in self.arrays if key.startswith(head)}

    def weights(self, shapes: dict[str, list[int]] | None = None) -> dict[str, torch.Tensor]:
        """Stored weights, and those that follow the README's rule: `shapes`, or what the metadata list."""
        if shapes is None:
            shapes = self.json("by_rule") if "by_rule" in self.metadata else {}
            shapes |= self.json("parameters") if "parameters" in self.metadata and not self.stored() else {}
        return self.stored() | {name: by_rule(self, name, shape) for name, shape in shapes.items()}


def by_rule(case: Case, name: str, shape: list[int]) -> torch.Tensor:
    """The weight that the README's rule gives `name` in `case`, float32 values in float64."""
    u = np.random.RandomState(zlib.crc32(f"{case.name}/{name}".encode())).uniform(-1, 1, size=shape)
    if len(shape) > 1:
        w = np.sqrt(3 / shape[-1]) * u
    else:
        w = 0.2 * u + (1 if "norm" in name and name.endswith("weight") else 0)
    w = w.astype(np.float32)
    for ending, factor in (case.json("scaled") if "scaled" in case.metadata else {}).items():
        if name.endswith(ending):
            w = w * np.float32(factor)
    return torch.from_numpy(w).double()


def folder(path: Path = FOLDER) -> Path:
    """`path` when it holds a pack of the layout and the commit that these tests read; else one line saying what is wrong."""
    for name in CASES:
        file = path / f"{name}.safetensors"
        if not file.is_file():
            raise NagkitError(f"parity pack {path} lacks {file.name}; NAGKIT_PARITY must name a folder of {len(CASES)} cases")
        try:
            with safe_open(str(file), framework="numpy") as opened:
                commit = (opened.metadata() or {}).get("commit")
        except SafetensorError as error:
            raise NagkitError(f"parity case {file} cannot be read ({error}); copy it again") from error
        if commit != COMMIT:
            raise NagkitError(f"parity case {file.name} was made from commit {commit}, these tests read {COMMIT}")
    return path


def read(name: str, path: Path) -> Case:
    with safe_open(str(path / f"{name}.safetensors"), framework="numpy") as opened:
        return Case(name, {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata())


@cache
def case(name: str) -> Case:
    return read(name, folder())


def difference(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """Largest absolute difference over the largest absolute value of the reference."""
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    return float((ours.double() - reference).abs().max() / reference.abs().max())


def tolerance(name: str, kind: str = "out.") -> float:
    return float(case(name).json("tolerance")[kind])
