"""`dlbench doctor`: what this machine can do, and what will spoil a measurement on it."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from dlbench.cli.failure import EXIT_FAILED
from dlbench.cli.options import AsJson, Quiet  # noqa: TC001 - Typer resolves them at run time
from dlbench.cli.terminal.output import notes_console, print_json, result_console
from dlbench.doctor.checkup import examine
from dlbench.doctor.facts import gather
from dlbench.doctor.finding import worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dlbench.doctor.finding import Finding

NAME = "doctor"
EXAMPLES = """[bold]Examples[/]

dlbench doctor

dlbench doctor && dlbench tune model.onnx

dlbench doctor --json > machine.json
"""
STYLES = {"good": "green", "note": "yellow", "bad": "bold red", "unknown": "dim"}
CONCLUSIONS = {
    "good": "Nothing here spoils a measurement.",
    "unknown": "Nothing here is known to spoil a measurement.",
    "note": "Figures measured here are reliable; mind the notes.",
    "bad": "Figures measured here are not reliable; see the lines marked bad.",
}


def command(
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Examine this machine: what runs models, and what will spoil a measurement.

    Each line is good, a note (figures are still reliable), bad (they are not,
    or something is broken) or unknown, followed by what to do.
    The machine is watched idle for a second: leave it alone meanwhile.

    Exit codes: 0 nothing is bad, 1 something is.
    """
    # Not a spinner: its thread would be what wakes up, and what wakes others late.
    notes = notes_console(quiet=quiet)
    notes.print("watching the idle machine for a second, then trying each device …", style="dim")
    facts = gather(Path())
    findings = examine(facts)
    verdict = worst(one.verdict for one in findings)
    if as_json:
        said = [one.model_dump() for one in findings]
        document = {"verdict": verdict, "findings": said, "facts": facts.model_dump(mode="json")}
        print_json(document)
    else:
        _show(findings, verdict)
    raise typer.Exit(EXIT_FAILED if verdict == "bad" else 0)


def _show(findings: Sequence[Finding], verdict: str) -> None:
    console = result_console()
    for group, members in groupby(findings, key=lambda one: one.group):
        console.print(Text(group, style="bold"), _table(members), sep="\n")
    console.print(Text(f"\n{CONCLUSIONS[verdict]}", style=STYLES[verdict]))


def _table(findings: Iterable[Finding]) -> Table:
    """The advice has a line of its own, so that its command can be copied."""
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(width=7)
    table.add_column(overflow="fold")
    for one in findings:
        seen = Text(f"{one.name:<15}{one.seen}")
        seen.append(f"\n{one.advice}" if one.advice else "", style="cyan")
        table.add_row(Text(one.verdict, style=STYLES[one.verdict]), seen)
    return table
