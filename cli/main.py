"""The `dlbench` command: its subcommands, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import inspect
import os
import sys
from importlib import import_module
from importlib.metadata import version
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from dlbench.cli.failure import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    OutputError,
    UsageError,
)
from dlbench.cli.terminal.output import notes_console
from dlbench.loadgen.errors import LoadError
from dlbench.proxy.errors import ProxyError
from dlbench.proxy.spelling import meant
from dlbench.results.printable import escaped
from dlbench.tuner.errors import ShapeMissing, TuneError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# In the order of the help; each is the module of its name.
COMMANDS = (
    "serve",
    "worker",
    "load",
    "compare",
    "tune",
    "verify",
    "predict",
    "studies",
    "report",
    "export",
    "top",
    "doctor",
    "init",
)

EXAMPLES = """[bold]Examples[/]

dlbench tune model.onnx --slo-p99 20ms

dlbench serve --config model.toml

dlbench report model.db
"""


class Completion(NamedTuple):
    """What a shell's completion reads of an item; Typer's own class is private."""

    value: str
    type: str = "plain"
    help: str | None = None


class PlainSwitches:
    """Help in which a switch, that takes no value, does not look as if it took a <bool>."""

    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's click is private
        """Every option and argument, --help among them."""
        found = super().get_params(ctx)  # type: ignore[misc]
        for switch in (param for param in found if getattr(param, "is_flag", False)):
            switch.metavar = ""
        return found


class Command(PlainSwitches, TyperCommand):
    """One command."""


class Commands(PlainSwitches, TyperGroup):
    """Import a command only when it runs, so that looking at a proxy does not load the tuner."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - typer's click is private
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002 - the same
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"dlbench.cli.commands.{cmd_name}")
        alone = typer.Typer(rich_markup_mode="rich", add_completion=False)
        about = {"help": _unwrapped(module.command), "epilog": module.EXAMPLES}
        alone.command(name=module.NAME, cls=Command, **about)(module.command)
        return typer.main.get_command(alone)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - the same
        if not ctx.resilient_parsing and args[0] not in COMMANDS and args[0][:1].isalnum():
            raise UsageError(
                f"unknown command {args[0]}; {_meant(args[0], COMMANDS)}see dlbench --help"
            )
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:  # noqa: ANN401 - the same
        """Names alone: for the help beside them, every command would be imported at each Tab."""
        if incomplete and not incomplete[0].isalnum():
            return super().shell_complete(ctx, incomplete)
        return [Completion(name) for name in COMMANDS if name.startswith(incomplete)]


def _unwrapped(command: Callable[..., None]) -> str:
    """The docstring with a line for each paragraph: the terminal knows best where to break it."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


app = typer.Typer(
    cls=Commands,
    help="How should I serve this model on this machine, and how much can it take?",
    epilog=EXAMPLES,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

EXIT_CODES: dict[type[Exception], int] = {
    UsageError: EXIT_USAGE,
    ShapeMissing: EXIT_USAGE,
    OutputError: EXIT_FAILED,
    ProxyError: EXIT_FAILED,
    LoadError: EXIT_FAILED,
    typer.TyperException: EXIT_USAGE,
    TuneError: EXIT_FAILED,
}

# What a write to standard output ends with when nobody takes it.
OUTPUT_LOST = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name may have letters that a terminal lacks
    try:
        # Who gives no arguments looks for help; Typer's errors come here, to be one line as well.
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        if sys.stdout is not None:  # None: it was closed before the start
            sys.stdout.flush()  # here, where an error still has an exit code
        sys.exit(code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(EXIT_INTERRUPTED)
    except tuple(EXIT_CODES) as error:
        notes_console().print(Text.assemble(("error:", "bold red"), f" {_text(error)}"))
        sys.exit(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))
    except OSError as error:
        if error.errno not in OUTPUT_LOST:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more gets out
        if error.errno != errno.EPIPE:  # who closes a pipe has read enough
            notes_console().print(
                Text.assemble(("error:", "bold red"), f" standard output: {error.strerror}")
            )
        sys.exit(EXIT_FAILED)


def _text(error: Any) -> str:  # noqa: ANN401 - Typer's errors have private types
    """What is wrong, in one line; for Typer's own errors also the help to read."""
    if not isinstance(error, typer.TyperException):
        return _line(str(error))
    context = getattr(error, "ctx", None)
    hint = f"; see {context.command_path} --help" if context else ""
    if context and (option := getattr(error, "option_name", "") * hasattr(error, "possibilities")):
        known = [name for param in context.command.params for name in param.opts]
        return _line(f"no such option {option}; {_meant(option, known)}") + hint.removeprefix("; ")
    return _line(error.format_message().replace("Value error, ", "")).rstrip(".") + hint


def _meant(word: str, known: Iterable[str]) -> str:
    close = meant(word, known)
    return f"did you mean {close}? " if close else ""


def _line(text: str) -> str:
    """Whatever names and other people's errors are in it, without control characters."""
    return escaped(" ".join(text.splitlines()))


if __name__ == "__main__":
    main()
