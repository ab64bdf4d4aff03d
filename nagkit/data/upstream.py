"""From upstream files to arrays in the order of `Space.code`; foreign pickles only through an unpickler that runs nothing.

What the sources do not say by themselves:

- NATS-Bench 200-epoch test accuracies are means over training seeds; isomorphic cells were trained separately.
- The 12-epoch accuracies come from one export of NAS-Bench-201: CIFAR-10 test after training on train + validation.
- Robustness was measured once per isomorphism class, and every member carries its representative's figure.
- HW-NAS-Bench: latency in ms, energy in mJ; an Edge TPU latency of -1 means "not supported" and becomes NaN.
- The Darcy-flow column of NAS-Bench-360 is 1 - relative L2 error (higher is better), here times 100; it can be negative.
- DyNAS-T lists all 20 slots of a Once-for-All network, those beyond a stage's depth too; 2,373 rows are 2,162 networks.
"""

import ast
import io
import json
import pickle
import zipfile
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from nagkit import paths
from nagkit.data import registry
from nagkit.data.io import read_arrays, write_arrays
from nagkit.data.triplets import Triplets
from nagkit.errors import NagkitError
from nagkit.spaces import mbv3, nb201

_FORMAT = 1  # goes into the cache keys: raise it when a converter changes
_TABLE_GROUPS = ("tables", "robustness", "hardware")
_DATASETS = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet16-120": "imagenet"}

Columns = dict[str, np.ndarray]
"""One float64 array of length 15,625 per "dataset/split/metric", in the order of `Space.code`."""


class Inert:
    """Stands in for a foreign class: remembers constructor arguments and state, and does nothing with them."""

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state):
        self.state = state


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise NagkitError(f"refused to unpickle: _codecs.encode with encoding {encoding!r}")
    return text.encode(encoding)


_ARRAY_PARTS = {
    "_reconstruct": np._core.multiarray._reconstruct,
    "scalar": np._core.multiarray.scalar,
    "_frombuffer": np._core.numeric._frombuffer,
}
_SAFE = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    ("builtins", "slice"): slice,
    ("collections", "OrderedDict"): dict,
    ("torch._utils", "_rebuild_tensor_v2"): Inert,
    ("torch", "FloatStorage"): Inert,
}


class RestrictedUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain containers; pandas, igraph and torch objects become `Inert`, all else is refused."""

    def find_class(self, module: str, name: str):
        if (module, name) in _SAFE:
            return _SAFE[module, name]
        if module.startswith(("numpy.core.", "numpy._core.")) and name in _ARRAY_PARTS:
            return _ARRAY_PARTS[name]
        if module.split(".")[0] in ("pandas", "igraph"):
            return Inert
        raise NagkitError(f"refused to unpickle {module}.{name}: foreign files may hold NumPy arrays and plain containers only")

    def persistent_load(self, pid):
        return Inert(pid)


def unpickle(content: bytes, origin: str) -> object:
    """Object in a foreign pickle, or in the zip archive of a `torch.save`; `NagkitError` names a refused class or damage."""
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                content = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        return RestrictedUnpickler(io.BytesIO(content)).load()
    except NagkitError as error:
        raise NagkitError(f"{origin}: {error}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise NagkitError(f"{origin} is not a readable pickle ({type(error).__name__}: {error}); fetch it again") from error


def _read(key: str) -> bytes:
    return registry.read(registry.entries()[key])


def _in_code_order(archs: np.ndarray, columns: Columns, origin: str) -> Columns:
    codes = nb201.Space().code(archs)
    if len(codes) != nb201.Space.size or len(np.unique(codes)) != nb201.Space.size:
        raise NagkitError(f"{origin} does not list each of the {nb201.Space.size:,} cells once; fetch it again")
    order = np.argsort(codes)
    return {name: np.asarray(values, np.float64)[order] for name, values in columns.items()}


def _index_order() -> np.ndarray:
    """Cells in the order of the benchmark's own index, int8 `(15625, 6)`."""
    return nb201.Space().from_string(pd.read_csv(io.BytesIO(_read("nats-bench"))).ArchitectureString.tolist())


def nats_bench() -> Columns:
    """200-epoch test accuracy on three image data sets, percent."""
    table = pd.read_csv(io.BytesIO(_read("nats-bench")))
    names = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "imagenet16-120": "ImageNet"}
    columns = {f"{ours}/test/accuracy": table[f"{theirs}TestAccuracy200Epochs"] for ours, theirs in names.items()}
    return _in_code_order(nb201.Space().from_string(table.ArchitectureString.tolist()), columns, "nats-bench")


def twelve_epochs() -> Columns:
    """12-epoch validation and test accuracy on three image data sets, percent."""
    frame = unpickle(_read("nb201-12-epochs"), "nb201-12-epochs")
    _, _, _, manager = frame.state["_data"].state
    manager = manager["0.14.1"]
    labels = manager["axes"][0].args[1]["data"]
    table = {}
    for block in manager["blocks"]:
        rows = block["mgr_locs"]
        table |= dict(zip(labels[rows], block["values"], strict=True))
    columns = {
        f"{ours}/{split}12/accuracy": table[f"{theirs}-{'val' if split == 'validation' else split}"]
        for ours, theirs in _DATASETS.items()
        for split in ("validation", "test")
    }
    return _in_code_order(nb201.Space().from_string(table["cellstr"].tolist()), columns, "nb201-12-epochs")


def nas_bench_360() -> Columns:
    """NinaPro accuracy and Darcy-flow score, percent, and the latency (ms) and energy (mJ) of two devices."""
    table = pd.read_parquet(io.BytesIO(_read("nas-bench-360")))
    archs, columns = _index_order(), {}
    for (task, device, framework), rows in table.groupby(["task", "device", "framework"], sort=True):
        rows = rows.sort_values("arch_idx")
        runtime = f"{'pixel6a' if device == 'pixel' else device}_{framework}"
        columns[f"{task}/test/latency_{runtime}"] = rows.lat_ms_median
        if rows.energy_mj.notna().all():
            columns[f"{task}/test/energy_{runtime}"] = rows.energy_mj
        if task != "cifar100":  # its CIFAR-100 column is another release of NAS-Bench-201
            columns[f"{task}/test/accuracy"] = rows.accuracy * (100 if task == "darcy" else 1)
    return _in_code_order(archs, columns, "nas-bench-360")


def robustness() -> Columns:
    """Clean, adversarial (`<attack>_eps<in 1/255>`) and corrupted (`<corruption>_sev<1..5>`) accuracy, percent."""
    meta = json.loads(_read("robustness-meta"))
    archs = nb201.Space().from_string([cell["nb201-string"] for cell in meta["ids"].values()])
    representatives = [cell["isomorph"] for cell in meta["ids"].values()]
    columns = {}
    for key in (key for key in registry.entries() if key.startswith("robustness-cifar")):
        _, dataset, kind = key.split("-")
        ((measure, values),) = json.loads(_read(key))[dataset].items()
        values = values["accuracy"]
        figures = np.round(100 * np.array([values[representative] for representative in representatives]), 6)
        if kind == "clean":
            columns[f"{dataset}/test/robust_clean"] = figures
            continue
        attack = meta["epsilons"].get(measure)
        levels = [f"eps{eps}" for eps in attack] if attack else [f"sev{severity}" for severity in range(1, 6)]
        for level, column in zip(levels, figures.T, strict=True):
            columns[f"{dataset}/test/{kind}_{level}"] = column
    return _in_code_order(archs, columns, "robustness-meta")


def hardware() -> Columns:
    """HW-NAS-Bench: `latency_<device>` in ms and `energy_<device>` in mJ; they depend on no split and stand under "test"."""
    slots, ops = [0, 1, 3, 2, 4, 5], np.array([nb201.SKIP, nb201.NONE, nb201.CONV3, nb201.CONV1, nb201.POOL])
    columns = {}
    for dataset in _DATASETS:
        table = pd.read_csv(io.BytesIO(_read(f"hardware-{dataset}")))
        naslib = np.array([net.strip("()").split(",") for net in table.net], np.int8)
        found = {}
        for name in table.columns:
            device, _, quantity = name.rpartition("_")
            if quantity in ("latency", "energy"):
                found[f"{dataset}/test/{quantity}_{device}"] = table[name].where(table[name] != -1)
        columns |= _in_code_order(ops[naslib[:, slots]], found, f"hardware-{dataset}")
    return columns


@cache
def _cache_path(name: str, groups: tuple[str, ...]) -> Path:
    inputs = [_FORMAT, *(entry.sha256 for entry in registry.select(groups))]
    return Path(f"{name}-{sha256(repr(inputs).encode()).hexdigest()[:16]}.safetensors")


def table_path() -> Path:
    """Where `convert` puts the converted table: its name depends on the hashes of its inputs."""
    return paths.cache() / _cache_path("nb201", _TABLE_GROUPS)


def convert(progress: bool = True) -> Path:
    """Convert the NAS-Bench-201 tables once to a single safetensors file, one float64 tensor per "dataset/split/metric".

    Reads fetched files or the mirror, never the network; raises `NagkitError` when one is missing or the cache unwritable.
    """
    path = table_path()
    if path.is_file():
        return path
    columns: Columns = {}
    for source in tqdm((nats_bench, twelve_epochs, nas_bench_360, hardware, robustness), desc="convert", disable=not progress):
        columns |= source()
    return write_arrays(path, columns, {"sources": [entry.key for entry in registry.select(_TABLE_GROUPS)]})


def triplets() -> Triplets:
    """The paper's 4,630 triplets over 5,000 tasks of ImageNet-32 classes (ids 1..600), converted on first use.

    `NagkitError` with the remedy when their files are not on this machine.
    """
    path = paths.cache() / _cache_path("triplets", ("triplets",))
    if not path.is_file():
        content = unpickle(_read("triplets"), "triplets")
        arrays = {
            "archs": nb201.Space().from_string(content["str"]),
            "accuracy": np.array(content["acc"], np.float64),
            "task": np.array(content["task"], np.int64),
            "classes": np.array(torch.load(io.BytesIO(_read("triplets-classes")), weights_only=True), np.int64),
            "order": torch.load(io.BytesIO(_read("triplets-order")), weights_only=True).numpy(),
        }
        write_arrays(path, arrays)
    arrays = read_arrays(path)[0]
    return Triplets(*(arrays[name] for name in Triplets._fields))


@dataclass(frozen=True)
class MeasuredNetworks:
    """Once-for-All MobileNetV3 networks (width 1.0) measured on ImageNet-1K at resolution 224 by five searches of DyNAS-T."""

    archs: np.ndarray
    """int8 `(2373, 20)`; a network that several searches visited stands there several times."""
    accuracy: np.ndarray
    """Top-1, percent, float64 `(2373,)`."""
    params: np.ndarray
    """int64 `(2373,)`"""
    macs: np.ndarray
    """Multiply-accumulates of one image, int64 `(2373,)`."""
    search: np.ndarray
    """Registry key of the file of each row, `(2373,)` of str."""


def measured_networks() -> MeasuredNetworks:
    """The measured networks, in the order of the registry; `NagkitError` with the remedy when a file is not on this machine."""
    keys = [key for key, entry in registry.entries().items() if entry.path.split("/")[-1].startswith("mbnv3w10_")]
    tables = {key: pd.read_csv(io.BytesIO(_read(key))) for key in keys}
    rows = pd.concat(tables, names=["search"]).reset_index("search")
    return MeasuredNetworks(
        mbv3.Space().from_config([ast.literal_eval(text) for text in rows["Sub-network"]]),
        rows["Top-1 Acc (%)"].to_numpy(np.float64),
        rows["Model Parameters"].to_numpy(np.int64),
        rows["MACs"].to_numpy(np.int64),
        rows["search"].to_numpy(str),
    )


def measured_resolutions(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Once-for-All networks, int8 `(N, 20)`, and their top-1 accuracy, percent `(N,)`, measured at an input `resolution`.

    939 at 128 pixels, 879 at 160 and 792 at 192, all distinct.
    """
    content = unpickle(_read("ofa-measured-resolutions"), "ofa-measured-resolutions")
    rows = [row for row, config in enumerate(content["configs"]) if config["image_size"] == resolution]
    archs = mbv3.Space().from_config([content["configs"][row] for row in rows])
    return archs, 100 * np.array(content["accuracies"], np.float64)[rows]
