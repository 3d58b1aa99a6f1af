"""A benchmark longer than anyone waits: whatever was measured is kept at once, and not again."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import machine, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PACKAGES = ("onnxruntime-gpu", "uvloop", "numpy", "numba", "optuna")


class OutOfTime(Exception):
    """The time of this piece is over; the same command goes on from here."""


class Kept:
    """Results by name in a file of JSON lines; the script reads as if nothing ever stopped it."""

    def __init__(self, path: Path, for_s: float) -> None:
        self._path = path
        self._end_s = time.monotonic() + for_s
        self._found: dict[str, Any] = _read(path) if path.exists() else {}

    @property
    def left_s(self) -> float:
        """Seconds left to this piece."""
        return self._end_s - time.monotonic()

    @property
    def folder(self) -> Path:
        """Where what is no JSON lies: the studies and their logs."""
        folder = self._path.with_suffix(".studies")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What was kept under `name`; else made now and kept before anything else happens.

        Raises:
            OutOfTime: it would have to be made, and this piece is over.
        """
        if name not in self._found:
            if self.left_s <= 0:
                raise OutOfTime
            self.keep(name, make())
        return self._found[name]

    def keep(self, name: str, value: Any) -> None:
        line = json.dumps({"name": name, "value": value}, default=report.plain)
        self._found[name] = json.loads(line)["value"]
        with self._path.open("a") as file:
            file.write(line + "\n")

    def beginning(self, start: str) -> list[Any]:
        """Everything whose name begins so, in the order in which it was made."""
        return [value for name, value in self._found.items() if name.startswith(start)]


def _read(path: Path) -> dict[str, Any]:
    """The records, without the last one's half where a kill cut it short."""
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return {record["name"]: record["value"] for record in map(json.loads, whole.splitlines())}


def parser(description: str) -> argparse.ArgumentParser:
    """The options of every benchmark that runs in pieces."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--quick", action="store_true", help="a smoke run, no figures")
    made.add_argument("--json", type=Path, required=True, help="keep everything here, and go on")
    made.add_argument("--for", dest="for_s", type=seconds, default=1e9, help="stop after, as 500s")
    return made


def wanted(options: argparse.Namespace, models: Sequence[str]) -> Sequence[str]:
    """The models of this run: the one asked for, the first of a smoke run, else all."""
    if options.only:
        return [options.only]
    return models[:1] if options.quick else models


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


@contextmanager
def kept(options: argparse.Namespace) -> Iterator[Kept]:
    """The results so far; running out of time is told, not an error, and exits with 3."""
    found = Kept(options.json, options.for_s)
    facts = found.once("facts", lambda: machine.facts(*PACKAGES))
    report.console.print(machine.show(facts))
    try:
        yield found
    except OutOfTime:
        report.note(
            f"out of time: {options.json} keeps what was measured; the same command goes on"
        )
        sys.exit(3)
