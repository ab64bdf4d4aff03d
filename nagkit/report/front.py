"""Sphinx extension of the book's front page: claims beside results, single numbers in prose, three figures, durations.

Directives: `claims`, `claims-here`, `claim-rules`, `front-figure`, `durations`. Role: `result`. Everything is read from
`book/exhibits.yaml`, `book/results/` and, for numbers of the paper that stand in no results, `data/paper.yaml` (selectors
with `known`).
"""

from collections.abc import Iterator
from html import escape
from io import StringIO
from pathlib import Path

import pandas as pd
import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from matplotlib import rc_context
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

from nagkit.errors import NagkitError
from nagkit.report import claims, plots_front
from nagkit.report import sphinx as book
from nagkit.report.exhibits import paper_rows
from nagkit.report.plots import label
from nagkit.report.sphinx import RECORDED, BookDirective, Line, counts, small

ORDER = (claims.REPRODUCED, claims.PARTLY, claims.FAILED, claims.UNTESTED, claims.UNRECORDED)
UNKNOWN = "values unknown to us"
UNITS = ("%", "×", "s", "GPU h", "GPU min")


def with_unit(entry: pd.Series) -> str:
    """A number with its unit and interval: "93.81 % [93.29, 94.34]"; a difference as "+0.88 points"; "no value" for none."""
    if pd.isna(entry.value):
        return "no value"
    value, spread = book.spell(entry)
    unit = entry.unit if entry.unit in UNITS else ""
    if unit == "%" and ("difference" in entry.metric or "minus" in entry.metric):
        value, unit = f"{entry.value:+.2f}", "points"
    return " ".join(filter(None, (value + unit if unit == "×" else f"{value} {unit}".strip(), spread)))


def kind(word: str) -> str:
    """The style class of a verdict."""
    return f"claim-{word.replace(' ', '-')}"


class Claims(BookDirective):
    """One row a claim of the paper: its number, ours, and the verdict that the rules of `book/exhibits.yaml` give."""

    def run(self) -> list[nodes.Node]:
        rows, kinds, found = [], [], {word: [] for word in ORDER}
        for entry, line, word in self.judged():
            rows.append(line)
            kinds.append(kind(word))
            found[word].append(entry)
        header: Line = ["claim, and oracle", "verdict", "paper", "ours [95 %]"]
        return [self.summary(found), book.scroll(book.table(header, rows, classes=["claims"], row_classes=kinds))]

    def judged(self, page: str | None = None) -> Iterator[tuple[dict, Line, str]]:
        """The entries of `book/exhibits.yaml` with a claim (of `page`), each with its line and its verdict in a word."""
        for entry in yaml.safe_load(self.watch(self.book / "exhibits.yaml").read_text("utf-8")):
            if "claim" in entry and page in (None, entry.get("page")):
                try:
                    yield entry, *self.line(entry)
                except NagkitError as error:
                    raise self.error(f"exhibits.yaml, {entry['paper']}: {error}") from error

    def summary(self, found: dict[str, list[dict]]) -> nodes.Node:
        """The exhibits under each verdict, in one line each."""
        items = []
        for word, entries in found.items():
            names = [node for entry in entries for node in (nodes.Text(", "), self.link(entry))][1:]
            pill = nodes.inline("", f"{len(entries)} {word}", classes=["verdict"])
            paragraph = nodes.paragraph("", "", pill, nodes.Text(" "), *names)
            items += [nodes.list_item("", paragraph, classes=[kind(word)])] if entries else []
        return nodes.bullet_list("", *items, classes=["claims-summary"])

    def link(self, entry: dict) -> nodes.Node:
        if "page" not in entry:
            return nodes.Text(entry["paper"])
        target = self.env.app.builder.get_relative_uri(self.env.docname, entry["page"])
        return nodes.reference("", entry["paper"], refuri=target, internal=True)

    def line(self, entry: dict) -> tuple[Line, str]:
        tables = self.tables(entry)
        checks = [{"results": entry.get("results"), **check} for check in entry.get("checks", ())]
        outcomes = [] if tables is None else [claims.run(check, tables) for check in checks]
        if "untested" in entry:
            word, why = claims.UNTESTED, entry["untested"]
        elif tables is None:
            word, why = claims.UNRECORDED, "its run has not been made yet"
        else:
            pairs = list(zip(checks, outcomes, strict=True))
            word = claims.verdict([claims.grade(said, jointly=check.get("jointly", False)) for check, said in pairs])
            why = f"{entry['counted']}: {'; '.join(claims.reason(*pair) for pair in pairs)}"
        remarks = [why, entry.get("remark", ""), *self.unrecorded(entry, tables)]
        verdict = [nodes.inline("", word, classes=["verdict"]), *(small(text) for text in remarks if text)]
        claim = [nodes.strong("", "", self.link(entry)), nodes.Text(f" {entry['claim']}"), small(f"Oracle: {entry['oracle']}.")]
        theirs, ours = (self.numbers(entry, key, tables) for key in ("paper_value", "ours_value"))
        return [claim, verdict, theirs, ours], word

    def tables(self, entry: dict) -> dict[str, pd.DataFrame] | None:
        """The results that an entry draws on, by name; None while one of them is missing."""
        selectors = [*entry.get("paper_value", ()), *entry.get("ours_value", ()), *entry.get("checks", ())]
        names = {entry.get("results"), *(selector.get("results", entry.get("results")) for selector in selectors)} - {None}
        read = {name: self.recorded(name)[0] for name in sorted(names)}
        return read if read and all(found is not None for found in read.values()) else None

    def unrecorded(self, entry: dict, tables: dict | None) -> list[str]:
        profiles = {(self.recorded(name)[1] or {}).get("profile") for name in tables or ()} - {RECORDED}
        return ["NOT from the recorded run"] if profiles else []

    def numbers(self, entry: dict, key: str, tables: dict | None) -> list[nodes.Node]:
        paper, made = key == "paper_value", []
        for selector in entry.get(key, ()):
            if "known" in selector:
                source = paper_rows(selector["known"])
            elif tables is None:
                continue
            else:
                source = tables[selector.get("results", entry.get("results"))]
            found = claims.select(source, selector, selector.get("origin", "paper" if paper else "ours"))
            many = found.column.nunique() > 1
            shown = [" ".join(filter(None, (label(result.column) * many, with_unit(result)))) for _, result in found.iterrows()]
            n = "" if paper or found.n.isna().all() else counts(found)
            title = ", ".join(filter(None, (selector.get("name", ""), n)))
            made += [small(title)] if title else []
            made += [nodes.inline("", text, classes=["number"]) for text in shown]
        if paper:
            empty = entry.get("paper_says", UNKNOWN if key not in entry else "–")
        else:
            empty = claims.UNRECORDED if key in entry else "–"
        return made or [nodes.Text(empty)]


class ClaimsHere(Claims):
    """The verdicts of the claims that a page examines, each in a line that leads to the page's own words about it."""

    def run(self) -> list[nodes.Node]:
        items = []
        for entry, _, word in self.judged(self.env.docname):
            parts = [nodes.inline("", word, classes=["verdict"]), nodes.Text(f" {entry['paper']}: {entry['claim']} ")]
            parts.append(nodes.reference("", "Why", refuri="#verdict", internal=True))
            items.append(nodes.list_item("", nodes.paragraph("", "", *parts), classes=[kind(word)]))
        if not items:
            raise self.error(f"exhibits.yaml has no claim whose page is {self.env.docname}")
        return [nodes.bullet_list("", *items, classes=["claims-summary"])]


class ClaimRules(BookDirective):
    """The rules that a verdict is made of, from the code that applies them."""

    def run(self) -> list[nodes.Node]:
        items = [
            nodes.definition_list_item("", nodes.term("", name), nodes.definition("", nodes.paragraph("", f"{text}.")))
            for name, text in claims.RULES.items()
        ]
        return [nodes.definition_list("", *items)]


class Result(SphinxRole):
    """One recorded number in prose; the role's text has the fields exhibit, metric, row and column, with bars between them.

    A fifth field `paper` takes the paper's number, from `data/paper.yaml`.
    """

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        fields = [field.strip() for field in self.text.split("|")]
        if len(fields) not in (4, 5):
            return self.refuse(f"a result has four or five fields, EXHIBIT | METRIC | ROW | COLUMN, not {self.text!r}")
        name, metric, row, column = fields[:4]
        path = Path(self.env.srcdir) / "results" / f"{name}.csv"
        self.env.note_dependency(str(path))
        try:
            results = paper_rows(name) if fields[4:] == ["paper"] else book.read_results(path)
            if results is None:
                return [nodes.emphasis("", f"({claims.UNRECORDED})")], []
            found = claims.select(results, {"metric": metric, "row": row, "column": column}, *fields[4:])
        except NagkitError as error:
            return self.refuse(f"result {name}: {error}")
        return [nodes.inline("", with_unit(found.iloc[0]), classes=["number"])], []

    def refuse(self, text: str) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        message = self.inliner.reporter.error(text, line=self.lineno)
        return [nodes.problematic(self.rawtext, self.rawtext)], [message]


class FrontFigure(BookDirective):
    """A figure of `nagkit.report.plots_front`, drawn from a recorded table; the body is its caption."""

    required_arguments = 1
    has_content = True
    option_spec = {"alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in plots_front.FIGURES:
            raise self.error(f"no front figure {name!r}; there are: {', '.join(plots_front.FIGURES)}")
        number = self.number("Figure")
        exhibit, shown, draw = plots_front.FIGURES[name]
        results, provenance = self.recorded(exhibit)
        if results is None:
            return [book.note(f"{number} needs the recorded run of {exhibit}, which has not been made yet.")]
        drawing = StringIO()
        with rc_context({"svg.hashsalt": name}):
            draw(results).savefig(drawing, format="svg", metadata={"Date": None})
        svg = drawing.getvalue()
        alt = escape(self.options["alt"])
        html = f'<div class="front-figure" role="img" aria-label="{alt}">{svg[svg.index("<svg") :]}</div>'
        figure = nodes.figure("", nodes.raw("", html, format="html"), classes=["exhibit-figure"])
        ours = results[(results.origin == "ours") & results.metric.str.fullmatch(shown)]
        known = book.facts(ours, (provenance or {}).get("profile", "unknown"))
        text, messages = self.parse_inline(f"**{number}.** {' '.join(self.content)} Ours: {known}.")
        figure += nodes.caption("", "", *text)
        return [figure, self.downloads(exhibit), *messages]


class Durations(BookDirective):
    """Minutes and memory of every notebook: its recorded run, and the quick run that `nagkit bench notebooks` wrote down."""

    def run(self) -> list[nodes.Node]:
        names = sorted(path.stem for path in (self.book.parent / "notebooks").glob("*.ipynb"))
        measured = self.watch(self.book.parent / "data" / "measured" / "quick_runs.csv")
        quick = pd.read_csv(measured).set_index("exhibit").to_dict("index") if measured.is_file() else {}
        rows: list[Line] = []
        total = 0.0
        for name in names:
            recorded = book.read_provenance(self.watch(self.book / "results" / f"{name}.provenance.json"))
            total += (recorded or {}).get("seconds", 0.0)
            ran = duration(recorded, claims.UNRECORDED), earlier(recorded), memory(recorded)
            rows.append([name, *ran, duration(quick.get(name), "not measured"), memory(quick.get(name))])
        peak = "its peak memory"
        header: Line = ["notebook", "recorded run", "jobs kept from earlier runs", peak, "quick run", peak]
        text = f"Recorded runs together: {book.number(total / 3600, 'h')} hours at least."
        if quick:
            cores, cpu = (", ".join(sorted({str(run[key]) for run in quick.values()})) for key in ("cores", "cpu"))
            spent = sum(run["seconds"] for run in quick.values())
            text += f" Quick runs together: {book.number(spent / 60, 'min')} minutes on a machine of {cores} cores ({cpu})."
        return [nodes.paragraph("", text), book.scroll(book.table(header, rows, classes=["exhibit"]))]


def duration(record: dict | None, missing: str) -> str:
    """The duration in a provenance record, such as "3.4 min"; "42 s" below two minutes."""
    if record is None or "seconds" not in record:
        return missing
    seconds = record["seconds"]
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def earlier(record: dict | None) -> str:
    """How many of a run's jobs an earlier run had finished; the time of those is not in its duration."""
    jobs = (record or {}).get("jobs")
    if jobs is None:
        return "–"
    return f"{jobs['finished by an earlier run']} of {jobs['asked']}"


def memory(record: dict | None) -> str:
    return f"{record['peak_rss_mb']:.0f} MiB" if record and "peak_rss_mb" in record else "not recorded"


def setup(app: Sphinx) -> dict:
    """Register everything (Sphinx calls this)."""
    app.add_directive("claims", Claims)
    app.add_directive("claims-here", ClaimsHere)
    app.add_directive("claim-rules", ClaimRules)
    app.add_directive("front-figure", FrontFigure)
    app.add_directive("durations", Durations)
    app.add_role("result", Result())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
