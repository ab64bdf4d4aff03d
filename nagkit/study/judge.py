"""The one judge: what results say about a claim of the paper, by the checks that `book/exhibits.yaml` declares.

A check picks numbers of ours (`metric`, `row`, `column`: a name or a list of names each) and compares each with the paper's
(`paper`), with other rows (`minus`) or, when it is a difference already, with zero (`than`), by a rule of `RULES`. `delta` is
the smallest difference that matters, fixed for the reason in `because`, not for the run. A number that contradicts the claim
decides against it only where `published` says that our side ran the published protocol at its budget or had converged;
otherwise the check is open, and `limit` with `why` say whose limit that is. A part without a rule cannot be tested.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from nagkit import paths
from nagkit.errors import NagkitError, unknown
from nagkit.study import tidy
from nagkit.study.claims import CEILING, RULES, entries, listed, needs, select
from nagkit.study.labels import label

REPRODUCED, PARTLY, FAILED = "reproduced", "partly", "not reproduced"
OPEN, UNTESTED = "inconclusive", "cannot be tested"
WORDS = (REPRODUCED, PARTLY, FAILED, OPEN, UNTESTED)


class Number(NamedTuple):
    """One number of a check: its name and its spelling, what it is compared with, the difference, and what that says."""

    name: str
    ours: str
    against: str
    gap: str
    word: str


class Part(NamedTuple):
    """One check of a claim: `said` is its rule with Δ and reason; `limit` and `why` are empty when it is decided."""

    name: str
    word: str
    limit: str
    why: str
    said: str
    numbers: tuple[Number, ...]


class Verdict(NamedTuple):
    """A word of `WORDS`, whose limit it is when it is not decided, and why, in a few words."""

    word: str
    limit: str
    reason: str
    parts: tuple[Part, ...]


# Statistics -----------------------------------------------------------------------------------------------------------


def interval(entry: pd.Series, level: float) -> tuple[float, float]:
    """The interval of a tidy row at `level`, by t quantiles from its 95 % one; a number of the paper without one is exact."""
    if pd.isna(entry.lo) or pd.isna(entry.hi):
        exact = entry.value if entry.origin == "paper" else np.nan
        return exact, exact
    freedom = np.inf if pd.isna(entry.n) or entry.origin == "paper" and entry.n < 2 else max(float(entry.n) - 1, 1)
    ratio = stats.t.ppf((1 + level) / 2, freedom) / stats.t.ppf(0.975, freedom)
    return entry.value - ratio * (entry.value - entry.lo), entry.value + ratio * (entry.hi - entry.value)


def difference(ours: pd.Series, other: pd.Series | float, level: float) -> tuple[float, float]:
    """Interval of `ours` minus `other` at `level`, as if independent: limits by variance recovery (Zou & Donner, 2008).

    Runs that share their seeds vary together, so theirs is shorter than this one, which is on the safe side.
    """
    lo, hi = interval(ours, level)
    if not isinstance(other, pd.Series):
        return lo - other, hi - other
    low, high = interval(other, level)
    gap = ours.value - other.value
    return gap - np.hypot(ours.value - lo, high - other.value), gap + np.hypot(hi - ours.value, other.value - low)


def outcome(rule: str, delta: float, gap95: tuple[float, float], gap90: tuple[float, float]) -> str:
    """What a difference says by a rule of `RULES`: "reproduced", "not reproduced" (contradicted) or "inconclusive"."""
    (lo, hi), (low, high) = gap95, gap90
    within, outside = -delta <= low and high <= delta, lo > delta or hi < -delta
    holds, contradicted = {
        "equal": (within, outside),
        "above": (lo > 0, hi < -delta),
        "below": (hi < 0, lo > delta),
        "apart": (outside, within),
    }[rule]
    return REPRODUCED if holds else FAILED if contradicted else OPEN


# Verdicts -------------------------------------------------------------------------------------------------------------


def judge(entry: Mapping, tables: Mapping[str, pd.DataFrame], *, lenient: bool = False) -> Verdict:
    """The verdict on a claim from `tables[name]`, tidy results by the name of their exhibit.

    With `lenient` a number that a short run did not make leaves its part untested instead of raising `NagkitError`.
    """
    parts = []
    for check in entry.get("checks", ()):
        said = {key: entry[key] for key in ("results", "limit", "why") if key in entry} | check
        try:
            parts.append(_part(said, tables))
        except NagkitError:
            if not lenient:
                raise
            parts.append(Part(said["part"], UNTESTED, "our budget", "not in this run", "", ()))
    beside = tuple(_beside(entry, tables, lenient))
    shown = (Part("For comparison", "", "", "", "", beside),) if beside else ()
    if not parts:
        return Verdict(UNTESTED, entry["limit"], entry["why"], shown)
    return _sum(tuple(parts), shown)


def _beside(entry: Mapping, tables: Mapping[str, pd.DataFrame], lenient: bool) -> Iterator[Number]:
    """Numbers that decide nothing and are shown beside those that do."""
    for said in entry.get("also", ()):
        selector = {"results": entry.get("results")} | said
        theirs = said.get("origin") == "paper"
        try:
            for one in select(_table(selector, tables, theirs), selector, "paper" if theirs else "ours"):
                ours, paper = ("", tidy.spelled(one)) if theirs else (tidy.spelled(one), "")
                yield Number(", ".join(filter(None, (said["name"], _name(said, one, ())))), ours, paper, "", "")
        except NagkitError:
            if not lenient:
                raise


def _table(selector: Mapping, tables: Mapping[str, pd.DataFrame], of_paper: bool = False) -> pd.DataFrame:
    if of_paper:
        return tidy.paper_rows(selector["results"])
    if selector.get("results") not in tables:
        raise NagkitError(f"the results {selector.get('results')!r} are not recorded; run their notebook first")
    return tables[selector["results"]]


def _part(check: Mapping, tables: Mapping[str, pd.DataFrame]) -> Part:
    if "rule" not in check:
        return Part(check["part"], UNTESTED, check["limit"], check["why"], "", ())
    table = _table(check, tables)
    numbers, limits = [], {}
    for ours, other, name in _pairs(check, table):
        delta = _of(check["delta"], ours.column)
        gap95, gap90 = (difference(ours, other, level) for level in (0.95, 0.90))
        word = outcome(check["rule"], delta, gap95, gap90)
        if word == FAILED and not check.get("published"):
            word = OPEN
        if word == OPEN:
            rival = other if isinstance(other, pd.Series) or "optimum" not in check else _rival(ours, table)
            stuck = "optimum" in check and rival.value >= _of(check["optimum"], ours.column) - delta
            limits |= {CEILING: "the rival has the optimum already"} if stuck else {check["limit"]: check["why"]}
        lo, hi = gap90 if check["rule"] == "equal" else gap95
        gap = "–" if np.isnan(lo) else f"{tidy.number(lo, ours.unit)} to {tidy.number(hi, ours.unit)}"
        against = tidy.spelled(other) if isinstance(other, pd.Series) else f"{other:g}"
        numbers.append(Number(name, tidy.spelled(ours), against, gap, word))
    word = _majority([number.word for number in numbers])
    if word in (REPRODUCED, FAILED):
        limits = {}
    said = f"It holds when {RULES[check['rule']]}. Δ = {_spread(check['delta'])}: {check['because']}."
    return Part(check["part"], word, "; ".join(limits), "; ".join(limits.values()), said, tuple(numbers))


def _pairs(check: Mapping, table: pd.DataFrame) -> Iterator[tuple[pd.Series, pd.Series | float, str]]:
    """Every number of a check with what it is compared with, and a name that tells it from the others."""
    ours = list(select(table, check))
    if "paper" in check:
        selector = check | dict(check["paper"])
        others = list(select(_table(selector, {}, True), selector, "paper"))
        if len(others) != len(ours):
            raise NagkitError(f"{check['part']!r} compares {len(ours)} numbers with {len(others)} of the paper; name as many")
        yield from ((one, other, _name(check, one)) for one, other in zip(ours, others, strict=True))
    elif "minus" in check:
        for other in listed(check, "minus"):
            rows = select(table, check | {"row": [other] * len(listed(check, "row"))})
            yield from ((one, two, f"{_name(check, one)} minus {label(other)}") for one, two in zip(ours, rows, strict=True))
    else:
        yield from ((one, float(check.get("than", 0)), _name(check, one)) for one in ours)


def _name(check: Mapping, entry: pd.Series, always: Sequence[str] = ("row",)) -> str:
    """What tells a number from the others of its check: row, and metric and column where there are several."""
    return ", ".join(label(entry[key]) for key in ("row", "metric", "column") if key in always or len(listed(check, key)) > 1)


def _rival(gap: pd.Series, table: pd.DataFrame) -> pd.Series:
    """Of a difference "A minus B", the number of B."""
    metric, row = gap.metric.removeprefix("difference of "), gap.row.partition(" minus ")[2]
    return next(select(table, {"metric": metric, "row": row, "column": gap.column}))


def _of(value: object, column: str) -> float:
    """A number that a declaration gives once, or by column."""
    if isinstance(value, Mapping) and column not in value:
        raise unknown("column of a check's numbers", column, value)
    return float(value[column] if isinstance(value, Mapping) else value)


def _spread(value: object) -> str:
    by_column = value.items() if isinstance(value, Mapping) else [("", value)]
    return ", ".join(f"{number:g} {f'({label(name)})' if name else ''}".strip() for name, number in by_column)


def _majority(words: Sequence[str]) -> str:
    """A check's word: all its numbers agree, at least half hold ("partly"), or most contradict; anything else is open."""
    holds, contrary = words.count(REPRODUCED), words.count(FAILED)
    if holds == len(words):
        return REPRODUCED
    return PARTLY if 2 * holds >= len(words) else FAILED if 2 * contrary > len(words) else OPEN


def _sum(parts: tuple[Part, ...], shown: tuple[Part, ...]) -> Verdict:
    """All parts alike; "partly" when some hold; what is open is never "not reproduced", and what has no test says nothing."""
    words = [part.word for part in parts]
    tested = [word for word in words if word != UNTESTED]
    if len(set(words)) == 1:
        word = words[0]
    elif REPRODUCED in words or PARTLY in words:
        word = PARTLY
    else:
        word = FAILED if set(tested) == {FAILED} else OPEN
    undecided = [part for part in parts if part.limit and (word != OPEN or part.word == OPEN)]
    if word == PARTLY:
        reason = f"holds: {', '.join(_holding(part) for part in parts if part.word in (REPRODUCED, PARTLY))}"
    elif word in (REPRODUCED, FAILED):
        reason = "every interval lies where the claim says" if word == REPRODUCED else "by the published protocol, beyond Δ"
    else:
        reason = "; ".join(dict.fromkeys(part.why for part in undecided))
    limits = dict.fromkeys(limit for part in undecided for limit in part.limit.split("; "))
    return Verdict(word, "; ".join(limits), reason, parts + shown)


def _holding(part: Part) -> str:
    holds = sum(number.word == REPRODUCED for number in part.numbers)
    return part.name if part.word == REPRODUCED else f"{part.name} ({holds} of {len(part.numbers)})"


# What a reader sees ---------------------------------------------------------------------------------------------------


class Box:
    """Verdicts with their claims, as a notebook shows them: the numbers behind them are folded; `remark` is said first."""

    def __init__(self, judged: Sequence[tuple[Mapping, Verdict]], remark: str = ""):
        self.judged, self.remark = judged, remark

    def _repr_html_(self) -> str:
        said = f"<p>{escape(self.remark)}</p>" if self.remark else ""
        return said + "".join(box_html(*one) for one in self.judged)

    def _repr_markdown_(self) -> str:
        said = (f"**{one.word}** · {entry['exhibit']}: {entry['claim']} {because(one)}" for entry, one in self.judged)
        return "\n\n".join(filter(None, (self.remark, *said)))


def box(name: str, frame: pd.DataFrame, *, quick: bool = False) -> Box:
    """The verdicts on the claims that the exhibit `name` examines, by its results `frame` and recorded ones of others.

    Those of a `quick` run say that they are.
    """
    examined = [entry for entry in entries() if entry.get("results") == name and "claim" in entry]
    if not examined:
        raise NagkitError(f"book/exhibits.yaml has no claim with results {name!r}; declare one, or show no verdict")
    files = {other: paths.results("paper") / f"{other}.csv" for entry in examined for other in needs(entry) - {name}}
    tables = {other: tidy.read_csv(file) for other, file in files.items() if file.is_file()} | {name: frame}
    remark = "By the few seeds of a quick run, not by the recorded numbers:" if quick else ""
    return Box([(entry, judge(entry, tables, lenient=True)) for entry in examined], remark)


def because(verdict: Verdict) -> str:
    """What holds, whose limit the rest is, and why, as a sentence."""
    partly = verdict.word == PARTLY
    said = f"{verdict.reason}; open: {verdict.limit}" if partly else ": ".join(filter(None, (verdict.limit, verdict.reason)))
    return f"{said[0].upper()}{said[1:]}."


def kind(word: str) -> str:
    """The style class of a verdict."""
    return f"claim-{word.replace(' ', '-')}"


def box_html(entry: Mapping, verdict: Verdict) -> str:
    """One claim with its verdict; its numbers are folded."""
    said = f"<strong>{escape(entry['exhibit'])}.</strong> {escape(entry['claim'])}"
    first = f'<p>{_pill(verdict.word)} {said} <span class="why">{escape(because(verdict))}</span></p>'
    folded = f"<details><summary>The numbers behind it</summary>{numbers_html(verdict)}</details>" if verdict.parts else ""
    return f'<div class="verdict-box">{first}{folded}</div>'


def numbers_html(verdict: Verdict) -> str:
    """The numbers of every part of a claim, with the rule that judges them."""
    made = []
    for part in verdict.parts:
        limit = ": ".join(filter(None, (part.limit, part.why)))
        said = escape(" ".join(filter(None, (limit and f"{limit[0].upper()}{limit[1:]}.", part.said))))
        made.append(f"<p>{_pill(part.word)} <strong>{escape(part.name)}.</strong> {said}</p>")
        lines = [("", "ours [95 %]", "against", "difference" * bool(part.word), ""), *part.numbers]
        cells = ["".join(f"<td>{escape(text)}</td>" for text in line) for line in lines]
        rows = "".join(f"<tr>{line}</tr>" for line in cells)
        made += [f'<div class="nagkit-scroll"><table class="nagkit-table">{rows}</table></div>'] if part.numbers else []
    return "".join(made)


def _pill(word: str) -> str:
    return f'<span class="{kind(word)}"><span class="verdict">{word}</span></span>' if word else ""
