"""What recorded numbers say about a claim of the paper: selectors, rules and verdicts, as `book/exhibits.yaml` writes them.

A selector is a mapping with `metric`, `row` and `column` (each a name or a list of names) and picks rows of a tidy table. A
check is a selector with a `rule` and, where the rule compares, the selector `paper` or the row `other`. A verdict sums them up.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd

from nagkit.errors import NagkitError

REPRODUCED, PARTLY, FAILED = "reproduced", "partly", "not reproduced"
UNTESTED, UNRECORDED = "cannot be tested", "not recorded"
HOLDS, OPEN, CONTRARY = "holds", "open", "contrary"
RULES = {
    "at least": "the value is not below the paper's; open if only the interval reaches it",
    "at most": "the value is not above the paper's; open if only the interval reaches it",
    "above zero": "the interval lies above zero; open if it holds zero",
    "below zero": "the interval lies below zero; open if it holds zero",
    "above other": "the interval lies above that of the other row; open if they overlap",
    "apart from other": "the interval does not overlap that of the other row",
}


def select(table: pd.DataFrame, selector: Mapping, origin: str = "ours") -> pd.DataFrame:
    """The rows of `table` that `selector` names, in its order; `NagkitError` for a name that is missing or stands twice."""
    picked = []
    for metric, row, column in product(*(_listed(selector, key) for key in ("metric", "row", "column"))):
        hit = (table.metric == metric) & (table.row == row) & (table.column == column) & (table.origin == origin)
        if hit.sum() != 1:
            counted = "no number" if not hit.any() else f"{hit.sum()} numbers"
            raise NagkitError(
                f"{counted} of origin {origin!r} with metric {metric!r}, row {row!r} and column {column!r}; "
                "correct the selector, or record the exhibit again"
            )
        picked.append(table[hit])
    return pd.concat(picked)


def _listed(selector: Mapping, key: str) -> list[str]:
    if key not in selector:
        raise NagkitError(f"a selector needs metric, row and column, this one has no {key}: {dict(selector)}")
    found = selector[key]
    return [str(name) for name in (found if isinstance(found, list) else [found])]


def outcome(rule: str, entry: pd.Series, against: pd.Series | None = None) -> str:
    """What one number, with the interval `lo` to `hi`, says by a rule of `RULES`: "holds", "open" or "contrary".

    A number that is missing, or that has no interval where the rule needs one, leaves the question open.
    """
    if rule not in RULES:
        raise NagkitError(f"unknown rule {rule!r}; choose one of: {', '.join(RULES)}")
    sign = -1 if rule in ("at most", "below zero") else 1
    value, lo, hi = entry.value, *((entry.lo, entry.hi) if sign > 0 else (entry.hi, entry.lo))
    if rule in ("at least", "at most"):
        if sign * (value - against.value) >= 0:
            return HOLDS
        reach = value if pd.isna(hi) else hi
        return CONTRARY if sign * (reach - against.value) < 0 else OPEN
    if rule in ("above other", "apart from other"):
        if lo > against.hi or (rule == "apart from other" and hi < against.lo):
            return HOLDS
        return CONTRARY if hi < against.lo else OPEN
    return HOLDS if sign * lo > 0 else CONTRARY if sign * hi < 0 else OPEN


def run(check: Mapping, tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The outcomes of a check, one a number; `tables[name]` are results, the check's own under `results`."""
    table = tables[check["results"]]
    found = select(table, check)
    if "paper" in check:
        against = select(table, check["paper"], check["paper"].get("origin", "paper"))
    elif "other" in check:
        against = select(table, {**check, "row": [check["other"]] * len(_listed(check, "row"))})
    else:
        against = [None] * len(found)
    others = against if isinstance(against, list) else [entry for _, entry in against.iterrows()]
    return [outcome(check["rule"], entry, other) for (_, entry), other in zip(found.iterrows(), others, strict=True)]


def grade(outcomes: Sequence[str], *, jointly: bool = False) -> str:
    """A check's verdict: "reproduced" if every outcome holds, "partly" if some do and no more are contrary.

    `jointly` is for a claim that stands or falls as a whole.
    """
    holds, contrary = outcomes.count(HOLDS), outcomes.count(CONTRARY)
    if outcomes and holds == len(outcomes):
        return REPRODUCED
    return PARTLY if holds and holds >= contrary and not jointly else FAILED


def verdict(grades: Sequence[str]) -> str:
    """The verdict of several checks: all reproduced, none reproduced even in part, or "partly"."""
    if not grades:
        return UNTESTED
    return grades[0] if len(set(grades)) == 1 else PARTLY


def reason(check: Mapping, outcomes: Sequence[str]) -> str:
    """A check in few words: "ours 5 of 7", and how many point the other way."""
    contrary = outcomes.count(CONTRARY)
    turned = f" ({contrary} the other way)" if contrary and check["rule"] in ("above zero", "below zero") else ""
    return f"{check['name']} {outcomes.count(HOLDS)} of {len(outcomes)}{turned}"
