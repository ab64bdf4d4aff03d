"""Settings chosen on development sets, data/presets.yaml: samplers, guidance strengths and search methods of each space."""

import yaml

from nagkit import paths
from nagkit.data import io
from nagkit.errors import NagkitError

FILE = paths.DATA / "presets.yaml"
DIVERSE = "diverse"
"""Name of a second strength: the best that keeps most of the distinct architectures of unguided draws."""


def load() -> dict:
    """The contents of data/presets.yaml."""
    return io.read_yaml(FILE)


def of_space(space: str) -> dict:
    """The block of one search space; `NagkitError` when there is none, as for a space that was just added."""
    if space not in load():
        remedy = f"add one like that of {next(iter(load()))}, or give prior, sampler and steps"
        raise NagkitError(f"data/{FILE.name} has no block for search space {space!r}; {remedy}")
    return load()[space]


def strength(space: str, prior: str, rule: str, scale: float | str | None = None) -> float:
    """A guidance scale: the chosen one of this prior and rule, their "diverse" one, or the number that is given."""
    settings = load().get(space, {})
    if scale is None:
        known = settings.get("scale", {}).get(rule, {})
        if prior not in known:
            raise NagkitError(f"no strength of {rule} was chosen for prior {prior} of {space}; give one: --scale NUMBER")
        return known[prior]
    diverse = settings.get(DIVERSE, {}).get(rule, {})
    if scale == DIVERSE and prior in diverse:
        return diverse[prior]
    try:
        return float(scale)
    except ValueError:
        known = f"a number or {DIVERSE!r}" if prior in diverse else "a number here"
        raise NagkitError(f"guidance scale must be {known}, got {scale!r}") from None


def write(settings: dict) -> None:
    """Replace data/presets.yaml, keeping the comment on top of it."""
    header = "".join(line for line in FILE.read_text(encoding="utf-8").splitlines(keepends=True) if line.startswith("#"))
    io.write_text(FILE, header + yaml.safe_dump(settings, sort_keys=False))
    io.read_yaml.cache_clear()
