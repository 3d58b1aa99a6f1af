"""`dlbench studies`: the studies in a folder, their subjects and their progress."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from dlbench.cli.failure import UsageError
from dlbench.cli.options import AsJson, Quiet  # noqa: TC001 - Typer resolves them at run time
from dlbench.cli.terminal.output import notes_console, print_json, result_console
from dlbench.results.findings import numbers
from dlbench.tuner.storage.study import FORMAT, Study
from dlbench.tuner.verify.verification import Verified

NAME = "studies"
EXAMPLES = """[bold]Examples[/]

dlbench studies

dlbench studies results --json
"""
OURS = """
    SELECT 1 FROM studies JOIN study_user_attributes USING (study_id)
    WHERE study_name = 'dlbench' AND key = 'format' AND value_json = ?
"""


@dataclass(frozen=True)
class StudyRow:
    """A study in one line. `spent_s` is the wall time of all its sittings."""

    study: str
    model: str
    device: str
    configurations: int
    points: int
    spent_s: float
    state: str  # "finished", "under way"
    recommended: str  # "": nothing is


def command(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="folder to search (default: the current one)", show_default=False
        ),
    ] = Path(),
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """List the studies in a folder; nothing in it is changed, other files are passed over."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder"
        raise UsageError(f"FOLDER {folder}: {what}")
    rows = [_row(path) for path in sorted(folder.glob("*.db")) if _is_study(path)]
    if as_json:
        print_json([asdict(row) for row in rows])
    elif rows:
        result_console().print(_table(rows))
    else:
        notes_console(quiet=quiet).print(f"no study of dlbench tune in {folder.resolve()}")


def _is_study(path: Path) -> bool:
    """Read-only: Optuna would create its tables in any SQLite file it opens."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as file:
            return file.execute(OURS, (str(FORMAT),)).fetchone() is not None
    except sqlite3.Error:
        return False


def _row(path: Path) -> StudyRow:
    study = Study.open(path)
    points, result = study.points(), Verified.of(study.verified)
    pick = result.recommended
    return StudyRow(
        study=path.name,
        model=Path(study.identity["model"]).name,
        device=study.identity["device"],
        configurations=len({point.config for point in points}),
        points=len(points),
        spent_s=round(study.spent_s, 1),
        state="finished" if result.points or study.has_ended else "under way",
        recommended=f"{pick.name}: {numbers(pick)}" if pick else "",
    )


def _table(rows: list[StudyRow]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("study", "model", "device"):
        table.add_column(name, overflow="fold")
    for name in ("points", "minutes"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("recommended", overflow="fold")
    for row in rows:
        figures = (row.points, f"{row.spent_s / 60:.1f}")
        cells = (row.study, row.model, row.device, *figures, _result(row))
        table.add_row(*(Text(str(cell)) for cell in cells))
    return table


def _result(row: StudyRow) -> str:
    """The result, on two lines that leave room for the names."""
    if row.state != "finished":
        return row.state
    return row.recommended.replace(" at p99", "\np99") or "nothing"
