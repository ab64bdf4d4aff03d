"""Sphinx extension of the book: tables, figures and provenance boxes made from files, so that no number is typed.

Directives: `exhibit`, `exhibit-figures`, `provenance`.
A missing results file becomes a note that says how to make it, never a warning, so the strict build passes on a fresh clone.
"""

import json
from pathlib import Path
from string import ascii_uppercase

import pandas as pd
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from nagkit.study import tidy
from nagkit.study.labels import label
from nagkit.study.tidy import number
from nagkit.study.verify import stale

Cell = str | nodes.Node | list[nodes.Node]
Line = list[Cell]
RECORDED = "paper"
"""The profile whose results the book is built from."""


def spell(entry: pd.Series) -> tuple[str, str]:
    """One result as text: the value, and its spread.

    Ours: ("94.10", "[93.90, 94.30]"), a 95 % interval. Others: ("94.10", "± 0.20"), as printed, or (">500", "").
    """
    value = number(entry.value, entry.unit)
    if entry.hi == float("inf"):
        return f">{value}", ""
    if pd.isna(entry.lo) or pd.isna(entry.hi):
        return value, ""
    if entry.origin != "ours":
        return value, f"± {number((entry.hi - entry.lo) / 2, entry.unit)}"
    return value, f"[{number(entry.lo, entry.unit)}, {number(entry.hi, entry.unit)}]"


def shown(entry: pd.Series, *remarks: str) -> list[nodes.Node]:
    """One result in a cell: its value, below it the spread and the remarks."""
    value, spread = spell(entry)
    return [nodes.Text(value), *(small(text) for text in (spread, ", ".join(filter(None, remarks))) if text)]


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


def results_table(results: pd.DataFrame, metric: str) -> nodes.table:
    """Rows × columns of one metric: value, spread, and n where it varies; every row marked as the paper's or ours."""
    part = results[results.metric == metric]
    varies = part[part.origin == "ours"].n.nunique() > 1
    only_ours = set(part.origin) == {"ours"}  # the caption says it
    columns = list(dict.fromkeys(part.column))
    if all(column.isdecimal() for column in columns):
        columns.sort(key=int)
    body, kinds = [], []
    for row, origin in dict.fromkeys(zip(part.row, part.origin, strict=True)):
        mark = [] if only_ours else [nodes.inline("", origin, classes=["origin", f"origin-{origin}"])]
        line: Line = [[nodes.Text(f"{label(row)} "), *mark]]
        for column in columns:
            hit = part[(part.row == row) & (part.origin == origin) & (part.column == column)]
            if hit.empty:
                line.append("–")
                continue
            entry = hit.iloc[0]
            line.append(shown(entry, f"n = {entry.n:.0f}" if pd.notna(entry.n) and (varies or origin != "ours") else ""))
        body.append(line)
        kinds.append(f"row-{origin}")
    return table(["", *map(label, columns)], body, classes=["exhibit"], row_classes=kinds)


def caption(results: pd.DataFrame, metric: str, profile: str, columns: str = "") -> str:
    """What a reader must know of one metric's table: unit, columns, interval, n, profile, oracle, sources."""
    part = results[results.metric == metric]
    ours = part[part.origin == "ours"]
    unit = next((u for u in part.unit if u), "")
    sources = list(dict.fromkeys(source for source in part[part.origin != "ours"].source if source))
    title = label(metric)
    sentences = [f"{title[:1].upper()}{title[1:]}{f' ({unit})' if unit else ''}{f', by {columns}' if columns else ''}"]
    if len(ours):
        sentences.append(f"Ours: value [95 % interval], {facts(ours, profile)}")
    if sources:
        sentences.append(f"Not ours: value [± the printed spread], from: {'; '.join(sources)}")
    return ". ".join(sentences) + "."


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


class Exhibit(BookDirective):
    """Table(s) of an exhibit, one per metric: all of them, or those named in `:metrics:` (separated by semicolons).

    `:columns:` says in the caption what the columns count. The download link, or the note that there is no recorded run,
    stands once on a page.
    """

    required_arguments = 1
    option_spec = {"metrics": directives.unchanged_required, "columns": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        results, provenance = self.recorded(name)
        seen = self.env.temp_data.setdefault("nagkit-exhibits", set())
        first = name not in seen
        seen.add(name)
        if results is None:
            return [provenance_box(None, name)] if first else []
        known = list(dict.fromkeys(results.metric))
        wanted = [metric.strip() for metric in self.options["metrics"].split(";")] if "metrics" in self.options else known
        profile = (provenance or {}).get("profile", "unknown")
        made: list[nodes.Node] = []
        if first:
            made.append(downloads(self.env, name))
        for metric in wanted:
            if metric not in known:
                raise self.error(f"{name}.csv has no metric {metric!r}; it has: {', '.join(known)}")
            text = caption(results, metric, profile, self.options.get("columns", ""))
            title = nodes.strong("", f"{self.number('Table')}.")
            said = nodes.paragraph("", "", title, nodes.Text(f" {text}"), classes=["exhibit-caption"])
            made += [said, scroll(results_table(results, metric))]
        return made


class ExhibitFigures(BookDirective):
    """Every figure of an exhibit (`NAME.svg`, `NAME_*.svg`; PNG where there is no SVG); the body is the caption."""

    required_arguments = 1
    has_content = True
    option_spec = {"alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        results, provenance = self.recorded(name)
        found = {}
        for suffix in ("png", "svg"):
            for pattern in (f"{name}.{suffix}", f"{name}_*.{suffix}", f"{name}-*.{suffix}"):
                found |= {path.stem: path for path in sorted((self.book / "results").glob(pattern))}
        if results is None or not found:
            return []
        known = facts(results[results.origin == "ours"], (provenance or {}).get("profile", "unknown"))
        made: list[nodes.Node] = []
        numbers = [self.number("Figure") for _ in found]
        for position, path in enumerate(found.values(), start=1):
            number_of = f" ({position} of {len(found)})" if len(found) > 1 else ""
            image = nodes.image(uri=f"/results/{self.watch(path).name}", alt=self.options.get("alt", name) + number_of)
            figure = nodes.figure("", image, classes=["exhibit-figure"])
            if position == len(found):
                names = numbers[0] if len(numbers) == 1 else f"{numbers[0].replace(' ', 's ')} to {numbers[-1].split()[1]}"
                text, messages = self.parse_inline(f"**{names}.** {' '.join(self.content)} Ours: {known}.")
                figure += nodes.caption("", "", *text)
                made += messages
            made.append(figure)
        return made


class Provenance(BookDirective):
    """The provenance box of an exhibit."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return [provenance_box(self.recorded(self.arguments[0])[1], self.arguments[0])]


def setup(app: Sphinx) -> dict:
    """Register everything (Sphinx calls this)."""
    app.add_directive("exhibit", Exhibit)
    app.add_directive("exhibit-figures", ExhibitFigures)
    app.add_directive("provenance", Provenance)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
