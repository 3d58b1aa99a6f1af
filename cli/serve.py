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

dlbench serve --config recommended.toml --port 8080
"""


@options_from(ServerSettings, ServingConfig, leave_out=["model"])
def command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="an .onnx file, demo:mlp or demo:cnn")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="TOML file with any of these options"),
    ] = None,
    *,
    given: dict[str, Any],
) -> None:
    """Serve a model over HTTP (V2 / Open Inference Protocol) until Ctrl-C; accepted requests are answered first."""
    file = read_file(config, (ServerSettings, ServingConfig))
    if model is not None:
        given["model"] = model
    if not given.get("model") and not file.get("model"):
        raise UsageError("MODEL is missing: name an .onnx file, demo:mlp or demo:cnn")
    settings = read(ServerSettings, given, file)
    knobs = read(ServingConfig, given, file)
    console = Console(stderr=True, soft_wrap=True)
    code = run(settings, knobs, announce=lambda info: _announce(console, info))
    raise typer.Exit(code)


def _announce(console: Console, info: StartInfo) -> None:
    """The start lines: where, what, on which device and why, and whatever was guessed."""
    console.print(f"[bold]{info.name}[/] at [bold]{info.url}[/] on {info.device}", highlight=False)
    for note in info.notes:
        console.print(f"  {note}", highlight=False, markup=False)
