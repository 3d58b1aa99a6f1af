"""`dlbench export`: a study's points as a file, or one of them as a configuration to deploy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from dlbench.cli.failure import UsageError
from dlbench.cli.options import AsJson, Quiet, read, read_file
from dlbench.cli.terminal.output import notes_console, print_json, write_file
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.spelling import instead
from dlbench.results.deploy.handover import deployment
from dlbench.results.deploy.targets import TARGETS
from dlbench.results.formats import FORMATS, Content
from dlbench.tuner.storage.study import Study

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

NAME = "export"
EXAMPLES = """[bold]Examples[/]

dlbench export mlp.db results.csv

dlbench export mlp.db --format md

dlbench export mlp.db front.svg

dlbench export mlp.db --to k8s - | kubectl apply -f -

dlbench export mlp.db --to docker --config mlp.toml

dlbench export mlp.db --to triton --point c06@0.7 models/mlp/config.pbtxt
"""
STDOUT = "-"
BINARY = ("parquet", "png")


def command(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="a study file (.db) of dlbench tune")
    ],
    out: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help=f"file to write; its suffix picks the format ({', '.join(FORMATS)}); -: standard "
            "output. With --to it defaults to the usual file name",
            show_default=False,
        ),
    ] = "",
    form: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="the format, whatever the suffix of FILE"),
    ] = "",
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="TARGET", help=f"a configuration to deploy: {', '.join(TARGETS)}"
        ),
    ] = "",
    point: Annotated[
        str,
        typer.Option(
            "--point", metavar="NAME", help="with --to: use this point, not the recommended one"
        ),
    ] = "",
    model: Annotated[
        str,
        typer.Option("--model", metavar="FILE", help="with --to: where the model's file is now"),
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="with --to: TOML file with the proxy's other settings (the one that tune wrote)",
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write the points of a study, or with --to a configuration to deploy.

    csv, json and parquet hold every measured point; what was not measured is
    empty, never 0. md, svg and png show the front.
    """
    if to and form:
        raise UsageError("--format cannot be combined with --to; drop one")
    if not to and (point or model or config):
        raise UsageError(f"--point, --model and --config need --to: {', '.join(TARGETS)}")
    if to:
        made = _configuration(study, _known("--to", to, TARGETS), out, point, model, config)
    else:
        made = _points(study, out, form)
    if as_json and made.file == STDOUT:
        raise UsageError("--json needs a FILE when the result goes to standard output")
    _write(made.file, made.content, notes_console(quiet=quiet or as_json))
    if as_json:
        print_json({"file": made.file, **made.about, "bytes": len(made.content)})


class Made(NamedTuple):
    """Where it goes, what is in it, and what that is for scripts."""

    file: str
    content: bytes
    about: dict[str, str]


def _points(study: Path, out: str, form: str) -> Made:
    form, file = _format(out, form), out or STDOUT
    _refuse_terminal(file, form)
    return Made(file, FORMATS[form](Content.of(Study.open(study))), {"format": form})


def _configuration(
    study: Path, to: str, out: str, point: str, model: str, config: Path | None
) -> Made:
    kept, target = Study.open(study), TARGETS[to]
    given = {"--model": model, "--config": str(config or "")}
    options = [word for name, value in given.items() if value for word in (name, value)]
    found = deployment(kept, _settings(kept, model, config), point, options)
    file = out or _unused(target.file_name.format(label=found.label))
    return Made(file, target.render(found).encode(), {"target": to, "point": found.point.name})


def _unused(file: str) -> str:
    """A usual name, under which somebody may have a file of their own."""
    if Path(file).exists():
        raise UsageError(f"{file} already exists; name it as FILE to overwrite it")
    return file


def _refuse_terminal(out: str, form: str) -> None:
    if out == STDOUT and form in BINARY and sys.stdout.isatty():
        raise UsageError(f"--format {form} is binary; name a FILE or redirect the output")


def _write(out: str, content: bytes, notes: Console) -> None:
    if out == STDOUT:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    write_file("FILE", Path(out), content)
    notes.print(f"{out} written")


def _format(out: str, form: str) -> str:
    """The format asked for: by --format, else by the file's suffix, else CSV on standard output."""
    suffix = Path(out).suffix.removeprefix(".").lower()
    if form:
        return _known("--format", form, FORMATS)
    if out == STDOUT:
        return "csv"
    if not out:
        raise UsageError(
            "no output given; name a FILE, - for CSV on standard output, or --to TARGET"
        )
    if suffix not in FORMATS:
        raise UsageError(f"FILE must end in one of .{', .'.join(FORMATS)}, or add --format")
    return suffix


def _known(option: str, name: str, table: Mapping[str, object]) -> str:
    """A name that is in the table."""
    if name not in table:
        raise UsageError(f"{option} {name}: {instead(name, table)}")
    return name


def _settings(study: Study, model: str, config: Path | None) -> ServerSettings:
    """The proxy's settings besides the knobs, which are the point's: the study's, or the file's."""
    file = read_file(config, (ServerSettings, ServingConfig))
    return read(ServerSettings, {"model": model} if model else {}, {**study.settings, **file})
