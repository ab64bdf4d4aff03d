"""A benchmark of one's own: accuracies measured elsewhere, a CSV `arch,dataset,accuracy`."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from nagkit.benchmarks.names import Named
from nagkit.errors import NagkitError
from nagkit.spaces.base import checked, get_space, keys


class Measurements(Named):
    """Test accuracy in percent, NaN where nothing was measured; `oracle` is the file's name.

    Types as in `nagkit.benchmarks.table.Benchmark`; `Named` checks names against `tree`.
    """

    def __init__(self, space, path):
        table = pd.read_csv(path)
        if not {"arch", "dataset", "accuracy"} <= set(table):
            raise NagkitError(f"{path} needs the columns arch, dataset and accuracy")
        self.home, self.space, self.oracle = space, space.name, path.stem
        self.known = {}
        for name, rows in table.groupby("dataset"):
            archs = keys(space.from_string(list(rows.arch)))
            self.known[name] = dict(zip(archs, rows.accuracy, strict=True))
        self.tree = {name: {"test": ("accuracy",)} for name in self.known}

    def query(self, archs, dataset, *, split, metric="accuracy"):
        self.check(dataset, split, metric)
        known = self.known[dataset]
        return np.array([known.get(key, np.nan) for key in keys(checked(self.home, archs))])

    def fidelity(self, dataset, *, split, metric="accuracy"):
        """None: these are measurements."""
        self.check(dataset, split, metric)

    def describe(self):
        count = sum(len(known) for known in self.known.values())
        return f"{self.oracle}: {count} measured networks of {self.space}"


if __name__ == "__main__":
    bench = Measurements(get_space("nb201"), Path(sys.argv[1]))
    archs = bench.home.random(1000, np.random.default_rng(0))
    for name in bench.datasets:
        count = np.isfinite(bench.query(archs, name, split="test")).sum()
        print(f"{bench.oracle}: {count} of 1,000 random cells are known on {name}")
