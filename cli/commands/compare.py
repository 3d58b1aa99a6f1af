"""`dlbench compare`: what changed between two results or two studies, and is it a regression?"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from dlbench.cli.failure import UsageError
from dlbench.cli.judged import JunitOption, MarkdownOption, Outputs, ToleranceOption, present
from dlbench.cli.options import AsJson, Quiet  # noqa: TC001 - Typer evaluates them
from dlbench.loadgen.analysis.differences import Runs
from dlbench.loadgen.analysis.samples import Samples
from dlbench.loadgen.control.result import LoadResult
from dlbench.loadgen.errors import DataError
from dlbench.results.compare.comparison import Compared, loads
from dlbench.results.compare.two_studies import Finished, studies
from dlbench.tuner.errors import NothingMeasured
from dlbench.tuner.storage.study import Study
from dlbench.tuner.verify.verification import Verified

NAME = "compare"
EXAMPLES = """[bold]Examples[/]

dlbench load http://127.0.0.1:8000 --rate 500 --samples a.npz --json > a.json

dlbench compare a.json b.json

dlbench compare a.json b.json --tolerance 10% --junit dlbench.xml --markdown -

dlbench compare before.db after.db
"""
SQLITE = b"SQLite format 3\0"


def command(
    first: Annotated[
        Path, typer.Argument(metavar="A", help="a result (dlbench load --json) or a study (.db)")
    ],
    second: Annotated[Path, typer.Argument(metavar="B", help="what to compare it with")],
    tolerance: ToleranceOption = "5%",
    junit: JunitOption = None,
    markdown: MarkdownOption = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare two results of `dlbench load`, or two studies: B against A, with 95 % intervals.

    The raw samples of results are used where both kept them (--samples), else the intervals
    reported. Exit codes: 0 no regression or it cannot be told, 1 failed, 2 wrong usage,
    4 a regression.
    """
    outputs = Outputs.of(tolerance, junit, markdown, as_json=as_json, quiet=quiet)
    present(
        _compared(first, second),
        outputs,
        shlex.join(["dlbench", "compare", first.name, second.name]),
    )


def _compared(first: Path, second: Path) -> Compared:
    kinds = _is_study(first), _is_study(second)
    if all(kinds):
        return studies(_finished(first), _finished(second))
    if any(kinds):
        raise UsageError(
            f"{first} and {second} are a result and a study; compare two results of dlbench load, "
            "or two studies"
        )
    results = LoadResult.read(first), LoadResult.read(second)
    return loads(*results, (_runs(results[0], first), _runs(results[1], second)))


def _is_study(path: Path) -> bool:
    """Tell by the first bytes; a path that is not a file is left for its reader to report."""
    if not path.is_file():
        return path.suffix == ".db"
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE


def _finished(path: Path) -> Finished:
    study = Study.open(path)
    result = Verified.of(study.verified)
    if not result.points:
        raise NothingMeasured(f"{path} is unfinished; resume it with {study.command}")
    return Finished(result, study.identity, study.calibration.get("versions", {}))


def _runs(result: LoadResult, path: Path) -> Runs | None:
    """The raw samples, where they were kept and still are."""
    if result.samples is None:
        return None
    try:
        return Runs.of([Samples.load(path.parent / result.samples)])
    except DataError:
        return None
