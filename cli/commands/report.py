"""`dlbench report`: a study as one HTML file to open, send and present."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.cli.failure import UsageError
from dlbench.cli.options import AsJson, Quiet  # noqa: TC001 - Typer resolves them at run time
from dlbench.cli.terminal.output import notes_console, print_json, write_file
from dlbench.results.page.document import page_document
from dlbench.results.page.html import page
from dlbench.tuner.storage.study import Study

NAME = "report"
EXAMPLES = """[bold]Examples[/]

dlbench report mlp.db

dlbench report mlp.db --out results/mlp.html

dlbench report mlp.db --out - > mlp.html
"""
MB = 1e6


def command(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="a study file (.db) of dlbench tune")
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            metavar="FILE",
            help="HTML file to write (default STUDY.html); -: standard output",
            show_default=False,
        ),
    ] = "",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a study as one HTML file: the front, curves, what mattered, every point and its TOML.

    The file needs nothing beside it and no network. A study that is still under way shows what was
    measured so far.
    """
    if as_json and out == "-":
        raise UsageError("--json and --out - both write to standard output; choose one")
    text = page(page_document(Study.open(study)))
    if out == "-":
        typer.echo(text, nl=False)
        return
    target = Path(out) if out else study.with_suffix(".html")
    content = text.encode()
    write_file("--out", target, content)
    if as_json:
        print_json({"report": str(target), "bytes": len(content)})
    else:
        size = len(content) / MB
        notes_console(quiet=quiet).print(f"{target}: {size:.1f} MB, opens in any browser")
