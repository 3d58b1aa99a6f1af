"""What `compare` and `verify` share: their options, what they print and write, how they end."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from dlbench.cli.failure import EXIT_REGRESSION, UsageError
from dlbench.cli.terminal.output import check_writable, print_json, result_console, write_file
from dlbench.results.compare.junit import junit
from dlbench.results.compare.regression import judge
from dlbench.results.compare.renderings import conclusion, document, how_to_read, markdown, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from dlbench.results.compare.comparison import Compared
    from dlbench.results.compare.regression import Judgement

STANDARD_OUTPUT = "-"
OUTCOME_STYLES = {"regression": "bold red", "no regression": "green", "cannot tell": "yellow"}
VERDICT_STYLES = {"regression": "bold", "better": "bold", "traded": "bold", "cannot tell": "dim"}
SHARE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*")

ToleranceOption = Annotated[
    str,
    typer.Option(
        "--tolerance",
        metavar="SHARE",
        help="how much worse still counts as no regression, such as 5% or 0.05",
    ),
]
JunitOption = Annotated[
    str | None,
    typer.Option("--junit", metavar="FILE", help="write JUnit XML; -: standard output"),
]
MarkdownOption = Annotated[
    str | None,
    typer.Option("--markdown", metavar="FILE", help="write Markdown; -: standard output"),
]


class Outputs(NamedTuple):
    """Where the result goes besides the terminal, and the tolerated loss."""

    tolerance: float
    junit: str | None
    markdown: str | None
    as_json: bool
    quiet: bool

    @classmethod
    def of(
        cls, tolerance: str, junit: str | None, markdown: str | None, *, as_json: bool, quiet: bool
    ) -> Outputs:
        """Raises UsageError, before anything is measured."""
        if [junit, markdown].count(STANDARD_OUTPUT) + as_json > 1:
            raise UsageError(
                "only one of --json, --junit - and --markdown - can write to standard output"
            )
        for option, file in (("--junit", junit), ("--markdown", markdown)):
            check_writable(option, None if file in (None, STANDARD_OUTPUT) else Path(file))
        return cls(read_share(tolerance), junit, markdown, as_json, quiet)


def read_share(text: str) -> float:
    """The share that `5%` or `0.05` means. Raises UsageError."""
    found = SHARE.fullmatch(text)
    share = float(found[1]) / (100 if found[2] else 1) if found else 1.0
    if not found or share >= 1:
        raise UsageError(f"--tolerance {text}: must be a share below 100%, such as 5% or 0.05")
    return share


def present(compared: Compared, outputs: Outputs, name: str) -> None:
    """Print and write the result; exit with code 4 on a regression."""
    judgement = judge(compared, outputs.tolerance)
    if outputs.as_json:
        print_json(document(judgement))
    elif STANDARD_OUTPUT not in (outputs.junit, outputs.markdown):
        result_console().print(*_report(judgement, quiet=outputs.quiet), sep="\n")
    _write("--junit", outputs.junit, junit(judgement, name))
    _write("--markdown", outputs.markdown, markdown(judgement, name))
    if judgement.outcome == "regression":
        raise typer.Exit(EXIT_REGRESSION)


def _write(option: str, file: str | None, text: str) -> None:
    if file == STANDARD_OUTPUT:
        sys.stdout.write(text)
    elif file is not None:
        write_file(option, Path(file), text.encode())


def _report(judgement: Judgement, *, quiet: bool) -> Iterator[RenderableType]:
    """The notes, the figures, the verdict."""
    if not quiet:
        yield from (Text(f"note: {n}", style="yellow") for n in judgement.compared.notes)
    yield _table(judgement)
    if not quiet:
        yield Text(how_to_read(judgement), style="dim")
    yield Text(conclusion(judgement), style=OUTCOME_STYLES[judgement.outcome])


def _table(judgement: Judgement) -> Table:
    first, second = judgement.compared.sides
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for title in (first, second, f"{second} is", "95 %"):
        table.add_column(title, justify="right")
    table.add_column("")
    for subject, cells, style in _lines(judgement):
        if subject:
            table.add_row(Text(subject, style="bold"))
        table.add_row(*map(Text, cells), style=style)
    return table


def _lines(judgement: Judgement) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Heading (where a new subject begins), cells and style of each row."""
    before = ""
    for subject, *cells in rows(judgement):
        yield subject if subject != before else "", tuple(cells), VERDICT_STYLES.get(cells[-1], "")
        before = subject
