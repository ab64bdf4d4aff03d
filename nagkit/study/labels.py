"""The words that a reader sees: data/labels.yaml says them once for every identifier of a row, column or metric."""

from nagkit import paths
from nagkit.data import io

FILE = paths.DATA / "labels.yaml"


def label(identifier: str) -> str:
    """What a reader sees for `identifier`; "A minus B" and "A over B" are composed of their parts, an unknown one stays."""
    sections = io.read_yaml(FILE)
    known = {name: words for section in sections.values() for name, words in section.items()}
    if identifier in known:
        return known[identifier]
    for between in (" minus ", " over "):
        ours, found, other = identifier.partition(between)
        if found:
            return f"{label(ours)}{between}{_inside(label(other))}"
    for before in ("difference of ", "wins of "):
        if identifier.startswith(before):
            return f"{before}{_inside(label(identifier.removeprefix(before)))}"
    data, space, what = identifier.partition(" ")
    return f"{known[data]}, {label(what)}" if space and data in sections["columns"] else identifier


def _inside(words: str) -> str:
    """Words inside a sentence: a first capital goes, unless more follow it."""
    return words if words[1:2].isupper() else words[:1].lower() + words[1:]
