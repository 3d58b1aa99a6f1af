"""What every benchmark takes and prints: its options, the machine, and tables of medians."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import machine
from benchmarks.peers import wrk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PACKAGES = ("onnxruntime-gpu", "uvloop", "httptools", "numpy")
console = Console(width=130, highlight=False)


class Report:
    """One run of a script: the options that it was given, and what it has to say."""

    def __init__(self, description: str) -> None:
        parser = argparse.ArgumentParser(description=description.splitlines()[0])
        parser.add_argument("--quick", action="store_true", help="a smoke run, no figures")
        parser.add_argument("--json", type=Path, help="keep the raw numbers in this file")
        options = parser.parse_args()
        self.quick: bool = options.quick
        self._path: Path | None = options.json
        self._facts = {**machine.facts(*PACKAGES), "wrk": wrk.version()}
        console.print(machine.show(self._facts))

    def keep(self, result: object) -> None:
        """Write the raw numbers where --json says."""
        if self._path:
            whole = {"facts": self._facts, "result": result}
            self._path.write_text(json.dumps(whole, indent=1, default=plain))


def plain(value: object) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def rounds(labels: Iterable[str], repeats: int) -> Iterator[list[str]]:
    """A B C, then C B A, and so on: whatever drifts, drifts for all."""
    order = list(labels)
    for number in range(repeats):
        yield order[:: 1 if number % 2 == 0 else -1]
        note(f"round {number + 1} of {repeats}")


def table(title: str, first: str, *others: str) -> Table:
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    made.add_column(first)
    for heading in others:
        made.add_column(heading, justify="right")
    return made


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """median (min-max)"""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def aim(what: str, values: Sequence[float], most: float, form: str = ".2f") -> None:
    """Say whether the median is at most `most`."""
    verdict(what, values, f"at most {most:{form}}", median(values) <= most, form)


def aim_over(what: str, values: Sequence[float], least: float, form: str = ".2f") -> None:
    """Say whether the median is at least `least`."""
    verdict(what, values, f"at least {least:{form}}", median(values) >= least, form)


def verdict(what: str, values: Sequence[float], wanted: str, reached: bool, form: str) -> None:
    word = "reached" if reached else "MISSED"
    console.print(f"aim: {what} {wanted}: {spread(values, form)}, {word}")


def note(text: str) -> None:
    console.print(f"[dim]{text}[/]")
