"""How a command ends badly: one line on standard error and an exit code that scripts can use."""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNDECIDED = 3
EXIT_REGRESSION = 4
EXIT_INTERRUPTED = 130


class UsageError(Exception):
    """The command was called wrongly; the text names the option."""


class OutputError(Exception):
    """A result cannot be written down; the text names the file and why."""
