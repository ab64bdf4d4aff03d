"""The results of an exhibit: tidy numbers, their verdict and provenance, and the files that are written of them."""

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import nagkit
from nagkit import paths
from nagkit.data import io
from nagkit.errors import NagkitError
from nagkit.study import jobs, tidy
from nagkit.study.estimates import UNKNOWN, Interval, Reduce, groups, mean_ci

REAL = {"table", "ofa", "measured"}
"""Oracles that need a download; golden numbers are of the embedded ones."""


class Sample(NamedTuple):
    """What one number of ours was estimated from: the values of its runs, float64 `(outer seeds, others)`."""

    values: np.ndarray
    unit: str
    reduce: Reduce
    oracle: str | None
    declared: str
    """The metric's name in the declaration, without a column before it."""


class Results:
    """The numbers of one run of an exhibit: `frame` (tidy), `runs`, and small `arrays` that its figures need."""

    def __init__(self, exhibit):
        self.exhibit, self.runs, self.arrays = exhibit, [], {}
        self.options: dict = {}
        """What `jobs.run` is told: workers, scheduler, progress."""
        self.samples: dict[tuple[str, str, str], Sample] = {}
        self._rows: list[tuple] = []
        self._record = {"jobs": 0, "cpu_seconds": 0.0, "peak_rss_mb": 0, "data": {}, "start": time.perf_counter()}
        for key in ("commits", "code", "processors", "threads", "made"):
            self._record[key] = {}
        if self.recorded and self._file("safetensors").is_file():
            self.arrays = io.read_arrays(self._file("safetensors"))[0]

    @property
    def recorded(self) -> bool:
        """Whether these are the committed numbers, shown again: nothing is computed or written then."""
        return self.exhibit.profile == "recorded"

    def do(self, tasks: Sequence[jobs.Task], **options) -> list[dict[str, np.ndarray]]:
        """Run `tasks` that are no row of the grid and enter them into the provenance; the arrays of each."""
        options = self.options | options
        done = jobs.run(tasks, label=self.exhibit.name, **options)
        self.note(done, [path for task in tasks for path in task.files])
        return [dict(one.arrays) for one in done]

    def compute(self, protocol: Callable[..., None], *files: Path, **arguments) -> None:
        """Let `protocol(results, **arguments)`, which reads `files`, add its numbers: what is no grid of rows and columns.

        Its code enters the provenance like a job's. With the profile `recorded` it does nothing.
        """
        if not self.recorded:
            start = time.process_time()
            protocol(self, **arguments)
            self.note([jobs.Done({}, jobs.record(protocol, start))], files)

    def note(self, done: Sequence[jobs.Done], files: Sequence[Path] = ()) -> None:
        """Enter finished jobs and the files they read into the provenance."""
        note = self._record
        for one in {id(one.record): one.record for one in done}.values():
            note["jobs"] += 1
            note["cpu_seconds"] += one["seconds"]
            note["peak_rss_mb"] = max(note["peak_rss_mb"], one["peak_rss_mb"])
            note["code"][one["function"]] = one["code"]
            for key, name in (("commits", "commit"), ("processors", "processor"), ("threads", "threads"), ("made", "made")):
                note[key][one[name]] = None
        note["data"] |= {path: None for path in files}

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
        """One number of ours; an `Interval` brings its own bounds. `n` says how many seeds (or draws) it rests on."""
        if self.recorded:
            return
        interval = value if isinstance(value, Interval) else UNKNOWN._replace(mean=float(value))
        oracle = self.exhibit.oracle if oracle is None else oracle
        self._rows.append((self.exhibit.name, row, column, metric, *interval, n, unit, "ours", oracle, source))

    def measured(
        self, row: str, column: str, metric: str, values: np.ndarray, unit: str, reduce: Reduce = mean_ci, *,
        oracle: str | None = None, declared: str = "",
    ) -> None:  # fmt: skip
        """One number of ours from the values of its runs, float64 `(outer seeds, others)`; see `Sample`."""
        values = np.atleast_2d(np.asarray(values, float))
        self.samples[row, metric, column] = Sample(values, unit, reduce, oracle, declared or metric)
        kept = groups(values) if reduce is mean_ci else values.ravel()
        interval = mean_ci(kept, unit) if reduce is mean_ci else reduce(kept)
        self.add(row, column, metric, interval, n=len(kept), unit=unit, oracle=oracle)

    @property
    def frame(self) -> pd.DataFrame:
        """All rows of ours, followed by the paper's own numbers where it prints any."""
        name = self.exhibit.name
        ours = self._recorded if self.recorded else tidy.to_frame(self._rows)
        return pd.concat([ours, tidy.paper_rows(name)], ignore_index=True) if name in tidy.paper()["exhibits"] else ours

    @cached_property
    def _recorded(self) -> pd.DataFrame:
        frame = tidy.read_csv(self._file("csv"))
        return frame[frame["origin"] != "paper"]

    @property
    def ours(self) -> pd.DataFrame:
        return self.frame.query("origin == 'ours'")

    def number(self, row: str, column: str, metric: str, origin: str = "ours") -> pd.Series:
        """One row of the frame; `NagkitError` when there is none."""
        frame = self.frame
        found = frame[(frame.row == row) & (frame.column == column) & (frame.metric == metric) & (frame.origin == origin)]
        if len(found) != 1:
            raise NagkitError(f"{self.exhibit.name} has {len(found)} numbers of {origin} for {row!r}, {column!r}, {metric!r}")
        return found.iloc[0]

    def table(self, *metrics: str, rows: Sequence[str] | None = None, paper: bool = True) -> pd.DataFrame:
        """The table a notebook shows: a line a row, a column per metric and column, cells "mean ± half-width (n)"."""
        return tidy.table(self.frame if paper else self.ours, metrics, rows)

    def say(self, text: str) -> object:
        """`text` as Markdown, in which `{row | column | metric}` stands for that number with its interval and unit."""
        from IPython.display import Markdown

        def spelled(match: re.Match) -> str:
            row, column, metric, *origin = (" ".join(part.split()) for part in match[1].split("|"))
            return tidy.spelled(self.number(row, column, metric, *origin))

        return Markdown(re.sub(r"\{([^{}]+\|[^{}]+)\}", spelled, text))

    def verdict(self):
        """The judge's verdict on this exhibit's claims, as a box."""
        from nagkit.study import judge

        return judge.box(self.exhibit.name, self.frame, quick=self.exhibit.profile == "quick")

    def provenance(self) -> "Box":
        """Who computed the numbers, from the job files; for the profile `recorded`, what the recorded run said."""
        file = self._file("provenance.json")
        if self.recorded:
            return Box(json.loads(file.read_text("utf-8")) if file.is_file() else {})
        note, exhibit = self._record, self.exhibit
        said = {"exhibit": exhibit.name, "profile": exhibit.profile, "seed": exhibit.seed, "oracle": exhibit.oracle}
        said |= {key: sorted(note[key]) for key in ("commits", "processors", "threads")} | {"code": note["code"]}
        said |= {"made": max(note["made"], default=""), "jobs": note["jobs"], "cpu_seconds": round(note["cpu_seconds"], 1)}
        said |= {"peak_rss_mb": max(note["peak_rss_mb"], round(jobs.peak_rss_mb()))}
        said |= {"seconds": round(time.perf_counter() - note["start"], 1), "nagkit": nagkit.__version__}
        data = {_name(path): sha256(path.read_bytes()).hexdigest() for path in sorted(note["data"])}
        return Box(said | {"data": data} | jobs.machine())

    def save(self, figures: Mapping[str, object] | None = None) -> "Box":
        """Write CSV, provenance, `arrays` and `figures` (suffix → figure, "" for the exhibit's own) as SVG and PNG.

        Returns the provenance, for the notebook to show. Every file appears whole or not at all, and a rerun of the same
        computation writes the same bytes. With the profile `recorded` only the figures are drawn anew.
        """
        from nagkit.study.drawing import rendered

        for suffix, figure in (figures or {}).items():
            stem = "_".join(filter(None, (self.exhibit.name, suffix)))
            for kind in ("svg", "png"):
                io.write_bytes(self._file(kind).with_name(f"{stem}.{kind}"), rendered(figure, stem, kind))
        said = self.provenance()
        if self.exhibit.profile != "recorded":
            io.write_text(self._file("provenance.json"), json.dumps(said, indent=2) + "\n")
            io.write_text(self._file("csv"), tidy.to_csv(self.frame))
            if self.arrays:
                io.write_arrays(self._file("safetensors"), self.arrays)
        return said

    def compare_golden(self) -> str:
        """Compare a quick run on embedded data with its golden numbers; a sentence, or `NagkitError` where they differ.

        Other runs have none and are not compared. With `NAGKIT_GOLDEN=write` the golden file is written instead.
        """
        exhibit, path = self.exhibit, paths.root() / "tests" / "golden" / f"{self.exhibit.name}.csv"
        real = REAL & set(exhibit.oracle.split(", "))
        if (exhibit.profile, exhibit.seed) != ("quick", 0) or real or not path.parent.is_dir():
            return "Not compared with golden numbers: those are of profile quick, seed 0, embedded data."
        if os.environ.get("NAGKIT_GOLDEN") == "write":
            io.write_text(path, tidy.to_csv(self.ours))
        gaps = tidy.golden_gaps(self.ours, tidy.read_csv(path))
        if gaps:
            more = f" and {len(gaps) - 3} more" if len(gaps) > 3 else ""
            raise NagkitError(f"{path.name} differs: {'; '.join(gaps[:3])}{more}; if this is meant: NAGKIT_GOLDEN=write")
        return f"Agrees with {len(self.ours)} golden numbers."

    def _file(self, suffix: str) -> Path:
        profile = "quick" if self.exhibit.profile == "quick" else "paper"
        return paths.results(profile) / f"{self.exhibit.name}.{suffix}"


class Box(dict):
    """A provenance record that a notebook shows as a folded two-column table."""

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(str(key))}</th><td>{escape(_flat(value))}</td></tr>" for key, value in self.items())
        return f"<details><summary>Provenance</summary><table><caption>Provenance</caption>{rows}</table></details>"


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item[:12] if isinstance(item, str) else item}" for key, item in value.items()) or "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _name(path: Path) -> str:
    return path.relative_to(paths.DATA).as_posix() if path.is_relative_to(paths.DATA) else path.name
