"""What the book's Sphinx extensions share: tables, provenance boxes and links made from files, so that no number is typed."""

import json
from pathlib import Path
from string import ascii_uppercase

import pandas as pd
from docutils import nodes
from sphinx import addnodes
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from nagkit.study import tidy
from nagkit.study.verify import stale

Cell = str | nodes.Node | list[nodes.Node]
Line = list[Cell]
RECORDED = "paper"
"""The profile whose results the book is built from."""


def counts(rows: pd.DataFrame) -> str:
    """`n = 5` or `n = 3 to 20`: what the numbers of `rows` were averaged over."""
    n = rows.n.dropna()
    if n.empty:
        return "n not stated"
    return f"n = {n.min():.0f}" if n.min() == n.max() else f"n = {n.min():.0f} to {n.max():.0f}"


def facts(rows: pd.DataFrame, profile: str) -> str:
    """What every caption must say of numbers of ours: n, profile, oracle."""
    oracles = {name for named in rows.oracle for name in named.split(", ")} - {""}
    return f"{counts(rows)}, profile {profile}, oracle {', '.join(sorted(oracles)) or 'none'}"


def read_results(path: Path) -> pd.DataFrame | None:
    """The tidy table at `path`; None when there is no such file."""
    return tidy.recorded(path) if path.is_file() else None


def read_provenance(path: Path) -> dict | None:
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def table(header: Line, rows: list[Line], *, classes: list[str], row_classes: list[str] | None = None) -> nodes.table:
    def fill(cells: Line, kind: str) -> nodes.row:
        row = nodes.row(classes=[kind] if kind else [])
        for cell in cells:
            content = [nodes.Text(cell)] if isinstance(cell, str) else cell if isinstance(cell, list) else [cell]
            row += nodes.entry("", nodes.paragraph("", "", *content))
        return row

    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in header), cols=len(header))
    group += nodes.thead("", fill(header, ""))
    group += nodes.tbody("", *(fill(row, kind) for row, kind in zip(rows, row_classes or [""] * len(rows), strict=True)))
    return nodes.table("", group, classes=["nagkit-table", *classes])


def scroll(table: nodes.table) -> nodes.container:
    return nodes.container("", table, classes=["nagkit-scroll"])


def note(*parts: str | nodes.Node, classes: tuple[str, ...] = ()) -> nodes.note:
    content = [nodes.Text(part) if isinstance(part, str) else part for part in parts]
    return nodes.note("", nodes.paragraph("", "", *content), classes=list(classes))


def small(text: str) -> nodes.inline:
    return nodes.inline("", text, classes=["count"])


def code(text: str) -> nodes.literal:
    return nodes.literal(text, text)


def provenance_box(record: dict | None, exhibit: str) -> nodes.Element:
    """How a result was made; colour and title tell a recorded run from any other, and from one of another code than today's."""
    if record is None:
        return note(
            "No recorded run of this exhibit yet. ", code(f"make paper-{exhibit}"), " makes one; ", code(f"make {exhibit}"),
            " gives a quick look.", classes=("provenance", "provenance-missing"),
        )  # fmt: skip
    profile = str(record.get("profile", "unknown"))
    recorded, old = profile == RECORDED, stale(record)
    title = "Provenance: recorded run" if recorded else f"Provenance: NOT the recorded run (profile {profile})"
    kind = ("provenance-stale" if old else "provenance-recorded") if recorded else "provenance-preview"
    title += f", {old}" if old else ""
    box = nodes.admonition("", nodes.title("", title), classes=["admonition", "provenance", kind, *(["dropdown"] * recorded)])
    rows: list[Line] = [[_words(key), _flat(value)] for key, value in record.items()]
    box += table(["", ""], rows, classes=["headless"])
    return box


def _words(key: str) -> str:
    return str(key).replace("_", " ")


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{_words(key)} {_flat(item)}" for key, item in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(map(_flat, value)) or "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    is_hash = len(text) >= 40 and all(c in "0123456789abcdef" for c in text)
    return text[:12] + "…" if is_hash else text or "–"


class BookDirective(SphinxDirective):
    """A directive that reads files beside the book and has its page rebuilt when they change."""

    @property
    def book(self) -> Path:
        return Path(self.env.srcdir)

    def watch(self, path: Path) -> Path:
        self.env.note_dependency(str(path))
        return path

    def recorded(self, exhibit: str) -> tuple[pd.DataFrame | None, dict | None]:
        folder = self.book / "results"
        return (
            read_results(self.watch(folder / f"{exhibit}.csv")),
            read_provenance(self.watch(folder / f"{exhibit}.provenance.json")),
        )

    def number(self, kind: str) -> str:
        """The next of this page's tables or figures, "Table A": letters, since "Table 2" is the paper's everywhere."""
        seen = self.env.temp_data.setdefault("nagkit-captions", {})
        seen[kind] = seen.get(kind, 0) + 1
        tens, ones = divmod(seen[kind] - 1, 26)
        return f"{kind} {ascii_uppercase[tens - 1] if tens else ''}{ascii_uppercase[ones]}"


def downloads(env: BuildEnvironment, exhibit: str) -> nodes.Node:
    """Links to the CSV of an exhibit, and to its notebook as it was run (on other pages) and as it is committed."""
    book, executed = Path(env.srcdir), f"results/{exhibit}"
    parts: list[nodes.Node] = [_file(env, f"/{executed}.csv", f"{exhibit}.csv: every number of this exhibit as a file")]
    if executed in env.found_docs and executed != env.docname:
        target = env.app.builder.get_relative_uri(env.docname, executed)
        parts.append(nodes.reference("", "the executed notebook", refuri=target, internal=True))
    if (book.parent / "notebooks" / f"{exhibit}.ipynb").is_file():
        parts.append(_file(env, f"/../notebooks/{exhibit}.ipynb", "the notebook"))
    between = [node for part in parts for node in (nodes.Text(" · "), part)]
    return nodes.paragraph("", "", *between[1:], classes=["download"])


def _file(env: BuildEnvironment, path: str, text: str) -> nodes.Node:
    return addnodes.download_reference("", "", nodes.Text(text), reftarget=path, refdoc=env.docname, refdomain="")
