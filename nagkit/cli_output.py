"""What the commands share: options, the heading of their examples, and how a table leaves them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import pandas as pd

EXAMPLE = "\b\nExample:\n  "


def out(what: str = "CSV file instead of stdout.") -> Callable:
    """`--out`, a file."""
    return click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help=what)


def count(name: str, default: int | None = None, what: str = "", least: int = 1) -> Callable:
    """An option that is a whole number of at least `least`."""
    kind = click.IntRange(min=least)
    return click.option(name, type=kind, default=default, show_default=default is not None, help=what or None)


def space(default: str = "nb201", what: str = "Search space.") -> Callable:
    """`--space`."""
    return click.option("--space", default=default, show_default=True, help=what)


def seed(name: str = "--seed", what: str = "") -> Callable:
    """`--seed`, that of drawing and searching, or `--training-seed`."""
    return count(name, 0, what, least=0)


training_seed = click.option("--training-seed", "seed", type=click.IntRange(min=0), default=0, show_default=True)


def device(default: str | None = "cpu", what: str = "cpu, or cuda: a GPU.") -> Callable:
    """`--device`."""
    return click.option("--device", default=default, show_default=default is not None, help=what)


def workers(command: Callable) -> Callable:
    """`--n-workers` and `--scheduler`."""
    command = click.option("--scheduler", help="Address of a running Dask scheduler, such as tcp://host:8786.")(command)
    return count("--n-workers", 1, "Processes of a local Dask cluster.")(command)


def emit(rows: "pd.DataFrame | dict | list[dict]", path: Path | None = None) -> None:
    """A table as CSV to `path` or stdout; aligned when stdout is a terminal."""
    import pandas as pd

    from nagkit.data.io import write_text

    frame = pd.DataFrame(rows)
    if path:
        write_text(path, frame.to_csv(index=False))
        click.echo(f"wrote {len(frame)} rows to {path}", err=True)
    elif sys.stdout.isatty():
        click.echo(frame.to_string(index=False, na_rep=""))
    else:
        click.echo(frame.to_csv(index=False), nl=False)
