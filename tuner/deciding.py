"""How much more measuring would decide whether a bound holds. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dlbench.tuner.constraint import Z_95, ends, figure

if TYPE_CHECKING:
    from dlbench.tuner.constraint import Objective
    from dlbench.tuner.point import Point

# More than this is not promised to decide anything: drift will have come first.
MOST_TIMES = 100.0


def times_to_decide(objective: Objective, point: Point) -> float | None:
    """So many times the measuring would decide an undecided bound, None where none would.

    It takes the value for the truth, so it is as likely as not to be enough.
    """
    value = figure(point, objective.field)
    if value is None or math.isinf(value) or point.measurement is None:
        return None
    if objective.field == "error_rate":
        found = _for_share(value, objective.bound) / max(point.measurement.requests, 1)
    else:
        found = _for_interval(value, objective.bound, *ends(point, objective.field))
    return max(1.0, found) if found <= MOST_TIMES else None


def _for_share(share: float, bound: float) -> float:
    """Requests for which Wilson's interval ends at the bound: where the score test of it does."""
    if share == bound or not 0 < bound < 1:
        return math.inf
    return Z_95**2 * bound * (1 - bound) / (share - bound) ** 2


def _for_interval(value: float, bound: float, low: float | None, high: float | None) -> float:
    """The interval of a logarithm narrows with the root of what is measured."""
    end = high if value <= bound else low
    if not end or value <= 0 or bound <= 0 or value == bound:
        return math.inf
    return (math.log(end / value) / math.log(bound / value)) ** 2
