"""Claims of the paper as `book/exhibits.yaml` declares them, and the numbers of results that a declaration picks."""

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import pandas as pd
import yaml

from nagkit import paths
from nagkit.errors import NagkitError, unknown

CEILING = "a ceiling of the benchmark"
LIMITS = ("our budget", "our data", "the paper's unknown protocol", CEILING, "our row is not the published method yet")
RULES = {
    "equal": "the 90 % interval of ours minus the paper's lies within ±Δ",
    "above": "the 95 % interval of the difference lies above zero; contradicted when it lies below −Δ",
    "below": "the 95 % interval of the difference lies below zero; contradicted when it lies above Δ",
    "apart": "the 95 % interval of the difference lies outside ±Δ, on either side",
}
_ENTRY = {"exhibit", "shows", "oracle", "page", "results", "claim", "checks", "also", "limit", "why", "status"}
_SELECTOR = {"results", "metric", "row", "column"}
_CHECK = _SELECTOR | {"part", "rule", "paper", "minus", "than", "delta", "because", "optimum", "published", "limit", "why"}
_ALSO = _SELECTOR | {"name", "origin"}


def entries(path: Path | None = None) -> list[dict]:
    """The exhibits of `book/exhibits.yaml` (or of `path`) in its order, checked; `NagkitError` names entry and remedy."""
    path = path or paths.root() / "book" / "exhibits.yaml"
    if not path.is_file():
        raise NagkitError(f"there is no {path}; claims are judged in a checkout of the study")
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in found:
        try:
            _valid(entry)
        except NagkitError as error:
            raise NagkitError(f"{path.name}, {entry.get('exhibit', entry)}: {error}") from None
    return found


def _valid(entry: Mapping) -> None:
    _known("key", entry, _ENTRY)
    if missing := [key for key in ("exhibit", "shows", "oracle") if key not in entry]:
        raise NagkitError(f"lacks {', '.join(missing)}; say it")
    if "claim" not in entry and "checks" in entry:
        raise NagkitError("has checks and no claim; say what is claimed")
    _limited(entry, "claim" in entry and "checks" not in entry)
    for said in entry.get("also", ()):
        _known("key of a number shown", said, _ALSO)
    for check in entry.get("checks", ()):
        _known(f"key of the check {check.get('part')!r}", check, _CHECK)
        if "part" not in check:
            raise NagkitError("has a check without a part; name what it checks")
        _limited({**{key: entry[key] for key in ("limit", "why") if key in entry}, **check}, True)
        if "rule" not in check:
            continue
        if check["rule"] not in RULES:
            raise unknown("rule", check["rule"], RULES)
        if "delta" not in check or not str(check.get("because", "")).strip():
            raise NagkitError(f"the check {check['part']!r} needs delta, the smallest difference that matters, and because")
        if ("paper" in check) + ("minus" in check) + ("than" in check) > 1 or (check["rule"] == "equal") != ("paper" in check):
            raise NagkitError(f"the check {check['part']!r} compares with one of paper (rule equal), minus or than (others)")


def _limited(said: Mapping, needed: bool) -> None:
    if needed and not {"limit", "why"} <= set(said):
        raise NagkitError(f"needs limit and why where it is not decided: {said.get('part', 'the claim')}")
    if "limit" in said and said["limit"] not in LIMITS:
        raise unknown("limit", said["limit"], LIMITS)
    if len(str(said.get("why", "")).split()) > 10:
        raise NagkitError(f"why has more than ten words: {said['why']!r}; shorten it")


def _known(kind: str, keys: Mapping, known: set[str]) -> None:
    for key in keys:
        if key not in known:
            raise unknown(kind, key, known)


def select(table: pd.DataFrame, selector: Mapping, origin: str = "ours") -> Iterator[pd.Series]:
    """The rows of `table` that `selector` names, in its order; `NagkitError` for a name that is missing or stands twice."""
    for metric, row, column in product(*(listed(selector, key) for key in ("metric", "row", "column"))):
        part = table[table.origin == origin]
        for key, name in (("metric", metric), ("row", row), ("column", column)):
            if name not in set(part[key]):
                raise unknown(f"{key} of the {origin if origin != 'ours' else 'results'}", name, set(part[key]))
        hit = part[(part.metric == metric) & (part.row == row) & (part.column == column)]
        if len(hit) != 1:
            counted = "no number" if hit.empty else f"{len(hit)} numbers"
            raise NagkitError(f"{counted} with metric {metric!r}, row {row!r}, column {column!r}; correct the selector")
        yield hit.iloc[0]


def listed(selector: Mapping, key: str) -> list[str]:
    """The names that a selector gives under `key`, one or several."""
    if key not in selector:
        raise NagkitError(f"a selector needs metric, row and column, this one has no {key}: {dict(selector)}")
    return [str(name) for name in (selector[key] if isinstance(selector[key], list) else [selector[key]])]


def needs(entry: Mapping) -> set[str]:
    """Names of the results that a verdict rests on."""
    ours = [said for said in (*entry.get("checks", ()), *entry.get("also", ())) if said.get("origin") != "paper"]
    return {said.get("results", entry.get("results")) for said in ours if "metric" in said}
