"""A benchmark of one's own: accuracies that were measured elsewhere, in a CSV file with the columns `arch,dataset,accuracy`."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from nagkit.errors import NagkitError, unknown
from nagkit.spaces.base import SearchSpace, checked, get_space, keys


class Measurements:
    """Test accuracies in percent of the networks in a file, NaN for others; `oracle` is the file's name."""

    def __init__(self, space: SearchSpace, path: Path):
        table = pd.read_csv(path)
        if not {"arch", "dataset", "accuracy"} <= set(table):
            raise NagkitError(f"{path} needs the columns arch, dataset and accuracy, found {', '.join(table)}")
        self.space, self.oracle, self._home = space.name, path.stem, space
        self._known = {
            name: dict(zip(keys(space.from_string(list(rows.arch))), rows.accuracy, strict=True))
            for name, rows in table.groupby("dataset")
        }

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(self._known)

    def splits(self, dataset: str) -> tuple[str, ...]:
        if dataset not in self._known:
            raise unknown("data set", dataset, self._known)
        return ("test",)

    def metrics(self, dataset: str, *, split: str) -> tuple[str, ...]:
        if split not in self.splits(dataset):
            raise unknown(f"split of {dataset}", split, self.splits(dataset))
        return ("accuracy",)

    def query(self, archs: np.ndarray, dataset: str, *, split: str, metric: str = "accuracy") -> np.ndarray:
        if metric not in self.metrics(dataset, split=split):
            raise unknown(f"metric of {dataset}/{split}", metric, self.metrics(dataset, split=split))
        known = self._known[dataset]
        return np.array([known.get(key, np.nan) for key in keys(checked(self._home, archs))], float)

    def fidelity(self, dataset: str, *, split: str, metric: str = "accuracy") -> None:
        """None: these are measurements."""
        self.metrics(dataset, split=split)

    def describe(self) -> str:
        return f"{self.oracle}: {sum(map(len, self._known.values()))} measured networks of {self.space}; others have no value"


if __name__ == "__main__":
    space = get_space("nb201")
    bench = Measurements(space, Path(sys.argv[1]))
    print(bench.describe())
    for dataset in bench.datasets:
        values = bench.query(space.random(1000, np.random.default_rng(0)), dataset, split="test")
        print(f"{dataset}: {np.isfinite(values).sum()} of 1,000 random cells known ({bench.oracle})")
