"""Where a command writes: its result on standard output, all else on standard error.

Nothing here takes a `[` or a `:` in a name for markup. Colour only repeats what words and
characters say; rich leaves it out for NO_COLOR and in pipes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING

from pydantic_core import from_json, to_json
from rich.console import Console

from dlbench.cli.failure import OutputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

# Another FILE would do; anything else is not the fault of the command line.
REFUSED = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG}  # fmt: skip


def result_console() -> Console:
    """For results; in a pipe it writes plain text, 80 columns wide unless COLUMNS says otherwise."""
    return Console(highlight=False, markup=False, emoji=False)


def notes_console(*, quiet: bool = False) -> Console:
    """For progress and notes; a quiet one says nothing. In a pipe a line is never broken."""
    console = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False)
    console.soft_wrap = not console.is_terminal
    return console


def print_json(document: object) -> None:
    """One JSON document and a newline: what --json prints. Infinity is the text "Infinity"."""
    plain = from_json(to_json(document, inf_nan_mode="strings"))
    json.dump(plain, sys.stdout, indent=2)
    print(flush=True)


def check_writable(option: str, path: Path | None) -> None:
    """See to it before the work begins that its result can be kept.

    Raises:
        UsageError: a file cannot be written there.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: folder {path.parent} does not exist")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{option} {path}: cannot write a file there")


def write_file(option: str, path: Path, content: bytes) -> None:
    """Write a whole file or none: what was there stays until all of the new one is written.

    Raises:
        UsageError: nothing can be written there.
        OutputError: the disk is full, or does not work.
    """
    target = path.resolve()  # a link stays one
    try:
        if target.exists() and not target.is_file():  # a pipe or a terminal takes it as it comes
            target.write_bytes(content)
        else:
            _replace(target, content)
    except OSError as error:
        kind = UsageError if error.errno in REFUSED else OutputError
        raise kind(f"{option} {path}: {error.strerror}") from None


def _replace(target: Path, content: bytes) -> None:
    draft = target.with_name(f".{os.getpid()}.dlbench")
    try:
        draft.write_bytes(content)
        if target.exists():
            shutil.copymode(target, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
