"""Exhibits: a table or figure declared as rows × columns × metrics × seeds, run as jobs, and written as tidy numbers.

A notebook declares what its rows are (a `Task` each, with the seeds it is repeated over), what is measured of a run, and
which rows are compared; `Exhibit.run` turns that into jobs, intervals and one tidy table. Every number of every table and
figure is one row of it. Identifiers are short; the words that a reader sees stand in data/labels.yaml.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from nagkit.errors import NagkitError, unknown
from nagkit.study import jobs
from nagkit.study.estimates import Reduce, bootstrap_ci, groups, mean_ci, paired_difference
from nagkit.study.results import Results

PROFILES = ("quick", "paper", "recorded")

Measure = Callable[["Run"], float | Mapping[str, float]]


def sizes(profile: str, *, quick: object, paper: object) -> object:
    """The one of two settings that belongs to `profile`; `recorded` shows what `paper` computed."""
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    return quick if profile == "quick" else paper


class Run(NamedTuple):
    """One finished job of an exhibit, as a measure sees it."""

    row: str
    column: str
    seeds: Mapping[str, int]
    arrays: Mapping[str, np.ndarray]
    valid: np.ndarray
    """The valid architectures among `arrays["archs"]`, int8 `(m, n_slots)`; empty when the job made none."""
    values: np.ndarray
    """What the exhibit's benchmark says of them, float64 `(m,)`."""
    at: object = None
    """The value of the parameter that the row sweeps."""


class _Row(NamedTuple):
    task: jobs.Task
    over: Mapping[str, Sequence[int]]
    columns: Sequence[str]
    sweep: Mapping[str, Sequence[float]]


class _Metric(NamedTuple):
    measure: Measure
    unit: str
    reduce: Reduce
    rows: Sequence[str] | None


class Exhibit:
    """What a table or figure is made of; `run` makes it.

    `columns` are what every row is run for, usually data sets, and `axis` is the parameter of the jobs that takes them (a job
    without it is the same for all columns); where it is several, "oracle acquisition", a column is as many words, "ofa ei".
    `benchmark` answers `query(archs, column, split=split)` for measures that want accuracies; `oracle` is where the numbers
    come from, or says so of every column. `seed` shifts all seeds of `over`, so another `seed` is another, independent study.
    """

    def __init__(
        self, name: str, *, profile: str = "quick", seed: int = 0, columns: Sequence[str] = ("",), axis: str = "dataset",
        benchmark: object = None, split: str = "test", oracle: str | Mapping[str, str] | None = None,
    ):  # fmt: skip
        if profile not in PROFILES:
            raise unknown("profile", profile, PROFILES)
        self.name, self.profile, self.seed, self.columns, self.axis = name, profile, seed, tuple(columns), axis
        self.benchmark, self.split = benchmark, split
        oracle = getattr(benchmark, "oracle", "") if oracle is None else oracle
        self.oracles = dict(oracle) if isinstance(oracle, Mapping) else dict.fromkeys(self.columns, oracle)
        self.oracle = ", ".join(dict.fromkeys(self.oracles.values()))
        self._rows: dict[str, _Row] = {}
        self._metrics: dict[str, _Metric] = {}
        self._pairs: list[tuple[str, str, Sequence[str] | None, bool]] = []

    def row(
        self, name: str, task: jobs.Task, *, over: Mapping[str, Sequence[int]] | None = None,
        columns: Sequence[str] | None = None, sweep: Mapping[str, Sequence[float]] | None = None,
    ) -> None:  # fmt: skip
        """One row: `task` for every column (or those of `columns`) and every combination of the seeds in `over`.

        With `sweep`, a parameter of the job and its values, each value is a column under "COLUMN METRIC".
        The first seed of `over` is the outer one: with more than one value of it, intervals count its values, each first
        averaged over the others, since runs that share a trained predictor are not independent. Otherwise they count runs.
        """
        if name in self._rows:
            raise NagkitError(f"{self.name} has two rows called {name!r}; give one of them another name")
        over, columns = dict(over or {}), self.columns if columns is None else tuple(columns)
        for column in columns:
            if column not in self.columns:
                raise unknown(f"column of {self.name}", column, self.columns)
        known, sweep = inspect.signature(task.function).parameters, dict(sweep or {})
        if len(sweep) > 1:
            raise NagkitError(f"row {name!r} sweeps {' and '.join(sweep)}; sweep one, and make rows of the other's values")
        for parameter in (*over, *sweep):
            if parameter not in known:
                raise NagkitError(f"row {name!r}: {jobs.name_of(task.function)} has no parameter {parameter!r} to repeat over")
        self._rows[name] = _Row(task, over, columns, sweep)

    def metric(
        self, name: str, measure: Measure, *, unit: str, reduce: Reduce = mean_ci,
        rows: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        """One metric: a number of each run in `unit`, or several by name, which become columns under "COLUMN NAME".

        `reduce` makes an `Interval` of the numbers of all runs (default: mean and t interval over the outer seed).
        """
        if name in self._metrics:
            raise NagkitError(f"{self.name} has two metrics called {name!r}; give one of them another name")
        self._metrics[name] = _Metric(measure, unit, reduce, rows)

    def pair(self, row: str, *others: str, metrics: Sequence[str] | None = None, wins: bool = False) -> None:
        """Differences `row` minus each of `others`, in all metrics that are means or in those of `metrics`.

        Paired by the outer seed where both rows have the same, as far as both go; from a row with other seeds its mean is
        subtracted. With `wins` also in how many of the pairs `row` is ahead, ties counting half, as row "A over B".
        """
        for name in (row, *others):
            if name not in self._rows:
                raise unknown(f"row of {self.name}", name, self._rows)
        for metric in metrics or ():
            if metric not in self._metrics:
                raise unknown(f"metric of {self.name}", metric, self._metrics)
        self._pairs += [(row, other, metrics, wins) for other in others]

    def run(
        self, *, n_workers: int = 1, scheduler: str | None = None, progress: bool = True, into: Results | None = None
    ) -> Results:
        """Do the jobs and measure them, `into` the results of another grid of the same exhibit where that is given.

        With the profile `recorded`, read the committed numbers instead.
        """
        results = into or Results(self)
        if results.recorded:
            return results
        results.note([], getattr(self.benchmark, "files", ()))
        results.options = {"n_workers": n_workers, "scheduler": scheduler, "progress": progress}
        keys = [
            (name, column, at, seeds)
            for name, row in self._rows.items()
            for column in row.columns
            for at in next(iter(row.sweep.values()), (None,))
            for seeds in product(*row.over.values())
        ]
        runs: dict[tuple[str, str, object], list[Run]] = {}
        for key, arrays in zip(keys, results.do([self._task(*key) for key in keys]), strict=True):
            runs.setdefault(key[:3], []).append(self._run(*key, arrays))
        results.runs += [run for each in runs.values() for run in each]
        for name, metric in self._metrics.items():
            for (row, _, _), each in runs.items():
                if metric.rows is None or row in metric.rows:
                    self._measure(results, name, metric, each)
        for pair in self._pairs:
            self._compare(results, *pair)
        return results

    def _task(self, name: str, column: str, at: object, seeds: Sequence[int]) -> jobs.Task:
        row, axes = self._rows[name], self.axis.split()
        known = inspect.signature(row.task.function).parameters
        values = zip(axes, column.split() if len(axes) > 1 else [column], strict=True)
        arguments = {axis: value for axis, value in values if axis in known} | dict(row.task.arguments)
        arguments |= dict.fromkeys(row.sweep, at)
        for axis, value in zip(row.over, seeds, strict=True):
            arguments[axis] = value if axis == "training_seed" else 1000 * self.seed + value
        return row.task._replace(arguments=arguments)

    def _run(self, name: str, column: str, at: object, seeds: Sequence[int], arrays: Mapping[str, np.ndarray]) -> Run:
        archs = arrays.get("archs", np.empty((0, 1), np.int8))
        valid = archs[(archs >= 0).any(axis=-1)] if archs.ndim == 2 else archs
        asked = self.benchmark is not None and archs.ndim == 2 and len(valid) > 0
        values = self.benchmark.query(valid, column, split=self.split) if asked else np.empty(0)
        return Run(name, column, dict(zip(self._rows[name].over, seeds, strict=True)), arrays, valid, values, at)

    def _measure(self, results: Results, name: str, metric: _Metric, runs: Sequence[Run]) -> None:
        found, (row, column, at) = [metric.measure(run) for run in runs], (runs[0].row, runs[0].column, runs[0].at)
        if at is not None:
            found = [{f"{at:.9g}": value} for value in found]
        several, outer = isinstance(found[0], Mapping), next(iter(self._rows[row].over.values()), (0,))
        for key in found[0] if several else (column,):
            values = np.array([one[key] for one in found] if several else found, float).reshape(len(outer), -1)
            full = f"{column} {name}".strip() if several else name
            where = {"oracle": self.oracles.get(column), "declared": name}
            results.measured(row, str(key), full, values, metric.unit, metric.reduce, **where)

    def _compare(self, results: Results, row: str, other: str, metrics: Sequence[str] | None, wins: bool) -> None:
        (axis, seeds), (same, others) = (next(iter(self._rows[name].over.items()), ("", ())) for name in (row, other))
        paired = axis == same and all(a == b for a, b in zip(seeds, others, strict=False))
        for (name, metric, column), sample in list(results.samples.items()):
            against = results.samples.get((other, metric, column))
            wanted = sample.reduce is mean_ci and sample.declared in (metrics or self._metrics)
            if name != row or against is None or not wanted:
                continue
            a, b = groups(sample.values), groups(against.values)
            n = min(len(a), len(b)) if paired else len(a)
            gap = paired_difference(a[:n], b[:n]) if paired else mean_ci(a - b.mean())
            said = {"n": n, "oracle": sample.oracle}
            results.add(f"{row} minus {other}", column, f"difference of {metric}", gap, unit=sample.unit, **said)
            if wins and paired:
                chance = bootstrap_ci(50.0 * ((a[:n] > b[:n]) + 1.0 * (a[:n] >= b[:n])))
                results.add(f"{row} over {other}", column, f"wins of {metric}", chance, unit="%", **said)
