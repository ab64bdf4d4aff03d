"""The one exception that reaches users, and the wording of its commonest case."""

from collections.abc import Iterable
from difflib import get_close_matches


class NagkitError(Exception):
    """Bad input or missing data: one line that names the thing, the value and the remedy.

    The command line prints it and exits with status 2; in Python it is an ordinary exception.
    """


def unknown(kind: str, value: object, choices: Iterable[str]) -> NagkitError:
    """Error for a `value` that is none of the `choices`, with the nearest one when there is one."""
    choices = sorted(choices)
    near = get_close_matches(str(value), choices, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return NagkitError(f"unknown {kind} {value!r}{hint}; choose one of: {', '.join(choices)}")
