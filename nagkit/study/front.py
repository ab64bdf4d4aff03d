"""Sphinx extension of the book's front page: claims with their verdicts, single numbers in prose, three figures, durations.

Directives: `claims`, `claim-rules`, `front-figure`, `durations`. Role: `result`. The verdicts are those of
`nagkit.study.judge`; numbers of the paper that stand in no results come from `data/paper.yaml`.
"""

from collections.abc import Iterator
from html import escape
from pathlib import Path

import pandas as pd
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

from nagkit.errors import NagkitError
from nagkit.study import book, claims, front_figures, judge, tidy
from nagkit.study.book import RECORDED, BookDirective, Line
from nagkit.study.drawing import rendered

UNRECORDED = "not recorded"


class Claims(BookDirective):
    """One row a claim of the paper: the verdict, whose limit it is and why; the numbers of all are folded beneath."""

    def run(self) -> list[nodes.Node]:
        rows, kinds, numbers = [], [], []
        found: dict[str, list[tuple[dict, judge.Verdict]]] = {word: [] for word in (*judge.WORDS, UNRECORDED)}
        for entry, verdict in self.judged():
            claim = [nodes.strong("", "", self.link(entry)), nodes.Text(f" {entry['claim']}")]
            pill = nodes.inline("", verdict.word, classes=["verdict"])
            rows.append([claim, pill, judge.because(verdict)])
            kinds.append(judge.kind(verdict.word))
            found[verdict.word].append((entry, verdict))
            numbers.append(f"<h4>{escape(entry['exhibit'])}</h4>{judge.numbers_html(verdict)}" if verdict.parts else "")
        header: Line = ["claim", "verdict", "whose limit, and why"]
        folded = f"<details><summary>The numbers behind every verdict</summary>{''.join(numbers)}</details>"
        table = book.table(header, rows, classes=["claims"], row_classes=kinds)
        return [self.summary(found), book.scroll(table), nodes.raw("", folded, format="html")]

    def judged(self) -> Iterator[tuple[dict, judge.Verdict]]:
        """The entries of `book/exhibits.yaml` with a claim, each with its verdict."""
        try:
            for entry in claims.entries(self.watch(self.book / "exhibits.yaml")):
                if "claim" in entry:
                    yield entry, self.verdict(entry)
        except NagkitError as error:
            raise self.error(str(error)) from error

    def verdict(self, entry: dict) -> judge.Verdict:
        made = {name: self.recorded(name) for name in claims.needs(entry)}
        if any(results is None for results, _ in made.values()):
            return judge.Verdict(UNRECORDED, "our budget", "its run has not been made yet", ())
        try:
            verdict = judge.judge(entry, {name: results for name, (results, _) in made.items()})
        except NagkitError as error:
            raise NagkitError(f"exhibits.yaml, {entry['exhibit']}: {error}") from error
        preview = any((record or {}).get("profile") != RECORDED for _, record in made.values())
        return verdict._replace(reason=f"{verdict.reason}; NOT from the recorded run") if preview else verdict

    def summary(self, found: dict[str, list[tuple[dict, judge.Verdict]]]) -> nodes.Node:
        """The exhibits under each verdict, by whose limit it is."""
        items = []
        for word, judged in found.items():
            pill = nodes.inline("", f"{len(judged)} {word}", classes=["verdict"])
            content: list[nodes.Node] = [pill, nodes.Text(" ")]
            by_limit = {} if word == judge.PARTLY else {verdict.limit: f" ({verdict.limit}) " for _, verdict in judged}
            for limit, said in by_limit.items() or [("", "")]:
                names = [self.link(entry) for entry, verdict in judged if not said or verdict.limit == limit]
                content += [node for name in names for node in (name, nodes.Text(", "))][:-1]
                content += [book.small(said)] if limit else []
            items += [nodes.list_item("", nodes.paragraph("", "", *content), classes=[judge.kind(word)])] if judged else []
        return nodes.bullet_list("", *items, classes=["claims-summary"])

    def link(self, entry: dict) -> nodes.Node:
        if "page" not in entry:
            return nodes.Text(entry["exhibit"])
        target = self.env.app.builder.get_relative_uri(self.env.docname, entry["page"])
        return nodes.reference("", entry["exhibit"], refuri=target, internal=True)


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
            results = tidy.paper_rows(name) if fields[4:] == ["paper"] else book.read_results(path)
            if results is None:
                return [nodes.emphasis("", f"({UNRECORDED})")], []
            found = next(claims.select(results, {"metric": metric, "row": row, "column": column}, *fields[4:]))
        except NagkitError as error:
            return self.refuse(f"result {name}: {error}")
        return [nodes.inline("", tidy.spelled(found), classes=["number"])], []

    def refuse(self, text: str) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        message = self.inliner.reporter.error(text, line=self.lineno)
        return [nodes.problematic(self.rawtext, self.rawtext)], [message]


class FrontFigure(BookDirective):
    """A figure of `nagkit.study.front_figures`, drawn from a recorded table; the body is its caption."""

    required_arguments = 1
    has_content = True
    option_spec = {"alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in front_figures.FIGURES:
            raise self.error(f"no front figure {name!r}; there are: {', '.join(front_figures.FIGURES)}")
        number = self.number("Figure")
        exhibit, shown, draw = front_figures.FIGURES[name]
        results, provenance = self.recorded(exhibit)
        if results is None:
            return [book.note(f"{number} needs the recorded run of {exhibit}, which has not been made yet.")]
        svg = rendered(draw(results), name).decode()
        alt = escape(self.options["alt"])
        html = f'<div class="front-figure" role="img" aria-label="{alt}">{svg[svg.index("<svg") :]}</div>'
        figure = nodes.figure("", nodes.raw("", html, format="html"), classes=["exhibit-figure"])
        ours = results[(results.origin == "ours") & results.metric.str.fullmatch(shown)]
        known = book.facts(ours, (provenance or {}).get("profile", "unknown"))
        text, messages = self.parse_inline(f"**{number}.** {' '.join(self.content)} Ours: {known}.")
        figure += nodes.caption("", "", *text)
        return [figure, book.downloads(self.env, exhibit), *messages]


class Durations(BookDirective):
    """Time and memory of every notebook: its recorded run, and the quick run that `nagkit bench notebooks` wrote down."""

    def run(self) -> list[nodes.Node]:
        names = sorted(path.stem for path in (self.book.parent / "notebooks").glob("*.ipynb"))
        measured = self.watch(self.book.parent / "data" / "measured" / "quick_runs.csv")
        quick = pd.read_csv(measured).set_index("exhibit").to_dict("index") if measured.is_file() else {}
        records = {name: self.recorded(name)[1] for name in names}
        rows: list[Line] = [[name, *spent(records[name], "≥ "), *spent(quick.get(name))] for name in names]
        header: Line = ["notebook", "recorded run", "its peak memory", "quick run", "its peak memory"]
        total = sum((record or {}).get("cpu_seconds", (record or {}).get("seconds", 0)) for record in records.values())
        text = f"Recorded runs together: {tidy.number(total / 3600, 'h')} hours at least."
        if quick:
            cores, cpu = (", ".join(sorted({str(run[key]) for run in quick.values()})) for key in ("cores", "cpu"))
            minutes = sum(run["seconds"] for run in quick.values()) / 60
            text += f" Quick runs together: {tidy.number(minutes, 'min')} minutes on a machine of {cores} cores ({cpu})."
        return [nodes.paragraph("", text), book.scroll(book.table(header, rows, classes=["map"]))]


def spent(record: dict | None, least: str = "") -> tuple[str, str]:
    """Time and memory of a run: "3.4 min" of its jobs; a run that did not count its jobs has its duration, after `least`."""
    if record is None or not {"seconds", "cpu_seconds"} & set(record):
        return UNRECORDED, UNRECORDED
    seconds = record.get("cpu_seconds", record.get("seconds"))
    time = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
    memory = f"{record['peak_rss_mb']:.0f} MiB" if "peak_rss_mb" in record else UNRECORDED
    return least * ("cpu_seconds" not in record) + time, memory


def setup(app: Sphinx) -> dict:
    """Register everything (Sphinx calls this)."""
    app.add_directive("claims", Claims)
    app.add_directive("claim-rules", ClaimRules)
    app.add_directive("front-figure", FrontFigure)
    app.add_directive("durations", Durations)
    app.add_role("result", Result())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
