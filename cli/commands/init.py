"""`dlbench init`: a dlbench.toml in which every setting is explained, and commented out."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlbench.cli.commands.tune import LEFT_OUT
from dlbench.cli.failure import UsageError
from dlbench.cli.options import ENVIRONMENT_PREFIX, AsJson, Model, Quiet
from dlbench.cli.terminal.output import notes_console, print_json, write_file
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.declaration import declarations
from dlbench.proxy.knob import search_values
from dlbench.proxy.models.model import resolve_model
from dlbench.proxy.settings import ServerSettings
from dlbench.results.printable import escaped
from dlbench.tuner.study_config import StudyConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dlbench.proxy.declaration import Declaration

NAME = "init"
EXAMPLES = """[bold]Examples[/]

dlbench init model.onnx

dlbench init demo:mlp --output mlp.toml && dlbench serve --config mlp.toml

dlbench init --output - | less
"""
DEFAULT_OUTPUT = Path("dlbench.toml")
HEAD = """\
# dlbench serve --config {path}
# dlbench tune --config {path}
#
# A line such as `#port = 8000` holds a default: remove the # to change it. Options on the
# command line and {prefix} variables override this file."""
COMMENT = textwrap.TextWrapper(
    98, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False
)
# What stands for a default of None, so that taking the # away gives something that is valid.
INSTEAD_OF_NONE: dict[str, Any] = {
    "slo_p99_ms": 20.0,
    "recommend": "knee",
    "price_per_hour": 1.0,
    "grpc_port": 8001,
    "data": "inputs.npz",
}


def command(
    model: Model = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="file to write; -: standard output"),
    ] = DEFAULT_OUTPUT,
    force: Annotated[bool, typer.Option("--force", help="overwrite the file")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a file with every setting of serve and tune, explained and at its default."""
    if model is not None:
        resolve_model(model)
    values = {} if model is None else {"model": model}
    if str(output) == "-":
        if as_json:
            raise UsageError("--json and --output - both write to standard output; choose one")
        sys.stdout.write(document(DEFAULT_OUTPUT, values))
        return
    _write(output, document(output, values), force)
    told = quote(str(output))
    lines = f"wrote {output}\n  dlbench serve --config {told}\n  dlbench tune --config {told}"
    notes_console(quiet=quiet).print(lines, markup=False)
    if as_json:
        print_json({"config": str(output), "model": model})


def _write(path: Path, text: str, force: bool) -> None:
    if path.exists() and not force:
        raise UsageError(f"{path} already exists; use --force to overwrite it")
    write_file("--output", path, text.encode())


def document(path: Path, values: Mapping[str, Any]) -> str:
    """The whole file; what is in `values` is set, all else commented out."""
    parts = [HEAD.format(path=escaped(quote(str(path))), prefix=f"{ENVIRONMENT_PREFIX}…")]
    for heading, fields in sections():
        parts += [heading, *(_entry(field, values) for field in fields.values())]
    return "\n\n".join(parts) + "\n"


def sections() -> Iterator[tuple[str, Mapping[str, Declaration]]]:
    """Heading and fields of each part; what several commands take comes before their tables."""
    server, search = declarations(ServerSettings), declarations(StudyConfig)
    yield "# The model and its server, for all commands", server
    yield "# How to serve: the knobs that a study searches\n[serve]", declarations(ServingConfig)
    known = {*LEFT_OUT, *server, *search}
    load = {name: own for name, own in declarations(LoadProfile).items() if name not in known}
    yield "# How to search, and for which load\n[tune]", {**search, **load}


def _entry(field: Declaration, values: Mapping[str, Any]) -> str:
    lines, name = (field.help, "; ".join(filter(None, _limits(field)))), field.name
    said = "\n".join(COMMENT.fill(line) for line in lines if line)
    if name in values:
        return f"{said}\n{name} = {_toml(values[name])}"
    default = INSTEAD_OF_NONE[name] if field.default is None else field.default
    return f"{said}\n#{name} = {_toml(default)}"


def _limits(field: Declaration) -> Iterator[str]:
    """Which values there are, and that there is none unless one is given."""
    if field.words:
        yield f"one of: {', '.join(field.words)}"
    yield SHAPES.get(field.kind, "")
    bounds, unit = field.bounds, f" {field.unit}" if field.unit else ""
    if {"ge", "le"} <= bounds.keys():
        yield f"{_plain(bounds['ge'])} to {_plain(bounds['le'])}{unit}"
    else:
        yield " and ".join(f"{BOUNDS[k]} {_plain(bound)}{unit}" for k, bound in bounds.items())
    if searched := search_values().get(field.name):
        yield f"tune tries {', '.join(map(str, searched))}"
    if field.default is None:
        yield "unset by default"


# How a file writes what an option writes as A,B or NAME=VALUE.
SHAPES: dict[Any, str] = {tuple: "a list here", dict: "a table here: { NAME = VALUE }"}
BOUNDS = {"ge": "at least", "gt": "over", "le": "at most"}


def _plain(bound: float) -> str:
    return f"{bound:,.12g}"  # 1e7 in full


def _toml(value: Any) -> str:  # noqa: ANN401 - a setting's value
    """What JSON writes for these is TOML too, and on one line."""
    return escaped(json.dumps(value, ensure_ascii=False))
