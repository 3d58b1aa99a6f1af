"""`dlbench compare`: do two results of `dlbench load` differ, and can the data tell?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from dlbench.loadgen.comparison import Runs, compare, compare_measurements
from dlbench.loadgen.errors import DataError
from dlbench.loadgen.result import LoadResult
from dlbench.loadgen.samples import Samples

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dlbench.loadgen.comparison import Comparison, Difference

NAME = "compare"
EXAMPLES = """[bold]Examples[/]

dlbench load http://127.0.0.1:8000 --rate 500 --samples a.npz --json > a.json

dlbench compare a.json b.json
"""
CONCLUSIONS = {
    True: "They differ; by chance alone all the figures together would say so once in 20 times.",
    False: "The data cannot tell them apart.",
}
STYLES = {"lower": "bold", "higher": "bold", "cannot tell": "dim"}


def command(
    first: Annotated[Path, typer.Argument(metavar="A", help="a result (dlbench load --json)")],
    second: Annotated[Path, typer.Argument(metavar="B", help="the result to compare with it")],
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON document on standard output")
    ] = False,
) -> None:
    """Compare two results of `dlbench load`: each figure of B against A, with a 95 % interval.

    The raw samples are used where both results kept them (--samples), else the intervals reported.
    """
    results = LoadResult.read(first), LoadResult.read(second)
    found = _compare(*results, (first, second))
    if as_json:
        json.dump(_document(found), sys.stdout, indent=2)
        print()
    else:
        Console().print(_table(found, results))


def _compare(first: LoadResult, second: LoadResult, paths: tuple[Path, Path]) -> Comparison:
    runs = [_runs(result, path) for result, path in zip((first, second), paths, strict=True)]
    if runs[0] and runs[1]:
        return compare(runs[0], runs[1])
    return compare_measurements(first, second)


def _runs(result: LoadResult, path: Path) -> Runs | None:
    """The raw samples, where they were kept and still are."""
    if result.samples is None:
        return None
    try:
        return Runs.of([Samples.load(path.parent / result.samples)])
    except DataError:
        return None


def _document(found: Comparison) -> dict[str, Any]:
    figures = {
        one.name: {
            "first": one.first,
            "second": one.second,
            "ratio": one.ratio,
            "ratio_low": one.interval[0],
            "ratio_high": one.interval[1],
            "word": one.word,
        }
        for one in found.differences
    }
    return {"differ": found.tells, "figures": figures}


def _table(found: Comparison, results: tuple[LoadResult, LoadResult]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for title in ("A", "B", "B / A", "95 %"):
        table.add_column(title, justify="right")
    table.add_column("B is")
    for one in found.differences:
        table.add_row(
            one.name,
            f"{one.first:,.4g}",
            f"{one.second:,.4g}",
            "" if one.ratio is None else f"{one.ratio:.3g}",
            _interval(one),
            one.word,
            style=STYLES[one.word],
        )
    return Group(*_doubts(results), table, Text(CONCLUSIONS[found.tells]))


def _interval(one: Difference) -> str:
    low, high = one.interval
    return "undetermined" if low is None or high is None else f"{low:.3g} to {high:.3g}"


def _doubts(results: tuple[LoadResult, LoadResult]) -> list[Text]:
    """What stands against comparing these two at all."""
    found = [
        f"{side} is {result.verdict}: {result.reason}"
        for side, result in zip("AB", results, strict=True)
        if result.verdict != "ok"
    ]
    first, second = results
    found += [
        f"the two differ in their {what}"
        for what, differ in {
            "load": first.schedule != second.schedule,
            "processor": first.machine.cpu != second.machine.cpu,
        }.items()
        if differ
    ]
    return [Text(f"note: {text}", style="yellow") for text in found]
