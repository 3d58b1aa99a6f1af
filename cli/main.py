"""The `dlbench` command: its subcommands, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console

from dlbench.cli import compare, export, load, serve, top, tune, worker
from dlbench.cli.failure import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    UsageError,
)
from dlbench.loadgen.errors import LoadError
from dlbench.proxy.errors import ProxyError
from dlbench.tuner.errors import TuneError

app = typer.Typer(
    help="How should I serve this model on this machine, and how much can it take?",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for module in (serve, worker, load, compare, tune, export, top):
    app.command(name=module.NAME, epilog=module.EXAMPLES)(module.command)

EXIT_CODES: dict[type[Exception], int] = {
    UsageError: EXIT_USAGE,
    ProxyError: EXIT_FAILED,
    LoadError: EXIT_FAILED,
    TuneError: EXIT_FAILED,
}


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dlbench {version('dlbench')}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """How should I serve this model on this machine, and how much can it take?"""


def main() -> None:
    """Run the command line; never shows a traceback for what a user can cause."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except tuple(EXIT_CODES) as error:
        Console(stderr=True, soft_wrap=True).print(
            f"[bold red]error:[/] {_escaped(error)}", highlight=False
        )
        sys.exit(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))


def _escaped(error: Exception) -> str:
    return str(error).replace("[", r"\[")


if __name__ == "__main__":
    main()
