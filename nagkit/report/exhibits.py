"""The results contract: every number of every table and figure is one row of a tidy CSV.

An `Exhibit` collects rows, adds the paper's own numbers, makes the table a notebook shows and writes
`<name>.csv`, `<name>.provenance.json` and the figures into the profile's results folder.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from html import escape
from importlib import metadata
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure

import nagkit
from nagkit import cluster, paths
from nagkit.data.io import write_bytes, write_text
from nagkit.errors import NagkitError, unknown
from nagkit.report.statistics import Interval

COLUMNS = ("exhibit", "row", "column", "metric", "value", "lo", "hi", "n", "unit", "origin", "oracle", "source")
_PACKAGES = ("numpy", "scipy", "pandas", "torch", "matplotlib")


# Rows -----------------------------------------------------------------------------------------------------------------


@cache
def _paper() -> dict:
    return yaml.safe_load((paths.DATA / "paper.yaml").read_text(encoding="utf-8"))


def paper_rows(exhibit: str) -> pd.DataFrame:
    """The paper's verified numbers for `exhibit` as tidy rows of origin "paper".

    A number the paper prints as ">500" has value 500, lo 500 and hi inf. `lo` and `hi` are value ± the printed spread.
    """
    blocks = _paper()["exhibits"]
    if exhibit not in blocks:
        raise unknown("exhibit of the paper", exhibit, blocks)
    rows = []
    for block in blocks[exhibit]:
        for row, cells in block["rows"].items():
            for column, cell in zip(block["columns"], cells, strict=True):
                if cell is None:
                    continue
                if isinstance(cell, str):
                    value = lo = float(cell.removeprefix(">"))
                    hi = np.inf
                else:
                    value, half = cell if isinstance(cell, list) else (cell, np.nan)
                    lo, hi = value - half, value + half
                source = _paper()["sources"][block["source"]]
                rows.append(
                    (exhibit, row, column, block["metric"], value, lo, hi, block.get("n"), block["unit"], "paper", "", source)
                )
    return _frame(rows)


def _frame(rows: Sequence[tuple]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"value": float, "lo": float, "hi": float, "n": "Int64"})


def to_csv(frame: pd.DataFrame) -> str:
    """Tidy rows as CSV text: 9 significant digits, Unix line ends."""
    return frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")


def read_csv(path: Path) -> pd.DataFrame:
    """Tidy rows from a CSV that `save` wrote; `NagkitError` when the file is missing or has other columns."""
    if not Path(path).is_file():
        raise NagkitError(f"no results at {path}; run the exhibit's notebook first")
    frame = pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in ("value", "lo", "hi", "n")}, dtype=str)
    if tuple(frame.columns) != COLUMNS:
        raise NagkitError(f"{path} has the columns {', '.join(frame.columns)}; a results file has {', '.join(COLUMNS)}")
    return _frame(frame.astype({"value": float, "lo": float, "hi": float, "n": float}).to_numpy(object))


def table(frame: pd.DataFrame, metrics: Mapping[str, str] | Sequence[str]) -> pd.DataFrame:
    """The table a notebook shows: one line per `row`, one column per (metric, column), cells "mean ± half-width (n)".

    `metrics` maps metric names to headings (a list keeps the names). Units decide the decimals.
    """
    headings = dict(metrics) if isinstance(metrics, Mapping) else {metric: metric for metric in metrics}
    chosen = frame[frame["metric"].isin(headings)]
    cells = chosen.assign(cell=[cell(entry) for entry in chosen.itertuples()], heading=chosen["metric"].map(headings))
    wide = cells.pivot(index="row", columns=["heading", "column"], values="cell")
    columns = list(cells["column"].unique())
    if all(column.isdecimal() for column in columns):
        columns.sort(key=int)
    order = [(heading, column) for heading in headings.values() for column in columns]
    wide = wide.reindex(index=cells["row"].unique(), columns=[key for key in order if key in wide.columns]).fillna("–")
    return wide.rename_axis(index=None, columns=[None, None])


def cell(entry) -> str:
    """One number as text: "94.21 ± 0.11 (5)", ">500" for a bound, without what is unknown."""
    if entry.hi == np.inf:
        return f">{entry.value:g}"
    half = (entry.hi - entry.lo) / 2
    decimals = 2 if entry.unit == "%" else 0 if entry.value % 1 == 0 and not half % 1 > 0 else 1 if entry.unit == "count" else 4
    text = "–" if np.isnan(entry.value) else f"{entry.value:.{decimals}f}"
    if not np.isnan(half):
        text += f" ± {half:.{decimals}f}"
    return text if pd.isna(entry.n) else f"{text} ({entry.n})"


def golden(frame: pd.DataFrame) -> str:
    """Our rows as the CSV of a golden file, whose `source` is the processor that made them."""
    return to_csv(frame[frame["origin"] == "ours"].assign(source=processor()))


def golden_gap(frame: pd.DataFrame, path: Path, *, tolerance: float = 1e-3, ignore: Sequence[str] = ("time",)) -> str:
    """How our rows of `frame` differ from those of a golden file, in one line; "" when they agree.

    Compares value, lo and hi up to `tolerance` (absolute) or a thousandth, except for metrics that end in one of `ignore`.
    Processors add in different orders, which tips over a few draws and, in a search, all that follows from one: on another
    processor than the file's the rows must be the same and nine of ten values agree to a twentieth.
    """
    keys = ["row", "column", "metric"]
    known = read_csv(path)
    ours, theirs = (
        part[(part["origin"] == "ours") & ~part["metric"].str.endswith(tuple(ignore))].set_index(keys)
        for part in (frame, known)
    )
    if set(ours.index) != set(theirs.index):
        return f"other rows than {path.name}: {sorted(set(ours.index) ^ set(theirs.index))[:3]}"
    theirs = theirs.loc[ours.index]
    if set(known["source"]) != {processor()}:
        near = np.isclose(ours["value"], theirs["value"], rtol=0.05, atol=0.05, equal_nan=True)
        far = f"{(~near).sum()} of {len(near)} values are far from {path.name}, of another processor"
        return "" if near.mean() >= 0.9 else far
    numbers = ["value", "lo", "hi"]
    off = ~np.isclose(ours[numbers], theirs[numbers], rtol=1e-3, atol=tolerance, equal_nan=True).all(axis=1)
    return "" if not off.any() else f"{off.sum()} rows differ from {path.name}, first {ours.index[off.argmax()]}"


# Provenance -----------------------------------------------------------------------------------------------------------


def provenance(data: Sequence[Path] = ()) -> dict:
    """The state of code and machine, and the SHA-256 of every file in `data`, as plain JSON values."""
    return {
        "nagkit": nagkit.__version__,
        "commit": commit(),
        "data": {_name(path): sha256(path.read_bytes()).hexdigest() for path in sorted(data)},
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "threads": torch.get_num_threads(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "platform": f"{platform.system()} {platform.machine()}",
    }


def commit() -> str:
    """The checkout's commit, with "+changes" when tracked code or data differ from it; "" outside a git checkout."""
    if not (paths.root() / ".git").exists():
        return ""
    head = _git("rev-parse", "HEAD")
    # the recorded results themselves are written by the run, so they do not count as changes
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)book/results")
    return f"{head}+changes" if head and changed else head


def cpu() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def processor() -> str:
    """What decides how floating-point sums are rounded: the processor's model, and the instructions PyTorch uses on it."""
    return f"{cpu()}, {torch.backends.cpu.get_cpu_capability()}"


def peak_rss_mb() -> float:
    """Most memory that this process has held so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB elsewhere


class Box(dict):
    """A provenance record that a notebook shows as a two-column table."""

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(_flat(value))}</td></tr>" for key, value in self.items())
        return f"<table><caption>Provenance</caption>{rows}</table>"


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item[:12] if isinstance(item, str) else item}" for key, item in value.items()) or "none"
    return str(value)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=paths.root(), capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _name(path: Path) -> str:
    return path.relative_to(paths.DATA).as_posix() if path.is_relative_to(paths.DATA) else path.name


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


# The exhibit ----------------------------------------------------------------------------------------------------------


def by_profile(profile: str, **settings: tuple) -> tuple:
    """The settings of `profile`; `NagkitError` for a profile that has none."""
    if profile not in settings:
        raise unknown("profile", profile, settings)
    return settings[profile]


class Exhibit:
    """Rows of one table or figure of one run.

    `oracle` is where its accuracies come from ("table", "measured", "surrogate", "" when it has none); `data` are the
    files the numbers rest on, hashed into the provenance.
    """

    def __init__(self, name: str, profile: str, *, seed: int = 0, seeds: int = 1, oracle: str = "", data: Sequence[Path] = ()):
        if profile not in paths.PROFILES:
            raise unknown("profile", profile, paths.PROFILES)
        self.name, self.profile, self.oracle = name, profile, oracle
        self._seed, self._seeds, self._data, self._start = seed, seeds, tuple(data), time.perf_counter()
        self._jobs = dict(cluster.tally)
        self._rows: list[tuple] = []

    def add(
        self,
        row: str,
        column: str,
        metric: str,
        value: float | Interval,
        *,
        n: int,
        unit: str,
        source: str = "",
        oracle: str | None = None,
    ) -> None:
        """One number of ours; an `Interval` brings its own bounds. `n` says how many seeds (or draws) it rests on.

        `oracle` is that of this number when it is not the exhibit's.
        """
        interval = value if isinstance(value, Interval) else Interval(float(value), np.nan, np.nan)
        oracle = self.oracle if oracle is None else oracle
        self._rows.append((self.name, row, column, metric, *interval, n, unit, "ours", oracle, source))

    def frame(self, *, paper: bool = True) -> pd.DataFrame:
        """All rows; with `paper`, followed by the paper's own numbers where it prints any."""
        ours = _frame(self._rows)
        known = paper and self.name in _paper()["exhibits"]
        return pd.concat([ours, paper_rows(self.name)], ignore_index=True) if known else ours

    def provenance(self) -> Box:
        """Everything a reader needs to repeat the run; a notebook shows it as a box."""
        run = {"exhibit": self.name, "profile": self.profile, "seed": self._seed, "seeds": self._seeds, "oracle": self.oracle}
        asked, kept = (cluster.tally[key] - self._jobs[key] for key in ("asked", "kept"))
        jobs = {"jobs": {"asked": asked, "finished by an earlier run": kept}} if asked else {}
        seconds = {"seconds": round(time.perf_counter() - self._start, 1)}
        seconds |= {"peak_rss_mb": round(peak_rss_mb())}
        return Box(run | provenance(self._data) | jobs | seconds)

    def save(self, figures: Mapping[str, Figure] | None = None) -> Path:
        """Write CSV, provenance and `figures` (suffix → figure, "" for the exhibit's own) as SVG and PNG; the CSV's path.

        Every file appears whole or not at all. Numbers are written with 9 significant digits, so a rerun of the same
        computation writes the same bytes.
        """
        folder = paths.results(self.profile)
        for suffix, figure in (figures or {}).items():
            stem = "_".join(filter(None, (self.name, suffix)))
            for kind, fixed in (("svg", {"Date": None}), ("png", {"Software": None})):
                content = BytesIO()
                with rc_context({"svg.hashsalt": stem}):
                    figure.savefig(content, format=kind, metadata=fixed)
                write_bytes(folder / f"{stem}.{kind}", content.getvalue())
        write_text(folder / f"{self.name}.provenance.json", json.dumps(self.provenance(), indent=2) + "\n")
        return write_text(folder / f"{self.name}.csv", to_csv(self.frame()))
