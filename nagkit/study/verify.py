"""Whether everything committed is what it was: hashes of all data and results, and the numbers printed against their CSV."""

import html
import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from nagkit import paths
from nagkit.data import io
from nagkit.errors import NagkitError
from nagkit.study import jobs, tidy

MANIFEST = "data/manifest.sha256"
"""Hash and path of every committed file of data and results, as `sha256sum` writes and checks it; relative to the checkout."""
_FOLDERS = ("data", "book/results")
BOOK = "_build/html"
"""The built book, whose pages are compared with the results where there is one."""
_CELL = re.compile(r"^>?(-?\d+(?:\.\d+)?)(?: ± (\d+(?:\.\d+)?))?(?: \((\d+)\))?$")
_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?"
_INTERVAL = re.compile(rf"({_NUMBER})(?: %|×| points| s)? \[({_NUMBER}), ({_NUMBER})\]")


def write() -> int:
    """Write the manifest of what is here; how many files it lists."""
    found = {name: _hash(name) for name in _files()}
    io.write_text(paths.root() / MANIFEST, "".join(f"{value}  {name}\n" for name, value in found.items()))
    return len(found)


def problems(*, book: bool = True) -> Iterator[str]:
    """What is wrong, one line each: a file that is missing, new or altered, and a printed number that no row of its CSV has.

    Printed in the tables of executed notebooks and, with `book`, on the pages of the built book, if there is one.
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
    if book:
        yield from _misprinted_pages()


def notices() -> Iterator[str]:
    """Recorded exhibits that another version of the code computed, one line each: no damage, but to be recorded again."""
    for path in sorted((paths.root() / "book" / "results").glob("*.provenance.json")):
        if why := stale(json.loads(path.read_text(encoding="utf-8"))):
            yield f"{path.name.removesuffix('.provenance.json')}: {why}"


def stale(record: Mapping) -> str:
    """Why a provenance record does not vouch for today's code; "" when the code of all its jobs is what it was."""
    if "code" not in record:
        return "recorded before code digests were kept"
    changed = [function.rpartition(".")[2] for function, known in record["code"].items() if _digest(function) != known]
    return f"stale: computed by another version of the code ({', '.join(changed)})" if changed else ""


def _digest(function: str) -> str:
    try:
        return jobs.digest(function)
    except NagkitError:  # its module is not here any more
        return ""


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
        rows = tidy.recorded(notebook.with_suffix(".csv"))
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


def _misprinted_pages() -> Iterator[str]:
    """Numbers with an interval on the pages of the built book that no row of a results CSV has."""
    built, root = paths.root() / BOOK, paths.root()
    if not built.is_dir():
        return
    rows = _rows(root / "book" / "results")
    for page in sorted(built.rglob("*.html")):
        name, article = page.relative_to(built).as_posix(), page.read_text(encoding="utf-8").partition("<article")[2]
        known = pd.concat([rows, _rows(root / "results" / "quick")]) if name == "your-run.html" else rows
        for text, *numbers in dict.fromkeys((match[0], *match.groups()) for match in _INTERVAL.finditer(_text(article))):
            if not _agrees(known, *numbers):
                yield f"{name}: prints {text!r}, which is no row of any results; build the book again"


def _rows(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.DataFrame(), *(tidy.recorded(path) for path in sorted(folder.glob("*.csv")))])


def _text(markup: str) -> str:
    """What a reader sees of `markup`, runs of spaces as one."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def _agrees(rows: pd.DataFrame, *printed: str) -> bool:
    """Whether one of `rows` has these numbers (value, lo, hi), to the digits printed."""
    fits = [_rounds_to(rows[column], text) for column, text in zip(("value", "lo", "hi"), printed, strict=True)]
    return bool(np.logical_and.reduce(fits).any())


def _rounds_to(values: pd.Series, printed: str) -> np.ndarray:
    return np.abs(values.to_numpy(float) - float(printed)) <= 0.5001 * 10.0 ** Decimal(printed).as_tuple().exponent
