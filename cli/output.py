"""Where a command writes: its result on standard output, all else on standard error.

Nothing here takes a `[` or a `:` in a name for markup. Colour only repeats what words and
characters say; rich leaves it out for NO_COLOR and in pipes.
"""

from __future__ import annotations

import json
import sys

from rich.console import Console


def result_console() -> Console:
    """For results; in a pipe it writes plain text, 80 columns wide unless COLUMNS says otherwise."""
    return Console(highlight=False, markup=False, emoji=False)


def notes_console(*, quiet: bool = False) -> Console:
    """For progress and notes; a quiet one says nothing. In a pipe a line is never broken."""
    console = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False)
    console.soft_wrap = not console.is_terminal
    return console


def print_json(document: object) -> None:
    """One JSON document and a newline: what --json prints."""
    json.dump(document, sys.stdout, indent=2)
    print(flush=True)
