"""A study's points as windows of load, by configuration. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING

from dlbench.loadgen.rates.window import ClosedWindow, OpenWindow
from dlbench.tuner.point import ERROR_RATE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dlbench.loadgen.rates.window import Window
    from dlbench.tuner.point import Point

# Numbers of the moments that rounds of verification are: beyond any number of visits.
FIRST_ROUND = 1_000_000


def observed(points: Iterable[Point]) -> Mapping[str, tuple[Window, ...]]:
    """Configuration -> its windows, in the order of measuring.

    What is measured in one visit to a configuration shares a moment, and so does a whole round of
    verification, in which the configurations take turns.
    """
    found: defaultdict[str, list[Window]] = defaultdict(list)
    for visit, (_, own) in enumerate(groupby(points, key=_visit)):
        for point in own:
            moment = FIRST_ROUND + point.repeat if point.phase == "verify" else visit
            if (window := window_of(point, moment)) is not None:
                found[point.configuration].append(window)
    return {name: tuple(windows) for name, windows in found.items()}


def window_of(point: Point, moment: int) -> Window | None:
    """What a point says of its configuration's curve; None: nothing, as the client was the limit."""
    m = point.measurement
    if m is None or m.verdict == "invalid" or not m.requests:
        return None
    disturbed = bool(point.disturbances)
    if point.share is None:
        return ClosedWindow(m.throughput_rps, m.duration_s, disturbed, moment)
    rate = m.offered_rps or m.throughput_rps
    if m.verdict == "saturated":
        completed = m.throughput_rps if m.throughput_rps < rate else None
        return OpenWindow(rate, m.duration_s, None, False, True, completed, disturbed, moment)
    # Where more fail than may, the rate is too high for any bound, however quick the others were.
    p99_ms = math.inf if m.error_rate > ERROR_RATE_LIMIT else m.p99_ms
    return OpenWindow(rate, m.duration_s, p99_ms, disturbed=disturbed, moment=moment)


def _visit(point: Point) -> tuple[str, int]:
    return point.configuration, point.repeat if point.phase == "verify" else 0
