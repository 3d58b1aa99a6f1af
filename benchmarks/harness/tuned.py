"""`dlbench tune` as a person runs it: a process with options, resumed where it was stopped."""

from __future__ import annotations

import csv
import re
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.harness.in_pieces import OutOfTime
from benchmarks.harness.process import BenchmarkError, running
from benchmarks.harness.report import note
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.knob import KNOBS
from dlbench.tuner.front import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from subprocess import Popen

    from benchmarks.harness.in_pieces import Kept

DLBENCH = (sys.executable, "-m", "dlbench.cli.main")
# Options that name files, and how their names end.
FILES = {"study": "db", "csv": "csv", "recommended": "toml"}
SCREENED = ("baseline", "screen")
HELD = ("ok", "unsteady")


@dataclass(frozen=True)
class Winner:
    """An operating point that a study vouches for."""

    config: ServingConfig
    rate_rps: float
    recommended: bool


@dataclass(frozen=True)
class Answer:
    """What a study said: its CSV, its last lines, and how long it took from start to end."""

    rows: list[dict[str, str]]
    text: str
    wall_s: float

    @property
    def front(self) -> list[Winner]:
        """The verified front."""
        return [
            Winner(config_of(row), float(row["offered_rps"]), row["recommended"] == "true")
            for row in self.rows
            if row["phase"] == "verify" and row["on_front"] == "true"
        ]

    @property
    def measured(self) -> list[tuple[ServingConfig, Outcome]]:
        """What it screened and could stand on a front."""
        return [
            (config_of(row), Outcome(float(row["throughput_rps"]), float(row["p99_ms"])))
            for row in self.rows
            if row["phase"] in SCREENED and row["verdict"] in HELD and "p99_ms" in row
        ]

    @property
    def recommended(self) -> Winner:
        return next(winner for winner in self.front if winner.recommended)


def tune(
    kept: Kept, name: str, model: str, budget_s: float, options: Sequence[object] = ()
) -> Answer:
    """Run the study `name` to its end, or as far as this piece's time goes.

    Raises:
        OutOfTime: it is not finished; the next piece goes on with it.
        BenchmarkError: it recommends nothing, or failed.
    """
    chosen = ["--budget", f"{budget_s:.0f}s", "--device", "cpu", *options]
    found = kept.once(f"{name}/answer", lambda: _run(kept, name, model, chosen))
    return Answer(**found)


def _run(kept: Kept, name: str, model: str, options: Sequence[object]) -> dict[str, Any]:
    stem = kept.folder / re.sub(r"\W+", "-", name)
    files = {f"--{kind}": stem.with_suffix(f".{end}") for kind, end in FILES.items()}
    command = [
        *DLBENCH,
        "tune",
        model,
        *options,
        *(part for pair in files.items() for part in pair),
    ]
    note(" ".join(map(str, command[2:])))
    began = time.monotonic()
    said = stem.with_suffix(".txt")
    try:
        with said.open("w") as out, running(command, stdout=out.fileno()) as process:
            _wait(process, kept.left_s, said)
    finally:
        pieces = len(kept.beginning(f"{name}/piece"))
        kept.keep(f"{name}/piece {pieces + 1}", time.monotonic() - began)
    rows = read(files["--csv"].read_text())
    wall_s = sum(kept.beginning(f"{name}/piece"))
    return {"rows": rows, "text": said.read_text(), "wall_s": wall_s}


def _wait(process: Popen[str], most_s: float, said: Path) -> None:
    """Until it is done; at the end of the time it is stopped, which a study survives."""
    end_s = time.monotonic() + most_s
    while process.poll() is None:
        if time.monotonic() > end_s:
            raise OutOfTime
        time.sleep(0.1)
    if process.returncode:
        raise BenchmarkError(f"tune ended with {process.returncode}\n{said.read_text()[-2000:]}")


def read(text: str) -> list[dict[str, str]]:
    """The rows of a study's CSV, without what was not measured."""
    rows = csv.DictReader(text.splitlines())
    return [{name: cell for name, cell in row.items() if cell} for row in rows]


def config_of(row: dict[str, str]) -> ServingConfig:
    """The configuration of a CSV row; what is no knob there is passed over."""
    return ServingConfig.model_validate({knob: row[knob] for knob in KNOBS if knob in row})


def in_words(config: ServingConfig) -> str:
    """Workers x batch size, and every knob that is not at its default."""
    default = ServingConfig().resolved("cpu")
    plain = ("workers", "max_batch_size")
    others = [
        f"{knob} {value}"
        for knob, value in config.model_dump().items()
        if knob not in plain and value != getattr(default, knob)
    ]
    return ", ".join([f"{config.workers} x {config.max_batch_size}", *others])
