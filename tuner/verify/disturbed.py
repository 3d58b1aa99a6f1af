"""Which measurements came out otherwise because of what else ran meanwhile. Pure.

That something else ran is noted with every point (`disturbance.py`). It is said only where the
result moved: where nothing held, or not as well as in the other measurements of the same point.
"""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING

from dlbench.tuner.verify.drift import CAPACITY_LIMIT, P99_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dlbench.tuner.point import Point


def mattered(points: Iterable[Point]) -> list[Point]:
    """The disturbed ones whose result moved."""
    alike: dict[tuple[str, bool], list[Point]] = defaultdict(list)
    for point in points:
        alike[_key(point)].append(point)
    return [p for own in alike.values() for p in own if p.disturbances and _moved(p, own)]


def tally(points: Sequence[Point]) -> str:
    """How many measurements were changed by what else ran, with the last; "" if none was."""
    found = mattered(points)
    if not found:
        return ""
    return (
        f"{len(found)} of {len(points)} measurements were disturbed and gave different "
        f"results, such as {found[-1].name}: {found[-1].disturbances[0]}"
    )


def _key(point: Point) -> tuple[str, bool]:
    """Measurements of one point; those of the search and those of verification have other lengths."""
    return point.name, point.phase == "verify"


def _moved(point: Point, alike: Sequence[Point]) -> bool:
    measured = point.measurement
    if measured is None or measured.verdict != "ok":
        return True
    others = [p.measurement for p in alike if p is not point and p.measurement is not None]
    rates = [m.throughput_rps for m in others]
    p99s = [m.p99_ms for m in others if m.p99_ms is not None]
    return _beyond(measured.throughput_rps, rates, CAPACITY_LIMIT) or _beyond(
        measured.p99_ms, p99s, P99_LIMIT
    )


def _beyond(value: float | None, others: Sequence[float], limit: float) -> bool:
    """Whether a value is further from the others' median than equal measurements are."""
    usual = median(others) if others else 0.0
    if not value or usual <= 0 or not math.isfinite(value) or not math.isfinite(usual):
        return False
    return abs(math.log(value / usual)) > limit
