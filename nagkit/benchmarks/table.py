"""Architecture → accuracy: one query interface over the real tables and over the surrogate fitted to them."""

from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np

from nagkit import paths
from nagkit.benchmarks import embedded, surrogate
from nagkit.benchmarks.names import Named
from nagkit.data.io import open_arrays
from nagkit.data.upstream import convert, table_path
from nagkit.errors import NagkitError, unknown
from nagkit.spaces.base import DEFAULT, SearchSpace, checked, get_space

ORACLES = ("auto", "table", "surrogate")


class Benchmark(Named):
    """Figures of all architectures of a listed space, by data set, split and metric.

    `oracle` says where they come from, "table" or "surrogate", and travels with every number. Accuracies are percent,
    latencies ms, energies mJ. Splits: "test" (after 200 epochs), "validation12" and "test12" (after 12 epochs).
    Metrics besides "accuracy" stand under "test": `robust_clean`, `<attack>_eps<1/255>`, `<corruption>_sev<1..5>`,
    `latency_<device>`, `energy_<device>`. The "accuracy" of Darcy flow is 100 (1 - relative L2 error).
    """

    def __init__(self, space: SearchSpace, oracle: str, names: list[str], read):
        self._home, self.space, self.oracle = space, space.name, oracle
        self._read = cache(read)
        self.tree = {}
        for name in sorted(names):
            dataset, split, metric = name.split("/")
            self.tree.setdefault(dataset, {}).setdefault(split, []).append(metric)

    @property
    def files(self) -> tuple[Path, ...]:
        """What the figures are read from."""
        return (table_path() if self.oracle == "table" else embedded.weights_of(self.space),)

    def column(self, dataset: str, *, split: str, metric: str = "accuracy") -> np.ndarray:
        """The figure of every architecture in the order of `all()`, float64 `(size,)`, read-only; NaN where not supported."""
        self.check(dataset, split, metric)
        values = self._read(f"{dataset}/{split}/{metric}")
        values.flags.writeable = False
        return values

    def query(self, archs: np.ndarray, dataset: str, *, split: str, metric: str = "accuracy") -> np.ndarray:
        """The figure of each architecture, float64 `(B,)`. `NagkitError` for an unknown name or an invalid one."""
        return self.column(dataset, split=split, metric=metric)[self._home.code(checked(self._home, archs))]

    def optimum(self, dataset: str, *, split: str, metric: str = "accuracy") -> float:
        """Best figure of all: the largest, or the smallest latency or energy."""
        column = self.column(dataset, split=split, metric=metric)
        return float(np.nanmin(column) if metric.startswith(("latency", "energy")) else np.nanmax(column))

    def fidelity(self, dataset: str, *, split: str, metric: str = "accuracy") -> dict[str, float] | None:
        """Held-out `r2`, `kendall_tau` and `rmse` of the surrogate's column; None for the table, which is the truth."""
        self.check(dataset, split, metric)
        return None if self.oracle == "table" else surrogate.card()["columns"][f"{dataset}/{split}/{metric}"]["all"]

    def describe(self) -> str:
        """One line: which oracle, and how well it is known to do."""
        if self.oracle == "table":
            how = "as measured (NATS-Bench, 200 epochs; 12 epochs; robustness; hardware)"
            return f"table: {self._home.title} {how}, {self._home.size:,} architectures"
        figures = surrogate.card()["columns"]["cifar10/test/accuracy"]["all"]
        return (
            f"surrogate: network fitted to the {self._home.title} tables; held-out CIFAR-10 test accuracy: "
            f"R² {figures['r2']:.3f}, Kendall τ {figures['kendall_tau']:.3f}, RMSE {figures['rmse']:.2f} points"
        )


def open_benchmark(
    space: str | SearchSpace = DEFAULT, oracle: str = "auto", *, resolution: int | None = None, dataset: str | None = None
) -> Benchmark:
    """The benchmark of a search space: the one of its module `benchmark`, which knows its `oracle`s and what "auto" means.

    Tables: "table" (the converted ones, or those of `NAGKIT_MIRROR`, converted on first use), "surrogate" (embedded), or
    "auto": the table when it is there, else the surrogate. MobileNetV3, its input `resolution` (default 224) and `dataset`:
    see `nagkit.benchmarks.ofa` and `nagkit.benchmarks.measured`. No network is used. Raises `NagkitError` for unknown names
    and missing data.
    """
    home = get_space(space)
    if not hasattr(home, "benchmark"):
        raise NagkitError(f"no benchmark measures {home.name}; give your own measurements as a function or a CSV file")
    return import_module(home.benchmark).benchmark_of(home, oracle, resolution=resolution, dataset=dataset)


def benchmark_of(space: SearchSpace, oracle: str, *, resolution: int | None, dataset: str | None) -> Benchmark:
    """The benchmark of a space with tables; see `open_benchmark`."""
    if resolution is not None:
        raise NagkitError(f"the {space.name} benchmark has no input resolution, got {resolution}; leave it out")
    if oracle not in ORACLES:
        raise unknown("oracle", oracle, ORACLES)
    has_table = table_path().is_file() or paths.mirror() is not None
    if oracle == "surrogate" or (oracle == "auto" and not has_table):
        return Benchmark(space, "surrogate", surrogate.columns(), surrogate.column)
    file = open_arrays(convert(progress=False))
    return Benchmark(space, "table", list(file.keys()), file.get_tensor)
