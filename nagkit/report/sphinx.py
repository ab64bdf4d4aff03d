"""Sphinx extension of the book: tables, figures, provenance boxes and maps made from files, so that no number is typed.

Directives: `exhibit`, `exhibit-figures`, `provenance`, `your-run`, `exhibit-map`, `data-registry`, `cells`.
A missing results file becomes a note that says how to make it, never a warning, so the strict build passes on a fresh clone.
"""

import json
from html import escape
from io import StringIO
from pathlib import Path

import pandas as pd
import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

Cell = str | nodes.Node | list[nodes.Node]
Line = list[Cell]
DECIMALS = {"%": 2, "count": 0, "rank": 1}
RECORDED = "paper"
"""The profile whose results the book is built from."""


def number(value: float, unit: str) -> str:
    """`value` with the decimals of its unit (percent 2, counts 0), else with four significant digits."""
    if pd.isna(value):
        return "–"
    if unit in DECIMALS and not (DECIMALS[unit] == 0 and value != round(value)):
        return f"{value:.{DECIMALS[unit]}f}"
    return f"{value:.4g}"


def spell(entry: pd.Series) -> str:
    """One result as text: value, and its 95 % interval when there is one; `>500` when only a lower bound is known."""
    text = number(entry.value, entry.unit)
    if entry.hi == float("inf"):
        return f">{text}"
    if pd.notna(entry.lo) and pd.notna(entry.hi):
        text += f" [{number(entry.lo, entry.unit)}, {number(entry.hi, entry.unit)}]"
    return text


def counts(rows: pd.DataFrame) -> str:
    """`n = 5` or `n = 3 to 20`: what the numbers of `rows` were averaged over."""
    n = rows.n.dropna()
    if n.empty:
        return "n not stated"
    return f"n = {n.min():.0f}" if n.min() == n.max() else f"n = {n.min():.0f} to {n.max():.0f}"


def read_results(path: Path) -> pd.DataFrame | None:
    """The tidy table at `path`, text columns without missing values; None when there is no such file."""
    if not path.is_file():
        return None
    table = pd.read_csv(path, dtype={name: str for name in ("row", "column", "metric", "unit", "origin", "oracle", "source")})
    text = table.select_dtypes(exclude="number").columns
    return table.assign(**{name: table[name].fillna("") for name in text if name not in ("value", "lo", "hi", "n")})


def read_provenance(path: Path) -> dict | None:
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def _table(header: Line, rows: list[Line], *, classes: list[str], row_classes: list[str] | None = None) -> nodes.table:
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


def _scroll(table: nodes.table) -> nodes.container:
    return nodes.container("", table, classes=["nagkit-scroll"])


def _note(*parts: str | nodes.Node, classes: tuple[str, ...] = ()) -> nodes.note:
    content = [nodes.Text(part) if isinstance(part, str) else part for part in parts]
    return nodes.note("", nodes.paragraph("", "", *content), classes=list(classes))


def _code(text: str) -> nodes.literal:
    return nodes.literal(text, text)


def results_table(results: pd.DataFrame, metric: str) -> nodes.table:
    """Rows × columns of one metric: value [95 % interval] and n; rows of the paper and ours apart and marked."""
    part = results[results.metric == metric]
    columns = list(dict.fromkeys(part.column))
    keys = list(dict.fromkeys(zip(part.row, part.origin, strict=True)))
    body, kinds = [], []
    for row, origin in keys:
        line: Line = [row, nodes.inline("", origin, classes=["origin", f"origin-{origin}"])]
        for column in columns:
            hit = part[(part.row == row) & (part.origin == origin) & (part.column == column)]
            if hit.empty:
                line.append("–")
                continue
            entry = hit.iloc[0]
            n = f"n = {entry.n:.0f}" if pd.notna(entry.n) else ""
            line.append([nodes.Text(spell(entry)), nodes.inline("", n, classes=["count"])])
        body.append(line)
        kinds.append(f"row-{origin}")
    return _table(["", "origin", *columns], body, classes=["exhibit"], row_classes=kinds)


def caption(results: pd.DataFrame, metric: str, profile: str) -> str:
    """What a reader must know of one metric's table: unit, interval, n, profile, oracle, sources."""
    part = results[results.metric == metric]
    ours = part[part.origin == "ours"]
    unit = next((u for u in part.unit if u), "")
    oracles = sorted(set(ours.oracle) - {""})
    sources = list(dict.fromkeys(source for source in part[part.origin != "ours"].source if source))
    sentences = [f"{metric}{f' ({unit})' if unit else ''}: value [95 % interval]"]
    if len(ours):
        sentences.append(f"Ours: {counts(ours)}, profile {profile}, oracle {', '.join(oracles) or 'none'}")
    if sources:
        sentences.append(f"Numbers that are not ours: {'; '.join(sources)}")
    return ". ".join(sentences) + "."


def provenance_box(record: dict | None, exhibit: str) -> nodes.Element:
    """How a result was made, as an admonition whose colour and title tell the recorded run from any other."""
    if record is None:
        return _note(
            "No recorded run of this exhibit yet. ", _code(f"make paper-{exhibit}"), " makes one; ", _code(f"make {exhibit}"),
            " gives a quick look.", classes=("provenance", "provenance-missing"),
        )  # fmt: skip
    profile = str(record.get("profile", "unknown"))
    recorded = profile == RECORDED
    title = "Provenance: recorded run" if recorded else f"Provenance: NOT the recorded run (profile {profile})"
    kind = "provenance-recorded" if recorded else "provenance-preview"
    box = nodes.admonition("", nodes.title("", title), classes=["admonition", "provenance", kind, *(["dropdown"] * recorded)])
    rows: list[Line] = [[_words(key), _flat(value)] for key, value in record.items()]
    box += _table(["", ""], rows, classes=["headless"])
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


def compare(quick: pd.DataFrame, recorded: pd.DataFrame | None) -> nodes.table:
    """This machine's numbers beside the recorded ones, one line per number, and whether the intervals overlap."""
    keys = ["row", "column", "metric"]
    ours = quick[quick.origin == "ours"].drop_duplicates(keys)
    known = [] if recorded is None else [entry for _, entry in recorded[recorded.origin == "ours"].iterrows()]
    index = {tuple(entry[keys]): entry for entry in known}
    rows: list[Line] = []
    for _, entry in ours.iterrows():
        other = index.get(tuple(entry[keys]))
        unit = f" ({entry.unit})" if entry.unit else ""
        rows.append(
            [entry.row, entry.column, entry.metric + unit]
            + [_with_n(entry), "–" if other is None else _with_n(other), "–" if other is None else _overlap(entry, other)]
        )
    return _table(["", "", "metric", "this machine", "recorded", "intervals"], rows, classes=["exhibit"])


def _with_n(entry: pd.Series) -> str:
    return spell(entry) + (f", n = {entry.n:.0f}" if pd.notna(entry.n) else "") + (f", {entry.oracle}" if entry.oracle else "")


def _overlap(a: pd.Series, b: pd.Series) -> str:
    if pd.isna([a.lo, a.hi, b.lo, b.hi]).any():
        return "–"
    return "overlap" if a.lo <= b.hi and b.lo <= a.hi else "apart"


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

    def download(self, path: str, text: str) -> nodes.Node:
        target = addnodes.download_reference("", "", nodes.Text(text), reftarget=path, refdoc=self.env.docname, refdomain="")
        return nodes.paragraph("", "", target, classes=["download"])


class Exhibit(BookDirective):
    """Table(s) of an exhibit: one per metric, or only the metrics named in `:metrics:` (separated by semicolons)."""

    required_arguments = 1
    option_spec = {"metrics": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        results, provenance = self.recorded(name)
        if results is None:
            return [provenance_box(None, name)]
        known = list(dict.fromkeys(results.metric))
        wanted = [metric.strip() for metric in self.options["metrics"].split(";")] if "metrics" in self.options else known
        profile = (provenance or {}).get("profile", "unknown")
        made: list[nodes.Node] = []
        for metric in wanted:
            if metric not in known:
                raise self.error(f"{name}.csv has no metric {metric!r}; it has: {', '.join(known)}")
            made += [nodes.paragraph("", caption(results, metric, profile), classes=["exhibit-caption"])]
            made += [_scroll(results_table(results, metric))]
        return [*made, self.download(f"/results/{name}.csv", f"{name}.csv: these numbers as a file")]


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
        ours = results[results.origin == "ours"]
        facts = f" {counts(ours).capitalize()}, profile {(provenance or {}).get('profile', 'unknown')}"
        facts += f", oracle {', '.join(sorted(set(ours.oracle) - {''})) or 'none'}."
        made: list[nodes.Node] = []
        for position, path in enumerate(found.values(), start=1):
            number_of = f" ({position} of {len(found)})" if len(found) > 1 else ""
            image = nodes.image(uri=f"/results/{self.watch(path).name}", alt=self.options.get("alt", name) + number_of)
            figure = nodes.figure("", image, classes=["exhibit-figure"])
            if position == len(found):
                text, messages = self.parse_inline(" ".join(self.content) + facts)
                figure += nodes.caption("", "", *text)
                made += messages
            made.append(figure)
        return made


class Provenance(BookDirective):
    """The provenance box of an exhibit."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return [provenance_box(self.recorded(self.arguments[0])[1], self.arguments[0])]


class YourRun(BookDirective):
    """This machine's quick numbers beside the recorded ones, for every exhibit that has been run."""

    def run(self) -> list[nodes.Node]:
        folder = self.watch(self.book.parent / "results" / "quick")
        tables = sorted(folder.glob("*.csv")) if folder.is_dir() else []
        if not tables:
            return [_note("Nothing has been run on this machine yet. ", _code("make reproduce"),
                          " runs every notebook in its quick profile and rebuilds the book.")]  # fmt: skip
        made: list[nodes.Node] = []
        for path in tables:
            quick, (recorded, _) = read_results(self.watch(path)), self.recorded(path.stem)
            made += [nodes.rubric("", "", _code(path.stem)), _scroll(compare(quick, recorded))]
            made += [provenance_box(read_provenance(self.watch(path.with_suffix(".provenance.json"))), path.stem)]
        return made


class ExhibitMap(BookDirective):
    """Every exhibit of the paper from `book/exhibits.yaml`, its status read off the results files."""

    def run(self) -> list[nodes.Node]:
        exhibits = yaml.safe_load(self.watch(self.book / "exhibits.yaml").read_text("utf-8"))
        rows, kinds = [], []
        for item in exhibits:
            status = self.status(item)
            name: Cell = item["paper"]
            if "page" in item:
                target = self.env.app.builder.get_relative_uri(self.env.docname, item["page"])
                name = nodes.reference("", item["paper"], refuri=target, internal=True)
            rows.append([name, item["shows"], item["oracle"], nodes.inline("", status, classes=["status"])])
            kinds.append(f"status-{status.split()[0].rstrip(',')}")
        header: Line = ["exhibit", "what it shows", "oracle here", "status"]
        return [_scroll(_table(header, rows, classes=["map"], row_classes=kinds))]

    def status(self, item: dict) -> str:
        if "results" not in item:
            return item["status"]
        results, provenance = self.recorded(item["results"])
        if results is None:
            return "ready to run"
        recorded = (provenance or {}).get("profile") == RECORDED
        remark = f" ({item['status']})" if "status" in item else ""
        return ("done" if recorded else "done, not from the recorded run") + remark


class Cells(BookDirective):
    """Drawings of NAS-Bench-201 cells, one benchmark string per line of the body."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        from nagkit.report.plots import cell_strip
        from nagkit.spaces.nb201 import Space

        strings = list(self.content)
        drawing = StringIO()
        cell_strip(Space().from_string(strings), columns=2).savefig(drawing, format="svg", metadata={"Date": None})
        svg = drawing.getvalue()
        label = escape(f"Cells as graphs: {'; '.join(strings)}")
        html = f'<div class="cells" role="img" aria-label="{label}">{svg[svg.index("<svg") :]}</div>'
        return [nodes.raw("", html, format="html")]


class DataRegistry(BookDirective):
    """Every upstream file of `data/registry.yaml`, one box per source: licence, citation, size, hash."""

    def run(self) -> list[nodes.Node]:
        registry = yaml.safe_load(self.watch(self.book.parent / "data" / "registry.yaml").read_text("utf-8"))
        made = []
        for source in registry["sources"]:
            files = source["files"]
            owner, repository, *_ = source["source"].split("/")
            size = sum(file["bytes"] for file in files.values()) / 1e6
            title = f"{source['group']}: {owner}/{repository}, {len(files)} file{'s' * (len(files) > 1)}, {size:.1f} MB"
            box = nodes.admonition("", nodes.title("", title), classes=["admonition", "dropdown", "source"])
            box += nodes.paragraph("", f"{source['citation'].strip()}. Licence: {source['licence']}.")
            rows: list[Line] = [
                [_code(name), _code(file["path"]), f"{file['bytes'] / 1e6:.2f}", _code(file["sha256"])]
                for name, file in files.items()
            ]
            box += _scroll(_table(["name", "file", "MB", "SHA-256"], rows, classes=["files"]))
            made.append(box)
        return made


def setup(app: Sphinx) -> dict:
    """Register everything (Sphinx calls this)."""
    app.add_directive("exhibit", Exhibit)
    app.add_directive("exhibit-figures", ExhibitFigures)
    app.add_directive("provenance", Provenance)
    app.add_directive("your-run", YourRun)
    app.add_directive("exhibit-map", ExhibitMap)
    app.add_directive("cells", Cells)
    app.add_directive("data-registry", DataRegistry)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
