"""`dlbench serve`: the proxy in the foreground."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from dlbench.cli.failure import UsageError
from dlbench.cli.options import (
    NO_MODEL,
    AsJson,
    ConfigFile,
    Quiet,
    options_from,
    read,
    read_file,
)
from dlbench.cli.terminal.output import notes_console, print_json
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.main import run
from dlbench.proxy.settings import ServerSettings

if TYPE_CHECKING:
    from rich.console import Console

    from dlbench.proxy.main import StartInfo

NAME = "serve"
EXAMPLES = """[bold]Examples[/]

dlbench serve model.onnx

dlbench serve demo:mlp --max-batch-size 32 --max-queue-delay-ms 1 --workers 2

dlbench serve vad=silero.onnx small=magika.onnx --grpc-port 8001

dlbench serve --config recommended.toml --port 8080

dlbench serve demo:mlp --port 0 --quiet --json

dlbench serve model.onnx --host 0.0.0.0 --token-file tokens.txt --tls-cert cert.pem --tls-key key.pem
"""


@options_from(ServerSettings, ServingConfig, leave_out=["model", "also"])
def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="an .onnx file, NAME=FILE, demo:mlp or demo:cnn"),
    ] = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    *,
    given: dict[str, Any],
) -> None:
    """Serve models over HTTP and gRPC until Ctrl-C; accepted requests are answered first."""
    file = read_file(config, (ServerSettings, ServingConfig), NAME)
    if models:
        given["model"], given["also"] = models[0], tuple(models[1:])
    settings = read(ServerSettings, given, file)
    if not settings.model and not settings.repository:
        raise UsageError(NO_MODEL)
    knobs = read(ServingConfig, given, file)
    console = notes_console(quiet=quiet)

    def announce(info: StartInfo) -> None:
        _announce(console, info)
        if as_json:
            print_json(asdict(info))

    raise typer.Exit(run(settings, knobs, announce=announce))


def _announce(console: Console, info: StartInfo) -> None:
    """The start lines: where, what, on which device and why, and whatever was guessed."""
    for model in info.models:
        at = ((model.name, "bold"), " at ", (info.url, "bold"), f" on {model.device}")
        console.print(Text.assemble(*at))
        for note in model.notes:
            console.print(f"  {note}")
    if not info.models:
        console.print(Text.assemble("no model yet at ", (info.url, "bold")))
    if info.grpc:
        console.print(Text.assemble("gRPC at ", (info.grpc, "bold")))
