"""`dlbench worker`: lend workers to a front on another machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from dlbench.cli.failure import UsageError
from dlbench.cli.options import AsJson, Quiet, options_from, read
from dlbench.cli.terminal.output import notes_console, print_json
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import ModelError, StartError
from dlbench.proxy.models.model import resolve_model
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.telemetry import logs
from dlbench.proxy.workers.node import Node
from dlbench.proxy.workers.remote import NodeAddress
from dlbench.results.deploy.onnx_tensors import declared

if TYPE_CHECKING:
    from dlbench.proxy.models.model import ModelFile

NAME = "worker"
EXAMPLES = """[bold]Examples[/]

dlbench worker model.onnx --listen 10.0.0.2:9000 --node-token-file nodes.txt --tls-cert cert.pem --tls-key key.pem

[dim]and where the requests come in:[/]

dlbench serve model.onnx --remote-workers 10.0.0.2:9000 --node-token-file nodes.txt --node-tls-ca ca.pem
"""
# How a session is made, and who may come: the rest is the front's business.
SETTINGS = {"device", "device_ids", "provider_option", "io_binding", "batch_axis", "shape"}
SETTINGS |= {"rows_independent", "node_token_file", "tls_cert", "tls_key", "insecure", "log_format"}
KNOBS = {"intra_op_threads", "graph_optimization", "memory_arena", "allow_spinning"}
OTHERS = {*ServerSettings.model_fields, *ServingConfig.model_fields} - SETTINGS - KNOBS


@options_from(ServerSettings, ServingConfig, leave_out=OTHERS)
def command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="the .onnx file that the front serves")
    ],
    listen: Annotated[
        str,
        typer.Option("--listen", metavar="HOST:PORT", help="address for fronts to connect to"),
    ] = "127.0.0.1:9000",
    quiet: Quiet = False,
    as_json: AsJson = False,
    *,
    given: dict[str, Any],
) -> None:
    """Run workers for fronts elsewhere (serve --remote-workers), one for each connection, until Ctrl-C."""
    settings, config = read(ServerSettings, given, {}), read(ServingConfig, given, {})
    logs.configure(settings.log_format, access=False)
    source = resolve_model(model)
    try:
        address = NodeAddress.parse(listen)
    except StartError as error:
        raise UsageError(f"--listen {error}") from None
    console = notes_console(quiet=quiet)

    def announce(bound: NodeAddress) -> None:
        console.print(Text.assemble((source.name, "bold"), " for fronts at ", (str(bound), "bold")))
        if as_json:
            print_json({"model": source.name, "address": str(bound)})

    _check_whole(source)
    Node(source, settings, config).run(address, announce)


def _check_whole(source: ModelFile) -> None:
    """See to it now that the file is a model: a session would say so to the first front alone.

    Raises:
        ModelError: it is not one.
    """
    inputs, _ = declared(source.path, {})
    if not inputs:
        raise ModelError(f"{source.path} is an incomplete ONNX model; export or download it again")
