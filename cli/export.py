"""`dlbench export`: a study as a CSV file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dlbench.tuner.export import study_points, write_csv
from dlbench.tuner.run import read_verified
from dlbench.tuner.study import Study

NAME = "export"
EXAMPLES = """[bold]Examples[/]

dlbench export mlp.db results.csv

dlbench export mlp.db - | head
"""


def command(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="a study file (.db) of dlbench tune")
    ],
    out: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV file to write; -: standard output")
    ],
) -> None:
    """Write every measured point of a study as a CSV row; what was not measured is empty, never 0."""
    found = Study.open(study)
    result = read_verified(found)
    points = study_points(found.points(), result)
    if out == "-":
        write_csv(points, sys.stdout, result.estimates)
        return
    with Path(out).open("w", newline="") as stream:
        write_csv(points, stream, result.estimates)
    Console(stderr=True, soft_wrap=True).print(
        f"{len(points)} points written to {out}", highlight=False
    )
