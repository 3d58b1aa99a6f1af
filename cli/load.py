"""`dlbench load`: drive a server and say how it did, and whether that can be trusted."""

from __future__ import annotations

import csv
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from dlbench.cli.failure import EXIT_INTERRUPTED, EXIT_UNDECIDED, UsageError
from dlbench.cli.live import load_view
from dlbench.cli.options import options_from, read, read_file
from dlbench.cli.tables import measurement_table
from dlbench.loadgen.discovery import discover
from dlbench.loadgen.generator import Generator
from dlbench.loadgen.profile import LoadProfile

if TYPE_CHECKING:
    from dlbench.loadgen.measurement import Measurement

NAME = "load"
EXAMPLES = """[bold]Examples[/]

dlbench load http://127.0.0.1:8000 --rate 500 --duration 30s

dlbench load http://127.0.0.1:8000/v2/models/mlp --users 32 --json

dlbench load http://127.0.0.1:8000 --rate 2000 --distinct 10000 --zipf 1.1 --csv runs.csv
"""


@options_from(LoadProfile)
def command(
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="a V2 server, or one of its models (…/v2/models/NAME)"),
    ],
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="TOML file with any of these options"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON document on standard output")
    ] = False,
    csv_path: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="append the result as a row")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option("--samples", metavar="FILE", help="keep the raw samples (.npz)")
    ] = None,
    *,
    given: dict[str, Any],
) -> None:
    """Load a server, open loop (--rate) or closed (--users); latency counts from the scheduled send time.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the measurement is invalid, 130 interrupted.
    """
    profile = read(LoadProfile, given, read_file(config, (LoadProfile,)))
    if profile.rate is None and profile.users is None:
        raise UsageError("say how much load: --rate 500 (requests per second) or --users 16")
    errors = Console(stderr=True, soft_wrap=True)
    target = discover(url, profile)
    for note in target.notes:
        errors.print(f"note: {note}", highlight=False, markup=False)
    with Generator() as generator, load_view(errors, profile) as on_progress:
        # Ctrl-C ends the run early, wherever it strikes; what was measured by then is the result.
        signal.signal(signal.SIGINT, lambda *_: generator.stop())
        measured = generator.measure(
            target, profile, on_progress=on_progress, samples_path=samples
        ).measurement
    if csv_path:
        _append(csv_path, measured)
    _show(measured, as_json)
    if not measured.complete:
        raise typer.Exit(EXIT_INTERRUPTED)
    if measured.verdict == "invalid":
        raise typer.Exit(EXIT_UNDECIDED)


def _show(measured: Measurement, as_json: bool) -> None:
    if as_json:
        json.dump(measured.model_dump(), sys.stdout, indent=2)
        print()
    else:
        Console().print(measurement_table(measured))


def _append(path: Path, measured: Measurement) -> None:
    """Add a row; the header is written once, into an empty file."""
    row = {k: v for k, v in measured.model_dump(exclude={"errors"}).items() if v is not None}
    with path.open("a", newline="") as stream:
        columns = [name for name in type(measured).model_fields if name != "errors"]
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        if stream.tell() == 0:
            writer.writeheader()
        writer.writerow(row)
