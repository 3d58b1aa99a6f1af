"""`dlbench serve`: the proxy in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from dlbench.cli.failure import UsageError
from dlbench.cli.options import options_from, read, read_file
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.main import run
from dlbench.proxy.settings import ServerSettings

if TYPE_CHECKING:
    from dlbench.proxy.main import StartInfo

NAME = "serve"
EXAMPLES = """[bold]Examples[/]

dlbench serve model.onnx

dlbench serve demo:mlp --max-batch-size 32 --max-queue-delay-ms 1 --workers 2

dlbench serve vad=silero.onnx small=magika.onnx --grpc-port 8001

dlbench serve --config recommended.toml --port 8080

dlbench serve model.onnx --host 0.0.0.0 --token-file tokens.txt --tls-cert cert.pem --tls-key key.pem
"""


@options_from(ServerSettings, ServingConfig, leave_out=["model", "also"])
def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="an .onnx file, NAME=FILE, demo:mlp or demo:cnn"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="TOML file with any of these options"),
    ] = None,
    *,
    given: dict[str, Any],
) -> None:
    """Serve models over HTTP and gRPC until Ctrl-C; accepted requests are answered first."""
    file = read_file(config, (ServerSettings, ServingConfig))
    if models:
        given["model"], given["also"] = models[0], tuple(models[1:])
    settings = read(ServerSettings, given, file)
    if not settings.model and not settings.repository:
        raise UsageError("MODEL is missing: name an .onnx file, demo:mlp or demo:cnn")
    knobs = read(ServingConfig, given, file)
    console = Console(stderr=True, soft_wrap=True)
    code = run(settings, knobs, announce=lambda info: _announce(console, info))
    raise typer.Exit(code)


def _announce(console: Console, info: StartInfo) -> None:
    """The start lines: where, what, on which device and why, and whatever was guessed."""
    for model in info.models:
        console.print(
            f"[bold]{model.name}[/] at [bold]{info.url}[/] on {model.device}", highlight=False
        )
        for note in model.notes:
            console.print(f"  {note}", highlight=False, markup=False)
    if not info.models:
        console.print(f"no model yet at [bold]{info.url}[/]", highlight=False)
    if info.grpc:
        console.print(f"gRPC at [bold]{info.grpc}[/]", highlight=False)
