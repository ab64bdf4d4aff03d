"""Sphinx extension of this book's own pages: the map of exhibits, verdicts, upstream files, drawings, the reader's own runs.

Directives: `exhibit-map`, `verdict`, `data-registry`, `cells`, `parallel`, `your-run`.
"""

import json
import re
from collections.abc import Iterator
from html import escape
from io import StringIO
from pathlib import Path

import click
import pandas as pd
import yaml
from docutils import nodes
from sphinx.application import Sphinx

from nagkit.report.plots import label
from nagkit.report.sphinx import (
    RECORDED,
    BookDirective,
    Cell,
    Line,
    code,
    note,
    provenance_box,
    read_provenance,
    read_results,
    scroll,
    shown,
    table,
)

HEADING = "## Verdict"
"""What the output of the last but one cell of every notebook begins with."""


class ExhibitMap(BookDirective):
    """The entries of `book/exhibits.yaml` that examine no claim of the paper, their status read off the results files."""

    def run(self) -> list[nodes.Node]:
        exhibits = yaml.safe_load(self.watch(self.book / "exhibits.yaml").read_text("utf-8"))
        rows, kinds = [], []
        for item in exhibits:
            if "claim" in item:
                continue
            status = self.status(item)
            shows: Cell = item["shows"]
            if "page" in item:
                target = self.env.app.builder.get_relative_uri(self.env.docname, item["page"])
                shows = nodes.reference("", item["shows"], refuri=target, internal=True)
            rows.append([shows, item["oracle"], nodes.inline("", status, classes=["status"])])
            kinds.append("status-preview" if "not from" in status else f"status-{status.split()[0]}")
        header: Line = ["what it shows", "oracle here", "status"]
        return [scroll(table(header, rows, classes=["map"], row_classes=kinds))]

    def status(self, item: dict) -> str:
        if "results" not in item:
            return item["status"]
        results, provenance = self.recorded(item["results"])
        if results is None:
            return "ready to run"
        recorded = (provenance or {}).get("profile") == RECORDED
        remark = f" ({item['status']})" if "status" in item else ""
        return ("done" if recorded else "done, not from the recorded run") + remark


class Verdict(BookDirective):
    """What the numbers of an exhibit say, in the words that its executed notebook computed from them."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        path = self.watch(self.book / "results" / f"{name}.ipynb")
        if not path.is_file():
            return [note("No recorded run of this exhibit yet; its verdict comes with the numbers.")]
        text = verdict(json.loads(path.read_text("utf-8")))
        if text is None:
            raise self.error(f"{path.name} has no output that begins with {HEADING!r}; record the exhibit again")
        return self.parse_text_to_nodes(text)


def verdict(notebook: dict) -> str | None:
    """The Markdown under the heading "Verdict" among the outputs of an executed notebook; None when there is none."""
    outputs = (output for cell in notebook["cells"] for output in cell.get("outputs", []))
    texts = ("".join(output.get("data", {}).get("text/markdown", "")) for output in outputs)
    return next((text.removeprefix(HEADING).strip() for text in texts if text.startswith(HEADING)), None)


class Cells(BookDirective):
    """Drawings of architectures, one string per line of the body: NAS-Bench-201 cells, or MBv3 networks."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        from nagkit.report import generation, plots
        from nagkit.spaces.base import get_space

        strings = list(self.content)
        cells = strings[0].startswith("|")
        archs = get_space("nb201" if cells else "mbv3").from_string(strings)
        drawing = StringIO()
        figure = plots.cell_strip(archs, columns=2) if cells else generation.network_strip(archs)
        figure.savefig(drawing, format="svg", metadata={"Date": None})
        svg = drawing.getvalue()
        label = escape(f"{'Cells as graphs' if cells else 'Networks as rows of layers'}: {'; '.join(strings)}")
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
                [code(name), code(file["path"]), f"{file['bytes'] / 1e6:.2f}", code(file["sha256"])]
                for name, file in files.items()
            ]
            box += scroll(table(["name", "file", "MB", "SHA-256"], rows, classes=["files"]))
            made.append(box)
        return made


class Parallel(BookDirective):
    """What can be spread over processes or a scheduler's workers: the notebooks and commands, and how they are told."""

    def run(self) -> list[nodes.Node]:
        from nagkit.cli import cli

        notebooks = sorted((self.book.parent / "notebooks").glob("*.ipynb"))
        takers = [(path.stem, "-p n_workers 8", "-p scheduler", parameters(self.watch(path))) for path in notebooks]
        takers += [(name, "--n-workers 8", "--scheduler", options) for name, options in commands(cli)]
        rows: list[Line] = [
            [code(name), code(cores), code(f"{anywhere} tcp://host:8786") if "scheduler" in known else "–"]
            for name, cores, anywhere, known in takers
            if "n_workers" in known
        ]
        return [scroll(table(["notebook or command", "several cores", "any scheduler"], rows, classes=["map"]))]


def parameters(notebook: Path) -> set[str]:
    """Names that papermill can set in a notebook: those assigned in its cell tagged "parameters"."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    tagged = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    return set(re.findall(r"^(\w+) =", "\n".join(tagged), re.MULTILINE))


def commands(group: click.Group, prefix: str = "nagkit") -> Iterator[tuple[str, set[str]]]:
    """Every command in full (`nagkit fit search`), and the names of its parameters."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", {parameter.name for parameter in command.params}


class YourRun(BookDirective):
    """This machine's quick numbers beside the recorded ones, for every exhibit that has been run."""

    def run(self) -> list[nodes.Node]:
        folder = self.watch(self.book.parent / "results" / "quick")
        tables = sorted(folder.glob("*.csv")) if folder.is_dir() else []
        if not tables:
            return [note("Nothing has been run on this machine yet. ", code("make reproduce"),
                          " runs every notebook in its quick profile and rebuilds the book.")]  # fmt: skip
        made: list[nodes.Node] = []
        for path in tables:
            quick, (recorded, _) = read_results(self.watch(path)), self.recorded(path.stem)
            made.append(nodes.rubric("", path.stem.replace("_", " ").capitalize()))
            for metric in dict.fromkeys(quick[quick.origin == "ours"].metric):
                unit = next((u for u in quick[quick.metric == metric].unit if u), "")
                made.append(nodes.paragraph("", label(metric) + (f" ({unit})" if unit else ""), classes=["exhibit-caption"]))
                made.append(scroll(compare(quick, recorded, metric)))
            made += [provenance_box(read_provenance(self.watch(path.with_suffix(".provenance.json"))), path.stem)]
        return made


def compare(quick: pd.DataFrame, recorded: pd.DataFrame | None, metric: str) -> nodes.table:
    """This machine's numbers of one metric beside the recorded ones, and whether the intervals overlap."""
    keys = ["row", "column"]

    def ours(table: pd.DataFrame) -> pd.DataFrame:
        return table[(table.origin == "ours") & (table.metric == metric)].drop_duplicates(keys)

    known = [] if recorded is None else [entry for _, entry in ours(recorded).iterrows()]
    index = {tuple(entry[keys]): entry for entry in known}
    rows: list[Line] = []
    for _, entry in ours(quick).iterrows():
        other = index.get(tuple(entry[keys]))
        verdict = "–" if other is None else _overlap(entry, other)
        names = [label(entry.row), label(entry.column)]
        rows.append([*names, _with_n(entry), "–" if other is None else _with_n(other), verdict])
    return table(["", "", "this machine", "recorded", "intervals"], rows, classes=["exhibit"])


def _with_n(entry: pd.Series) -> list[nodes.Node]:
    return shown(entry, f"n = {entry.n:.0f}" if pd.notna(entry.n) else "", entry.oracle)


def _overlap(a: pd.Series, b: pd.Series) -> str:
    if pd.isna([a.lo, a.hi, b.lo, b.hi]).any():
        return "–"
    return "overlap" if a.lo <= b.hi and b.lo <= a.hi else "apart"


def setup(app: Sphinx) -> dict:
    """Register the directives (Sphinx calls this)."""
    app.add_directive("exhibit-map", ExhibitMap)
    app.add_directive("your-run", YourRun)
    app.add_directive("verdict", Verdict)
    app.add_directive("data-registry", DataRegistry)
    app.add_directive("cells", Cells)
    app.add_directive("parallel", Parallel)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
