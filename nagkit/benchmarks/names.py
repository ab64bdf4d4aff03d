"""What an oracle knows by name: data sets, their splits, and the metrics of each."""

from nagkit.errors import unknown


class Named:
    """Names of an oracle's figures: `tree[dataset][split]` lists metrics; a `kind` of data set is what errors call it."""

    space: str
    oracle: str
    tree: dict[str, dict[str, tuple[str, ...]]]
    kind = "data set"

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(self.tree)

    def splits(self, dataset: str) -> tuple[str, ...]:
        """The splits of a data set; `NagkitError` for one that is not known, here and below."""
        if dataset not in self.tree:
            raise unknown(self.kind, dataset, self.tree)
        return tuple(self.tree[dataset])

    def metrics(self, dataset: str, *, split: str) -> tuple[str, ...]:
        """The metrics of a split."""
        if split not in self.splits(dataset):
            raise unknown(f"split of {dataset}", split, self.tree[dataset])
        return tuple(self.tree[dataset][split])

    def check(self, dataset: str, split: str, metric: str) -> None:
        """Raise `NagkitError` unless there is such a figure."""
        if metric not in self.metrics(dataset, split=split):
            raise unknown(f"metric of {dataset}/{split} ({self.oracle})", metric, self.tree[dataset][split])
