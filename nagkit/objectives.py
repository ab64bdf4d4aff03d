"""From a column of the benchmark, or a user's own measurements, to something that guides: `nagkit sample --objective`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from nagkit.benchmarks.table import Benchmark, open_benchmark
from nagkit.errors import NagkitError, unknown
from nagkit.predictors import objective
from nagkit.rng import numpy_stream
from nagkit.spaces.base import DEFAULT, SearchSpace, get_space, is_listed, keys

PAIRS = 100
"""Random architectures that are looked up when the objective is a column of the benchmark."""

PENALTY = 10.0
"""Deviations of the accuracy score that one deviation of the cost beyond a limit is worth."""

_UNITS = {"latency": "ms", "energy": "mJ"}


class Objective(NamedTuple):
    """What was measured, and the predictor fitted to it."""

    name: str
    unit: str
    minimise: bool
    fitted: objective.Fitted
    archs: np.ndarray
    """Measured architectures, int8 `(n, n_slots)`."""
    values: np.ndarray
    """float64 `(n,)`"""

    def describe(self) -> str:
        """One line: what was fitted to what, and how well it ranks what it has not seen."""
        agreement = self.fitted.agreement
        held = "" if np.isnan(agreement) else f", Spearman {agreement:.2f} with {len(self.values) // 5} held-out pairs"
        return f"{self.name}: {self.fitted.model} model of {len(self.values)} measured cells{held}"


def load(
    spec: str, *, space: str | SearchSpace = DEFAULT, pairs: int = PAIRS, seed: int = 0, minimise: bool = False,
    oracle: str = "auto",
) -> Objective:  # fmt: skip
    """The objective that `spec` names.

    A file name ending in .csv: a user's pairs `arch,value`. "latency:DEVICE" or "energy:DEVICE", or the name of any column
    of the benchmark ("apgd_ce_eps1.0", or in full "cifar100/test/fog_sev2"; CIFAR-10 test without a data set): that column at
    `pairs` random architectures. Costs are minimised; a user's values are if `minimise`.
    """
    space = get_space(space)
    if spec.endswith(".csv"):
        archs, values = read_pairs(Path(spec), space)
        name, unit = Path(spec).stem, ""
    else:
        bench = open_benchmark(space, oracle)
        dataset, split, name = _column(spec, bench)
        column = bench.column(dataset, split=split, metric=name)
        known = np.flatnonzero(np.isfinite(column))
        if not objective.FEWEST <= pairs <= len(known):
            raise NagkitError(f"pairs must be {objective.FEWEST} to {len(known)} cells with a value of {name}, got {pairs}")
        rows = numpy_stream(seed, f"objective/{dataset}/{name}").choice(known, pairs, replace=False)
        archs, values, unit = space.all()[rows], column[rows], _UNITS.get(name.split("_")[0], "%")
        minimise = minimise or unit != "%"
    return Objective(name, unit, minimise, objective.fit(archs, values, seed=seed), archs, values)


def _column(spec: str, bench: Benchmark) -> tuple[str, str, str]:
    if spec.count("/") == 2:
        dataset, split, metric = spec.split("/")
        bench.column(dataset, split=split, metric=metric)
        return dataset, split, metric
    metric = spec.replace(":", "_", 1)
    metrics = bench.metrics("cifar10", split="test")
    if metric not in metrics:
        raise unknown("objective", spec, [m.replace("_", ":", 1) if m.split("_")[0] in _UNITS else m for m in metrics])
    return "cifar10", "test", metric


def read_pairs(path: Path, space: str | SearchSpace = DEFAULT, *, failures: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Architectures int8 `(n, n_slots)` and values float64 `(n,)` of a CSV `arch,value`; equal rows count once.

    Raises `NagkitError` for a file that is no such CSV, an unknown architecture, a value that is not a finite number, one with
    two values, too few and values that are all equal; rows are numbered from 1 below the header. With `failures` an empty value
    is a failed evaluation, NaN, and any number of rows will do.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except OSError as error:
        raise NagkitError(f"cannot read {path}: {error.strerror or error}") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise NagkitError(f"{path} is not a CSV file: {error}") from None
    if not {"arch", "value"} <= set(frame):
        raise NagkitError(f"{path} needs the columns arch and value, found {', '.join(frame)}")
    values = pd.to_numeric(frame["value"], errors="coerce").to_numpy(float)
    known = np.isfinite(values) | (failures & frame["value"].str.lower().isin(("", "nan")).to_numpy())
    if not known.all():
        row = int(np.argmin(known))
        raise NagkitError(f"{path}, row {row + 1}: value {frame['value'][row]!r} is not a finite number; leave the row out")
    try:
        archs = get_space(space).from_string(list(frame["arch"]))
        _, first, which = np.unique(keys(archs), return_index=True, return_inverse=True)
        other = np.flatnonzero((values != values[first[which]]) & ~(np.isnan(values) & np.isnan(values[first[which]])))
        if len(other):
            row, before = other[0], first[which][other[0]]
            two = f"{values[before]:g} and {values[row]:g}"
            raise NagkitError(f"rows {before + 1} and {row + 1} give one architecture two values, {two}; keep one")
        kept = np.sort(first)
        if not failures:
            objective.check(archs[kept], values[kept])
    except NagkitError as error:
        raise NagkitError(f"{path}: {error}") from None
    return archs[kept], values[kept]


def parse_limit(text: str, unit: str) -> float:
    """The number in "5ms", "5 ms" or "5"; `NagkitError` for another unit than the objective's or no number."""
    match = re.fullmatch(r"\s*([+-]?[0-9.]+(?:e[+-]?\d+)?)\s*(\D*?)\s*", text, re.IGNORECASE)
    try:
        number = float(match[1]) if match else float("nan")
    except ValueError:
        number = float("nan")
    if not np.isfinite(number) or (match[2] and match[2] != unit):
        raise NagkitError(f"limit {text!r} is not a number of {unit or 'the unit of the values'}; for example {5:g}{unit}")
    return number


def aim(
    target: Objective, *, accuracy: Callable | None = None, weight: float = 1.0, limit: float | None = None
) -> tuple[Callable, str]:
    """What guidance differentiates, `(x, sigma) → (B,)`, and a warning ("" when there is none).

    Without `limit`, the objective's score, negative for a cost; with `accuracy`, that score plus `weight` times it. With
    `limit`, in the objective's unit, the score of `accuracy` (or none) less a penalty for what a cell is predicted to be on
    the wrong side of the limit. Raises `NagkitError` when no cell is predicted to keep the limit.
    """
    score, sign = target.fitted.predictor, -1.0 if target.minimise else 1.0
    if not 0 <= weight < np.inf:
        raise NagkitError(f"weight must be a finite number >= 0, got {weight}")
    if limit is None:
        if accuracy is None:
            return lambda x, sigma: sign * score(x, sigma), ""
        return lambda x, sigma: accuracy(x, sigma) + weight * sign * score(x, sigma), ""
    space = score.space
    everywhere = space.all() if is_listed(space) else space.random(5_000, numpy_stream(0, "objective/limit"))
    predicted = target.fitted.value(everywhere)
    keeps = sign * predicted >= sign * limit
    if not keeps.any():
        best = (predicted * sign).max() * sign
        raise NagkitError(
            f"no cell is predicted to keep {target.name} {'below' if target.minimise else 'above'} {limit:g} {target.unit}: "
            f"the best is predicted at {best:.4g}, the best measured {(target.values * sign).max() * sign:.4g}; relax the limit"
        )
    warning = f"{target.name}: every cell is predicted to keep the limit {limit:g} {target.unit}" if keeps.all() else ""
    bound = target.fitted.score(limit)

    def penalised(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        beyond = torch.relu(sign * (bound - score(x, sigma)))
        return (accuracy(x, sigma) if accuracy else 0.0) - PENALTY * beyond

    return penalised, warning
