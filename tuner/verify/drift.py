"""Whether the machine still is what it was: a reference, measured again every ten minutes. Pure.

The reference is the default configuration: its capacity and its p99 at one fixed rate, both as
first measured with the baselines.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from dlbench.loadgen.analysis.statistics import Z_95
from dlbench.tuner.search.correction import CAPACITY_NOISE, P99_NOISE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.tuner.point import Point

REFERENCE = "default"
REFERENCE_SHARE = 0.7
EVERY_S = 600.0
# Two measurements of the same thing differ by this factor one time in twenty.
CAPACITY_LIMIT = Z_95 * math.sqrt(2) * CAPACITY_NOISE
P99_LIMIT = Z_95 * math.sqrt(2) * P99_NOISE


class Drift(NamedTuple):
    """Latest over first measurement of the reference; None where one of them did not hold."""

    capacity: float | None
    p99: float | None

    @property
    def beyond_noise(self) -> bool:
        """Whether more changed than equal measurements differ by."""
        changes = ((self.capacity, CAPACITY_LIMIT), (self.p99, P99_LIMIT))
        return any(ratio is None or abs(math.log(ratio)) > limit for ratio, limit in changes)

    def __str__(self) -> str:
        found = f"capacity {_times(self.capacity)}, p99 {_times(self.p99)} of its first value"
        verdict = "more than noise: compare early and late points with care"
        return f"the default again: {found}{f'; {verdict}' if self.beyond_noise else ''}"


def drift(points: Sequence[Point]) -> Drift | None:
    """What became of the reference, None before it was measured twice."""
    first = reference(points)
    again = [p for p in points if p.phase == "drift"]
    loads = [p for p in again if p.share is not None]
    if first is None or not loads:
        return None
    probes = [p for p in points if p.phase == "probe" and p.config == first.config]
    probes += [p for p in again if p.share is None]
    return Drift(
        _ratio(_throughput(probes[0]), _throughput(probes[-1])),
        _ratio(_p99(first), _p99(loads[-1])),
    )


def reference(points: Sequence[Point]) -> Point | None:
    """The default's first point that held nearest to 0.7 of its capacity."""
    held = [p for p in points if p.phase == "baseline" and p.outcome and _is_reference(p)]
    return min(held, key=lambda p: abs((p.share or 0.0) - REFERENCE_SHARE), default=None)


def since_reference(points: Sequence[Point]) -> Sequence[Point]:
    """What was measured since the reference was, at its load."""
    last = max((i for i, p in enumerate(points) if _loads_reference(p)), default=-1)
    return points[last + 1 :]


def _loads_reference(point: Point) -> bool:
    return point.phase in ("baseline", "drift") and point.share is not None and _is_reference(point)


def _is_reference(point: Point) -> bool:
    return point.configuration == REFERENCE


def _throughput(point: Point) -> float | None:
    return point.measurement.throughput_rps if point.measurement else None


def _p99(point: Point) -> float | None:
    return point.outcome.p99_ms if point.outcome else None


def _ratio(first: float | None, latest: float | None) -> float | None:
    return latest / first if first and latest else None


def _times(ratio: float | None) -> str:
    return "unknown" if ratio is None else f"{ratio:.0%}"
