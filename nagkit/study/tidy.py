"""Tidy rows: every number of every table and figure is one line of a CSV with these columns."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from nagkit import paths
from nagkit.data import io
from nagkit.errors import NagkitError, unknown
from nagkit.study.labels import label

COLUMNS = ("exhibit", "row", "column", "metric", "value", "lo", "hi", "n", "unit", "origin", "oracle", "source")
TOLERANCE = {"%": 0.4, "count": 2.0, "rank": 2.0, "": 0.03, "ρ": 0.03, "τ": 0.03}
"""How far a number of the quick profile may be from its golden one, by unit: what other processors' rounding explains."""


def paper() -> dict:
    """The contents of data/paper.yaml."""
    return io.read_yaml(paths.DATA / "paper.yaml")


def paper_rows(exhibit: str) -> pd.DataFrame:
    """The paper's verified numbers for `exhibit` as tidy rows of origin "paper".

    A number the paper prints as ">500" has value 500, lo 500 and hi inf. `lo` and `hi` are value ± the printed spread.
    """
    blocks = paper()["exhibits"]
    if exhibit not in blocks:
        raise unknown("exhibit of the paper", exhibit, blocks)
    rows = []
    for block in blocks[exhibit]:
        source = paper()["sources"][block["source"]]
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
                said = (block["metric"], value, lo, hi, block.get("n"), block["unit"])
                rows.append((exhibit, row, column, *said, "paper", "", source))
    return to_frame(rows)


def to_frame(rows: Sequence[tuple]) -> pd.DataFrame:
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
    return to_frame(frame.astype({"value": float, "lo": float, "hi": float, "n": float}).to_numpy(object))


def recorded(path: Path) -> pd.DataFrame:
    """The rows of a results file, with today's numbers of the paper for its exhibit where `data/paper.yaml` has any."""
    frame = read_csv(path)
    if path.stem not in paper()["exhibits"]:
        return frame
    return pd.concat([frame[frame["origin"] != "paper"], paper_rows(path.stem)], ignore_index=True)


def table(frame: pd.DataFrame, metrics: Sequence[str], rows: Sequence[str] | None = None) -> pd.DataFrame:
    """One line a row of the tidy `frame`, a column per (metric, column), in words; the paper's lines say that they are its."""
    chosen = frame[frame["metric"].isin(metrics) & (frame["row"].isin(rows) if rows is not None else True)]
    if chosen.empty:
        raise unknown("metric", ", ".join(metrics), dict.fromkeys(frame["metric"]))
    lines = ["paper: " * (origin == "paper") + label(row) for row, origin in zip(chosen["row"], chosen["origin"], strict=True)]
    cells = chosen.assign(cell=[cell(entry) for entry in chosen.itertuples()], line=lines)
    wide = cells.pivot(index="line", columns=["metric", "column"], values="cell")
    columns = list(cells["column"].unique())
    if all(column.isdecimal() for column in columns):
        columns.sort(key=int)
    order = [(metric, column) for metric in metrics for column in columns if (metric, column) in wide.columns]
    wide = wide.reindex(index=cells["line"].unique(), columns=order).fillna("–")
    wide.columns = pd.MultiIndex.from_tuples([(label(metric), label(column)) for metric, column in order])
    return wide.rename_axis(index=None)


def number(value: float, unit: str) -> str:
    """`value` with the decimals of its unit (percent 2, whole counts 0, ranks 1), else with three significant digits."""
    if pd.isna(value):
        return "–"
    decimals = {"%": 2, "rank": 1, "count": 0 if value == np.round(value) else None}.get(unit)
    if decimals is not None:
        return f"{round(value, decimals) + 0.0:.{decimals}f}"  # no minus before a zero
    return f"{value:.3g}" if not 1e3 <= abs(value) < 1e6 else f"{value:.0f}"


def spelled(entry) -> str:
    """One number inside a sentence: "93.81 % [93.29, 94.34]", the paper's "57.71 % ± 0.20", a difference "+0.88 points"."""
    gap = "difference" in entry.metric or " minus " in entry.row or entry.unit == "points"
    unit = {"%": " points" if gap else " %", "points": " points", "×": "×", "s": " s", "GPU h": " GPU h", "GPU min": " GPU min"}
    decimals = "%" if entry.unit == "points" else entry.unit
    value, lo, hi = (number(one, decimals) for one in (entry.value, entry.lo, entry.hi))
    value = "+" * bool(gap and entry.value > 0) + value + unit.get(entry.unit, "") * pd.notna(entry.value)
    if entry.hi == np.inf:
        return f">{value}"
    if pd.isna(entry.lo) or pd.isna(entry.value) or (lo == hi and entry.origin == "ours"):
        return value
    return f"{value} [{lo}, {hi}]" if entry.origin == "ours" else f"{value} ± {number((entry.hi - entry.lo) / 2, decimals)}"


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


def golden_gaps(frame: pd.DataFrame, known: pd.DataFrame) -> list[str]:
    """Where our rows of `frame` leave those of a golden file, one line each; seconds are not compared."""
    keys = ["row", "column", "metric"]
    ours, theirs = (part[part["unit"] != "s"].set_index(keys) for part in (frame, known))
    if set(ours.index) != set(theirs.index):
        return [f"other rows: {sorted(set(ours.index) ^ set(theirs.index))[:3]}"]
    theirs = theirs.loc[ours.index]
    allowed = ours["unit"].map(TOLERANCE).fillna(0.02 * theirs["value"].abs() + 1e-3)
    near = (ours["value"] - theirs["value"]).abs() <= allowed
    near |= ours["value"].isna() & theirs["value"].isna()
    pairs = zip(ours["value"], theirs["value"], strict=True)
    said = zip(ours.index, pairs, near, strict=True)
    return [f"{' / '.join(key)}: {value:.4g}, golden {golden:.4g}" for key, (value, golden), close in said if not close]
