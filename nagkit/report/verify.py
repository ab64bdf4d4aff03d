"""Whether everything committed is what it was: hashes of all data and results, and the numbers printed against their CSV."""

import html
import json
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from nagkit import paths
from nagkit.data import io
from nagkit.errors import NagkitError
from nagkit.report import exhibits

MANIFEST = "data/manifest.sha256"
"""Hash and path of every committed file of data and results, as `sha256sum` writes and checks it; relative to the checkout."""
_FOLDERS = ("data", "book/results")
_CELL = re.compile(r"^>?(-?\d+(?:\.\d+)?)(?: ± (\d+(?:\.\d+)?))?(?: \((\d+)\))?$")


def write() -> int:
    """Write the manifest of what is here; how many files it lists."""
    found = {name: _hash(name) for name in _files()}
    io.write_text(paths.root() / MANIFEST, "".join(f"{value}  {name}\n" for name, value in found.items()))
    return len(found)


def problems() -> Iterator[str]:
    """What is wrong, one line each: a file that is missing, new or altered, and a printed number that no row of its CSV has.

    `NagkitError` outside a checkout, where there are no results to verify.
    """
    if not (paths.root() / MANIFEST).is_file():
        raise NagkitError(f"there is no {MANIFEST}; verify a checkout of the study, or run `nagkit verify --write`")
    lines = (paths.root() / MANIFEST).read_text(encoding="utf-8").splitlines()
    known = {name: value for value, name in (line.split("  ", 1) for line in lines)}
    here = set(_files())
    for name in sorted(known.keys() | here):
        if name not in here:
            yield f"{name}: missing; restore it"
        elif name not in known:
            yield f"{name}: not in {MANIFEST}"
        elif _hash(name) != known[name]:
            yield f"{name}: its content is not what the manifest says"
    for notebook in sorted((paths.root() / "book" / "results").glob("*.ipynb")):
        yield from _misprints(notebook)


def _files() -> list[str]:
    root = paths.root()
    found = (path for folder in _FOLDERS for path in (root / folder).rglob("*") if path.is_file() and path.suffix != ".md")
    names = sorted(path.relative_to(root).as_posix() for path in found)
    return [name for name in names if name != MANIFEST and not any(part.startswith(".") for part in name.split("/"))]


def _hash(name: str) -> str:
    return sha256((paths.root() / name).read_bytes()).hexdigest()


def _misprints(notebook: Path) -> Iterator[str]:
    """Cells of the tables in an executed notebook that are no row of its CSV, to the digits printed."""
    try:
        rows = exhibits.read_csv(notebook.with_suffix(".csv"))
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (NagkitError, ValueError, KeyError) as error:
        yield f"{notebook.name}: cannot be compared with its CSV: {error}"
        return
    for text in dict.fromkeys(printed for cell in cells for output in cell.get("outputs", []) for printed in _printed(output)):
        if not _is_there(text, rows):
            yield f"{notebook.name}: prints {text!r}, which is no row of {notebook.stem}.csv"


def _printed(output: dict) -> Iterator[str]:
    """The numbers in the tables of one output that are results: a mean, or one with an interval or n."""
    text = "".join(output.get("data", {}).get("text/html", ""))
    if "Provenance" not in text:
        for cell in re.findall(r"<td[^>]*>(.*?)</td>", text, re.DOTALL):
            match = _CELL.match(html.unescape(cell).strip())
            if match and match[3]:
                yield match[0]


def _is_there(text: str, rows: pd.DataFrame) -> bool:
    value, half, n = _CELL.match(text).groups()
    fits = (rows["n"] == int(n)) & _rounds_to(rows["value"], value)
    if half:
        fits &= _rounds_to((rows["hi"] - rows["lo"]) / 2, half)
    return bool(fits.any())


def _rounds_to(values: pd.Series, printed: str) -> np.ndarray:
    digits = len(printed.partition(".")[2])
    return np.abs(values.to_numpy(float) - float(printed)) <= 0.5001 * 10.0**-digits
