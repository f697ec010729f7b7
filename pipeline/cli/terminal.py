"""What commands print for people: as wide as their terminal, and wide enough for every column where there is none."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Of a pipe or a file. rich takes 80 there, and drops columns of a table that a `grep` is looking for.
_UNBOUND_COLUMNS = 240


def terminal() -> "Console":
    """A console for standard output. `COLUMNS` is respected everywhere."""
    from rich.console import Console

    unbound = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, width=_UNBOUND_COLUMNS if unbound else None)


def rendered(*views: object) -> str:
    """As `terminal` would print them. For `click.echo`: printing itself, rich ends with 1 when the reader has gone."""
    console = terminal()
    with console.capture() as captured:
        for view in views:
            console.print(view)
    # A wide table pads every row to its widest cell.
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
