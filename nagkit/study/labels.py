"""The words that a reader sees: data/labels.yaml says them once for every identifier of a row, column or metric."""

from functools import cache

import yaml

from nagkit import paths


@cache
def _sections() -> dict[str, dict[str, str]]:
    return yaml.safe_load((paths.DATA / "labels.yaml").read_text(encoding="utf-8"))


def label(identifier: str) -> str:
    """What a reader sees for `identifier`; "A minus B" is put together from its parts, an unknown one is shown as it is."""
    known = {name: words for section in _sections().values() for name, words in section.items()}
    if identifier in known:
        return known[identifier]
    ours, minus, other = identifier.partition(" minus ")
    if minus:
        return f"{label(ours)} minus {_inside(label(other))}"
    if identifier.startswith("difference of "):
        return f"difference of {_inside(label(identifier.removeprefix('difference of ')))}"
    data, space, what = identifier.partition(" ")
    return f"{known[data]}, {label(what)}" if space and data in _sections()["columns"] else identifier


def _inside(words: str) -> str:
    """Words inside a sentence: a first capital goes, unless more follow it."""
    return words if words[1:2].isupper() else words[:1].lower() + words[1:]
