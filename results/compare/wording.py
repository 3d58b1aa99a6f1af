"""A change in words: its two values, by how much they differ, and how sure that is. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dlbench.loadgen.quantity import (
    HIGHER,
    SLOWER,
    UNDETERMINED,
    change_interval,
    latency,
)
from dlbench.loadgen.quantity import change as in_words
from dlbench.results.compare.comparison import ERROR_RATE

if TYPE_CHECKING:
    from dlbench.loadgen.quantity import Sides
    from dlbench.results.compare.comparison import Change


def values(change: Change) -> tuple[str, str]:
    """Both figures, in their own unit."""
    if change.figure == ERROR_RATE:
        return f"{change.first:.2%}", f"{change.second:.2%}"
    first, second = zip((change.first, change.second), change.longest_ms, strict=True)
    return latency(*first), latency(*second)


def by_how_much(change: Change) -> str:
    """`450 times faster`, of an error rate `+1.20%`; "" if there is no ratio."""
    if change.figure == ERROR_RATE:
        return f"{change.second - change.first:+.2%}"
    if change.ratio is None:
        return ""
    if math.isfinite(change.ratio) and change.ratio > 0:
        return in_words(change.ratio, _sides(change))
    return f"> {in_words(least, _sides(change))}" if (least := _known(change)) else ""


def interval(change: Change) -> str:
    """Of the ratio, of an error rate of the difference."""
    low, high = change.interval
    if change.figure != ERROR_RATE:
        return change_interval(low, high, _sides(change))
    return UNDETERMINED if low is None or high is None else f"{low:+.2%} to {high:+.2%}"


def _known(change: Change) -> float | None:
    """The ratio with what an infinite latency is longer than in its place."""
    first, second = (
        longest if math.isinf(value) else value
        for value, longest in zip((change.first, change.second), change.longest_ms, strict=True)
    )
    return second / first if first and second else None


def _sides(change: Change) -> Sides:
    return SLOWER if change.figure.endswith("_ms") else HIGHER
