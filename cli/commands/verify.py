"""`dlbench verify`: does a study's recommendation still do what the study says?"""

from __future__ import annotations

import shlex
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlbench.cli.failure import EXIT_INTERRUPTED
from dlbench.cli.judged import JunitOption, MarkdownOption, Outputs, ToleranceOption, present
from dlbench.cli.options import AsJson, Quiet, duration, options_from, read
from dlbench.cli.terminal.output import notes_console
from dlbench.proxy.settings import ServerSettings
from dlbench.results.compare.comparison import rerun
from dlbench.results.compare.rerun import Rerun, measure_again, notes
from dlbench.tuner.storage.lock import check_free
from dlbench.tuner.storage.study import Study
from dlbench.tuner.verify.pool import TRUSTED_REPEATS
from dlbench.tuner.verify.verification import Verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

NAME = "verify"
EXAMPLES = """[bold]Examples[/]

dlbench verify mlp.db

dlbench verify mlp.db --tolerance 10% --junit dlbench.xml --markdown "$GITHUB_STEP_SUMMARY"

dlbench verify mlp.db --model new.onnx --rounds 5
"""
# What a study does not keep of its server; the rest is as it was.
ASKED = (
    *("device", "batch_axis", "shape", "rows_independent"),
    *("provider_option", "io_binding", "device_ids"),
)
LEFT_OUT = [name for name in ServerSettings.model_fields if name not in ASKED]


@options_from(ServerSettings, leave_out=LEFT_OUT)
def command(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="a finished study (.db) of dlbench tune")
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="the model's current path, or a newer model"),
    ] = None,
    rounds: Annotated[
        int,
        typer.Option("--rounds", metavar="N", min=1, help="how many times to measure everything"),
    ] = TRUSTED_REPEATS,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="DURATION",
            help="time limit, such as 30s; fewer rounds if they would take longer",
        ),
    ] = None,
    tolerance: ToleranceOption = "5%",
    junit: JunitOption = None,
    markdown: MarkdownOption = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    *,
    given: dict[str, Any],
) -> None:
    """Serve what a study recommends, load it as the study did, and hold the two against each other.

    Measured are the recommendation and, where it held, the default configuration: if both changed
    alike, look at the machine first. The study is left as it is. Exit codes: 0 no regression or it
    cannot be told, 1 failed, 2 wrong usage, 4 a regression, 130 interrupted.
    """
    outputs = Outputs.of(tolerance, junit, markdown, as_json=as_json, quiet=quiet)
    check_free(study)  # two that measure on one machine disturb each other
    kept = Study.open(study)
    result, told = Verified.of(kept.verified), {**given, **({"model": model} if model else {})}
    settings = read(ServerSettings, told, kept.settings)
    budget_s = None if budget is None else duration(budget, option="--budget")
    task = Rerun.of(kept, result, settings, rounds, budget_s)
    said, console = notes(kept, settings, task.pin), notes_console(quiet=quiet)
    for note in said:
        console.print(f"note: {note}")
    with interruptible(console), watching(console, task) as say:
        again = measure_again(task, say)
    before = {point.name: point for point in result.points}
    compared = rerun(before, again.points, [*said, *filter(None, [again.disturbed])])
    present(compared, outputs, shlex.join(["dlbench", "verify", study.name]))


@contextmanager
def watching(console: Console, task: Rerun) -> Iterator[Callable[[str], None]]:
    """Yield what says on this console how far it is: a status on a terminal, lines elsewhere."""
    console.print(f"{task.rounds} x {task.round_s:.0f} s of measuring, plus starting the server")
    if not console.is_terminal:
        yield console.print
        return
    with console.status("starting the server") as status:
        yield status.update


@contextmanager
def interruptible(console: Console) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a tidy end: everything stopped, the study as it was."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        console.print("interrupted: nothing was compared; the study is unchanged")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)
