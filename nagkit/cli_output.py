"""What the commands share: how a table leaves them, and the heading of their examples."""

import sys
from pathlib import Path

import click
import pandas as pd

EXAMPLE = "\b\nExample:\n  "


def emit(frame: pd.DataFrame, out: Path | None) -> None:
    """A table as CSV to `out` or stdout; aligned when stdout is a terminal."""
    from nagkit.data.io import write_text

    text = frame.to_csv(index=False)
    if out:
        write_text(out, text)
        click.echo(f"wrote {len(frame)} rows to {out}", err=True)
    elif sys.stdout.isatty():
        click.echo(frame.to_string(index=False, na_rep=""))
    else:
        click.echo(text, nl=False)
