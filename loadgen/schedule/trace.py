"""A recorded load: the arrival times in a CSV file, in the first of its columns."""

from __future__ import annotations

import csv
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray


def times_s(path: str) -> NDArray[np.float64]:
    """The arrivals in seconds from the first one. Raises DataError for what is not a trace.

    A header, further columns and empty lines are passed over; the times must not fall, so that a
    wrong column or two files in one are noticed rather than sorted into something plausible.
    """
    try:
        # The encoding forgives the mark with which spreadsheets begin a file.
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            times = _parsed(path, file)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if not len(times):
        raise DataError(f"{path}: no arrival times in its first column")
    falls = np.flatnonzero(np.diff(times) < 0)
    if len(falls):
        earlier, later = times[falls[0] + 1], times[falls[0]]
        raise DataError(
            f"{path}: the times are not sorted, {earlier:.9g} s comes after {later:.9g} s"
        )
    times -= times[0]
    return times


def scheduled_s(path: str, scale: float, span_s: float) -> NDArray[np.float64]:
    """The trace's times stretched by `scale`, and cut at `span_s`. Raises DataError."""
    times: NDArray[np.float64] = times_s(path) * scale
    return times[: int(np.searchsorted(times, span_s))]


def _parsed(path: str, lines: Iterable[str]) -> NDArray[np.float64]:
    rows = csv.reader(lines)
    try:
        times = np.fromiter(map(float, _first_cells(rows)), np.float64)
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}, line {rows.line_num}: {error}") from error
    if not np.isfinite(times).all():
        raise DataError(f"{path}: an arrival time must be a finite number of seconds")
    return times


def _first_cells(rows: Iterable[list[str]]) -> Iterator[str]:
    cells = (row[0] for row in rows if row)
    first = next(cells, "")
    return chain([first] if _is_number(first) else [], cells)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
