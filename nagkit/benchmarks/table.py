"""Architecture → accuracy: one query interface over the real tables and over the surrogate fitted to them."""

from collections import defaultdict
from functools import cache

import numpy as np

from nagkit import paths
from nagkit.benchmarks import measured, ofa, surrogate
from nagkit.data.io import open_arrays
from nagkit.data.upstream import convert, table_path
from nagkit.errors import NagkitError, unknown
from nagkit.spaces import nb201
from nagkit.spaces.base import checked

ORACLES = ("auto", "table", "surrogate")


class Benchmark:
    """Figures of all 15,625 NAS-Bench-201 cells, by data set, split and metric.

    `oracle` says where they come from, "table" or "surrogate", and travels with every number. Accuracies are percent,
    latencies ms, energies mJ. Splits: "test" (after 200 epochs), "validation12" and "test12" (after 12 epochs).
    Metrics besides "accuracy" stand under "test": `robust_clean`, `<attack>_eps<1/255>`, `<corruption>_sev<1..5>`,
    `latency_<device>`, `energy_<device>`. The "accuracy" of Darcy flow is 100 (1 - relative L2 error).
    """

    space = "nb201"

    def __init__(self, oracle: str, names: list[str], read):
        self.oracle = oracle
        self._read = cache(read)
        self._tree: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for name in sorted(names):
            dataset, split, metric = name.split("/")
            self._tree[dataset][split].append(metric)

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(self._tree)

    def splits(self, dataset: str) -> tuple[str, ...]:
        if dataset not in self._tree:
            raise unknown("data set", dataset, self._tree)
        return tuple(self._tree[dataset])

    def metrics(self, dataset: str, *, split: str) -> tuple[str, ...]:
        if split not in self.splits(dataset):
            raise unknown(f"split of {dataset}", split, self._tree[dataset])
        return tuple(self._tree[dataset][split])

    def column(self, dataset: str, *, split: str, metric: str = "accuracy") -> np.ndarray:
        """The figure of every cell in the order of `Space.all()`, float64 `(15625,)`, read-only; NaN where not supported."""
        if metric not in self.metrics(dataset, split=split):
            raise unknown(f"metric of {dataset}/{split} ({self.oracle})", metric, self._tree[dataset][split])
        values = self._read(f"{dataset}/{split}/{metric}")
        values.flags.writeable = False
        return values

    def query(self, archs: np.ndarray, dataset: str, *, split: str, metric: str = "accuracy") -> np.ndarray:
        """The figure of each cell, float64 `(B,)`. `NagkitError` for an unknown name or an invalid cell."""
        column, space = self.column(dataset, split=split, metric=metric), nb201.Space()
        return column[space.code(checked(space, archs))]

    def optimum(self, dataset: str, *, split: str, metric: str = "accuracy") -> float:
        """Best figure over all cells: the largest, or the smallest latency or energy."""
        column = self.column(dataset, split=split, metric=metric)
        return float(np.nanmin(column) if metric.startswith(("latency", "energy")) else np.nanmax(column))

    def fidelity(self, dataset: str, *, split: str, metric: str = "accuracy") -> dict[str, float] | None:
        """Held-out `r2`, `kendall_tau` and `rmse` of the surrogate's column; None for the table, which is the truth."""
        self.column(dataset, split=split, metric=metric)
        return None if self.oracle == "table" else surrogate.card()["columns"][f"{dataset}/{split}/{metric}"]["all"]

    def describe(self) -> str:
        """One line: which oracle, and how well it is known to do."""
        if self.oracle == "table":
            return "table: NAS-Bench-201 as measured (NATS-Bench, 200 epochs; 12 epochs; robustness; hardware), 15,625 cells"
        figures = surrogate.card()["columns"]["cifar10/test/accuracy"]["all"]
        return (
            "surrogate: network fitted to the NAS-Bench-201 tables; held-out CIFAR-10 test accuracy: "
            f"R² {figures['r2']:.3f}, Kendall τ {figures['kendall_tau']:.3f}, RMSE {figures['rmse']:.2f} points"
        )


def open_benchmark(
    space: str = "nb201", oracle: str = "auto", *, resolution: int | None = None, dataset: str | None = None
) -> Benchmark | ofa.ImageNet | measured.Measured:
    """The benchmark of a search space.

    NB201's `oracle`: "table" (the converted tables, or those of `NAGKIT_MIRROR`, converted on first use), "surrogate"
    (embedded), or "auto": the table when it is there, else the surrogate. MBv3's, and its input `resolution` (default
    224): see `nagkit.benchmarks.ofa`; or "supernet" and "supernet-surrogate": see `nagkit.benchmarks.measured`, whose
    are also what "auto" means for a `dataset` of 32×32 images. No network is used. Raises `NagkitError` for unknown names
    and missing data.
    """
    if space == ofa.ImageNet.space:
        known = (*ofa.ImageNet.datasets, *measured.DATASETS)
        if oracle == "auto" and dataset not in (None, *known):
            raise unknown("data set of mbv3", dataset, known)
        if oracle in (measured.ORACLE, measured.SURROGATE) or (oracle == "auto" and dataset in measured.DATASETS):
            if resolution not in (None, 32):
                raise NagkitError(f"the supernet sees images of 32×32 pixels, not {resolution}; leave the resolution out")
            return measured.open_supernet(oracle, dataset)
        return ofa.open_imagenet(oracle, 224 if resolution is None else resolution)
    if space != Benchmark.space:
        raise unknown("benchmark space", space, [Benchmark.space, ofa.ImageNet.space])
    if resolution is not None:
        raise NagkitError(f"the {space} benchmark has no input resolution, got {resolution}; leave it out")
    if oracle not in ORACLES:
        raise unknown("oracle", oracle, ORACLES)
    has_table = table_path().is_file() or paths.mirror() is not None
    if oracle == "surrogate" or (oracle == "auto" and not has_table):
        return Benchmark("surrogate", surrogate.columns(), surrogate.column)
    file = open_arrays(convert(progress=False))
    return Benchmark("table", list(file.keys()), file.get_tensor)
