"""Sphinx extension of this book's own pages: the map of exhibits, verdicts, upstream files, drawings, the reader's own runs.

Directives: `exhibit-map`, `verdict`, `data-registry`, `cells`, `parallel`, `your-run`.
"""

import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

import click
import pandas as pd
import yaml
from docutils import nodes
from sphinx.application import Sphinx

from nagkit.study import claims, tidy
from nagkit.study.book import (
    RECORDED,
    BookDirective,
    Cell,
    Line,
    code,
    facts,
    note,
    provenance_box,
    read_provenance,
    read_results,
    scroll,
    table,
)
from nagkit.study.labels import label


class ExhibitMap(BookDirective):
    """The entries of `book/exhibits.yaml` that examine no claim of the paper, their status read off the results files."""

    def run(self) -> list[nodes.Node]:
        exhibits = claims.entries(self.watch(self.book / "exhibits.yaml"))
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


class Cells(BookDirective):
    """Drawings of architectures, one string per line of the body: NAS-Bench-201 cells, or MBv3 networks."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        from nagkit.spaces.base import get_space
        from nagkit.study import drawing, figures

        strings = list(self.content)
        cells = strings[0].startswith("|")
        space, look = get_space("nb201" if cells else "mbv3"), {"wrap": 2} if cells else {"wrap": 1, "size": (10.5, 2.0)}
        svg = drawing.rendered(figures.strip(space, space.from_string(strings), **look), strings[0]).decode()
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
    """One line an exhibit that was run here: how many recorded intervals hold this machine's numbers; they are folded below."""

    def run(self) -> list[nodes.Node]:
        folder = self.watch(self.book.parent / "results" / "quick")
        tables = sorted(folder.glob("*.csv")) if folder.is_dir() else []
        if not tables:
            return [note("Nothing has been run on this machine yet. ", code("make reproduce"),
                          " runs every notebook in its quick profile and rebuilds the book.")]  # fmt: skip
        made: list[nodes.Node] = []
        for path in tables:
            quick, (recorded, _) = read_results(self.watch(path)), self.recorded(path.stem)
            rows, said = compare(quick, recorded)
            name = path.stem.replace("_", " ").capitalize()
            made.append(nodes.raw("", f"<details><summary><strong>{name}</strong>: {said}</summary>", format="html"))
            made.append(nodes.paragraph("", f"This machine: {facts(quick[quick.origin == 'ours'], 'quick')}."))
            made.append(scroll(table(["", "this machine", "recorded", ""], rows, classes=["exhibit"])))
            made.append(provenance_box(read_provenance(self.watch(path.with_suffix(".provenance.json"))), path.stem))
            made.append(nodes.raw("", "</details>", format="html"))
        return made


def compare(quick: pd.DataFrame, recorded: pd.DataFrame | None) -> tuple[list[Line], str]:
    """This machine's numbers beside the recorded ones, and in words how many of these intervals hold them."""
    keys = ["metric", "row", "column"]
    known = pd.DataFrame(columns=quick.columns) if recorded is None else recorded
    index = {tuple(entry[keys]): entry for _, entry in known[known.origin == "ours"].iterrows()}
    rows: list[Line] = []
    for _, entry in quick[quick.origin == "ours"].iterrows():
        other = index.get(tuple(entry[keys]))
        where = "" if other is None or pd.isna([other.lo, other.hi, entry.value]).any() else "outside"
        if where and other.lo <= entry.value <= other.hi:
            where = "inside"
        names = ", ".join(label(entry[key]) for key in keys if entry[key])
        rows.append([names, tidy.spelled(entry), "–" if other is None else tidy.spelled(other), where])
    inside, outside = (sum(row[-1] == where for row in rows) for where in ("inside", "outside"))
    compared = f"{inside} of {inside + outside} recorded intervals hold this machine's number"
    return rows, compared if inside + outside else "no recorded interval to compare with"


def setup(app: Sphinx) -> dict:
    """Register the directives (Sphinx calls this)."""
    app.add_directive("exhibit-map", ExhibitMap)
    app.add_directive("your-run", YourRun)
    app.add_directive("data-registry", DataRegistry)
    app.add_directive("cells", Cells)
    app.add_directive("parallel", Parallel)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
