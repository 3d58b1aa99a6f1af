"""What measurements cost: the arithmetic by which a study keeps to its budget. Pure.

All times are seconds of the wall clock, waiting for servers included.
"""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.tuner.point import Point

# MLPerf early stopping at p99 with no over-latency query needs 459.
SCREEN_REQUESTS = 459
# Windows of the search and of the comparison, in seconds.
SCREEN_S, COMPARE_S = 1.5, 2.5
PROBE_S = 1.5
# A probe sees so many full batches of a slow model, if they do not take longer than this.
PROBE_BATCHES, MOST_PROBE_S = 4, 20.0
WARMUP_S = 0.3
# No measurement takes more of the budget than this share, and none is shorter than that.
WINDOW_SHARE, LEAST_WINDOW_S = 1 / 20, 1.0
# Of what the start leaves: calibrating ends at the first share of it, predicting at the second.
CALIBRATION_SHARE, FORESIGHT_SHARE = 0.25, 0.35
# Kept for what comes after the last measurement: servers end, the report is made.
REPORT_S = 1.0
# What a change of configuration costs beside the measuring, before any was seen: mostly the start
# of a worker. Warming a cache comes on top.
SWITCH_S = 1.4
# What one more load of the same configuration costs beside the measuring, before any was seen.
BESIDE_S = 0.3
# Kept for the comparison of the finalists with the default. It takes two rounds to tell them apart
# at all. After enough of them it ends once all that there is to decide is decided: what is left of
# the intervals is what no curve of three parameters can tell.
COMPARE_SHARE = 0.4
LEAST_ROUNDS, ENOUGH_ROUNDS, MOST_ROUNDS = 2, 10, 40
# Fewer configurations are compared where there is no time for so many rounds over them.
WORTHWHILE_ROUNDS, MOST_FINALISTS = 5, 3
# Windows of a configuration in a round: on either side of R(B), or at two bounds.
ROUND_WINDOWS = 2
# For all service times of a calibration together: this share of the budget, between these.
SERVICES_SHARE, LEAST_SERVICES_S, SERVICES_S = 0.04, 3.0, 9.0
# Windows of a configuration beside its probe: fewer where a budget cannot pay for so many
# configurations.
WINDOWS, FEWEST_WINDOWS = 3, 2
LEAST_CONFIGURATIONS = 12


def window_s(wanted_s: float, budget_s: float) -> float:
    """Length of a measurement, so that the last one begun ends soon after the budget."""
    return min(wanted_s, max(LEAST_WINDOW_S, WINDOW_SHARE * budget_s))


def probe_s(batch_s: float) -> float:
    """Length of a probe of a configuration whose full batches take so long."""
    return min(MOST_PROBE_S, max(PROBE_S, PROBE_BATCHES * batch_s))


def open_s(rate: float, least_s: float = SCREEN_S) -> float:
    """Length of a window at a rate: enough requests for a p99, and long enough to settle."""
    return max(least_s, math.ceil(SCREEN_REQUESTS / rate * 10) / 10)


def switch_s(points: Sequence[Point], first_s: float = SWITCH_S) -> float:
    """What a change of configuration costs here, in the median: what probes took beside probing."""
    return _beside_s([p for p in points if p.phase == "probe"], first_s)


def beside_s(points: Sequence[Point]) -> float:
    """What one more load of the same configuration costs beside its measuring, in the median."""
    following = pairwise(points)
    return _beside_s([p for before, p in following if before.config == p.config], BESIDE_S)


def _beside_s(points: Sequence[Point], unknown_s: float) -> float:
    found = [p.cost_s - p.measurement.duration_s - WARMUP_S for p in points if p.measurement]
    return max(0.0, median(found)) if found else unknown_s


def round_s(configurations: int, windows: int, window_s: float, switch_s: float) -> float:
    """What a round takes: each is started, warmed and measured; one alone is started but once."""
    switches = configurations if configurations > 1 else 0
    return switches * switch_s + configurations * windows * (window_s + WARMUP_S + BESIDE_S)


def curve_s(
    capacity: float, windows: int, switch_s: float = SWITCH_S, budget_s: float = math.inf
) -> float:
    """What a configuration of this capacity costs: its start, a probe and every window."""
    each_s = window_s(open_s(capacity), budget_s) + WARMUP_S + BESIDE_S
    return switch_s + window_s(PROBE_S, budget_s) + WARMUP_S + windows * each_s


def affordable_windows(capacity: float, configurations: int, within_s: float) -> int:
    """At how many rates so many configurations can be measured."""
    wanted = range(WINDOWS, FEWEST_WINDOWS, -1)
    return next(
        (n for n in wanted if configurations * curve_s(capacity, n) <= within_s), FEWEST_WINDOWS
    )


def affordable_finalists(left_s: float, turn_s: float, least_turn_s: float) -> int:
    """How many can be compared with the default in so much time.

    `turn_s` is what one of them takes of a round, `least_turn_s` that with the fewest windows: one is
    compared where that is all there is time for, none where even that is not.
    """
    able = int(left_s / (WORTHWHILE_ROUNDS * turn_s)) - 1
    least = 1 if left_s >= 2 * LEAST_ROUNDS * least_turn_s else 0
    return max(least, min(MOST_FINALISTS, able))


def whole_s(window_s: float, switch_s: float, before_s: float) -> float:
    """The budget with which the comparison tells all that it can tell."""
    each_s = round_s(1 + MOST_FINALISTS, ROUND_WINDOWS, window_s, switch_s)
    return before_s + ENOUGH_ROUNDS * each_s / COMPARE_SHARE


def services_s(budget_s: float) -> float:
    """Time for the service times of a calibration: in full, or less for a small budget."""
    return min(SERVICES_S, max(LEAST_SERVICES_S, SERVICES_SHARE * budget_s))


def spent_s(points: Sequence[Point], before_s: float = 0.0) -> float:
    """The study's time when the last of these was recorded; for points without it, their costs."""
    if points and points[-1].spent_s is not None:
        return points[-1].spent_s
    return before_s + sum(p.cost_s for p in points)
