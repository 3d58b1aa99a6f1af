"""What measurements cost: the arithmetic by which a study keeps to its budget. Pure.

All times are seconds of the wall clock, waiting for servers included.
"""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.point import Point

# With 7 % noise in capacity, 0.95 would be overload one time in four.
LOADS = (0.3, 0.5, 0.7, 0.9)
FEWER_LOADS = (LOADS, (0.5, 0.7, 0.9), (0.5, 0.9))
# MLPerf early stopping at p99 with no over-latency query needs 459.
SCREEN_REQUESTS = 459
SCREEN_S = 2.5
PROBE_S = 2.0
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
# So many repeats are kept time for: three are reported, the even ones choose (a
# reported p99 pools at least three). Time that is left over buys more. Fewer than the least, one
# that chooses and one that is reported, say nothing.
REPEATS, LEAST_REPEATS = 5, 2
MOST_REPEATS = 2 * REPEATS
# A bound that is still undecided is worth all the time that there is, and some that is kept for it:
# with a third of noise it takes ten repeats to know a p99 within a quarter.
DECIDING_REPEATS = 100
DECIDING_SHARE = 0.15
# What the client spoiled is made up for within so many rounds more, whatever the budget.
SPARE_REPEATS = 2
# A point that saturates in so many repeats and never holds is out.
HOPELESS_REPEATS = 2
REPORTED_REPEATS = 3
POOLED_REQUESTS = 2000
REPEAT_S = 1.5
# Verification takes at least the first share of the budget, at most the second.
LEAST_VERIFY_SHARE = 0.15
VERIFY_SHARE = 0.5
# For all service times of a calibration together: this share of the budget, between these.
SERVICES_SHARE, LEAST_SERVICES_S, SERVICES_S = 0.04, 3.0, 9.0
# A budget that cannot pay for so many whole curves measures fewer loads of each; one that leaves
# nothing out searches more.
LEAST_CONFIGURATIONS = 3
WORTHWHILE_CONFIGURATIONS = 8
WORTHWHILE_CANDIDATES = 6


class Candidate(NamedTuple):
    """An operating point about to be verified."""

    configuration: str
    config: ServingConfig
    share: float
    rate: float
    cut: float = 1.0

    @property
    def name(self) -> str:
        """The name of its points."""
        return f"{self.configuration}@{self.share:g}"

    @property
    def repeat_s(self) -> float:
        """Length of one repeat, so that those reported pool enough requests, or `cut` as many."""
        return max(REPEAT_S, self.cut * POOLED_REQUESTS / REPORTED_REPEATS / self.rate)


def window_s(wanted_s: float, budget_s: float) -> float:
    """Length of a measurement, so that the last one begun ends soon after the budget."""
    return min(wanted_s, max(LEAST_WINDOW_S, WINDOW_SHARE * budget_s))


def probe_s(batch_s: float) -> float:
    """Length of a probe of a configuration whose full batches take so long."""
    return min(MOST_PROBE_S, max(PROBE_S, PROBE_BATCHES * batch_s))


def screen_s(rate: float) -> float:
    """Length of a screening measurement: enough requests, and long enough to settle."""
    return max(SCREEN_S, math.ceil(SCREEN_REQUESTS / rate * 10) / 10)


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


def curve_s(
    capacity: float,
    loads: Sequence[float],
    switch_s: float = SWITCH_S,
    budget_s: float = math.inf,
) -> float:
    """What a configuration of this capacity costs: its start, a probe and every load."""
    windows = [PROBE_S, *(screen_s(share * capacity) for share in loads)]
    return switch_s + sum(window_s(wanted, budget_s) + WARMUP_S for wanted in windows)


def affordable_loads(capacity: float, configurations: int, budget_s: float) -> tuple[float, ...]:
    """The shares of capacity at which so many configurations can be measured."""
    within = (
        loads for loads in FEWER_LOADS if configurations * curve_s(capacity, loads) <= budget_s
    )
    return next(within, FEWER_LOADS[-1])


def skipped(lower: float, upper: float) -> tuple[float, ...]:
    """The highest load between two that a tight budget leaves out, if there is one."""
    return tuple(share for share in LOADS if lower < share < upper)[-1:]


def round_s(candidates: Sequence[Candidate], switch_s: float = SWITCH_S) -> float:
    """What one repeat of each of these takes, with a switch per configuration."""
    return _switches_s(candidates, switch_s) + sum(c.repeat_s + WARMUP_S for c in candidates)


def verify_s(candidates: Sequence[Candidate], switch_s: float = SWITCH_S) -> float:
    """What verifying these takes, as it should be."""
    return REPEATS * round_s(candidates, switch_s)


def least_verify_s(candidates: Sequence[Candidate], switch_s: float = SWITCH_S) -> float:
    """What verifying these takes at least, with the shortest and the fewest repeats."""
    measured_s = len(candidates) * (REPEAT_S + WARMUP_S)
    alone = len({c.configuration for c in candidates}) == 1  # it is not changed for another
    switches_s = 0.0 if alone else _switches_s(candidates, switch_s)
    return LEAST_REPEATS * (switches_s + measured_s)


def _switches_s(candidates: Sequence[Candidate], switch_s: float) -> float:
    return len({c.configuration for c in candidates}) * switch_s


def capped(candidate: Candidate, budget_s: float) -> Candidate:
    """The same, with repeats no longer than this budget's measurements."""
    return candidate._replace(
        cut=min(1.0, window_s(candidate.repeat_s, budget_s) / candidate.repeat_s)
    )


def shortened(candidates: Sequence[Candidate], most_s: float, switch_s: float) -> list[Candidate]:
    """The same, with as many requests as can be had in `most_s`, what takes longest cut alike."""
    asked_s = verify_s(candidates, switch_s)
    measured_s = REPEATS * sum(c.repeat_s for c in candidates)
    if asked_s <= most_s or not measured_s:
        return list(candidates)
    cut = max(0.0, 1 - (asked_s - most_s) / measured_s)
    return [c._replace(cut=cut * c.cut) for c in candidates]


def whole_s(
    capacity: float, default: ServingConfig, before_s: float, switch_s: float, *, bounded: bool
) -> float:
    """The budget that nothing has to be left out of: all loads, enough configurations, verified.

    `before_s` is what comes before the first measurement; `bounded`: there is a bound to decide.
    """
    typical = Candidate("", default, 0.7, 0.7 * capacity)
    curves_s = (WORTHWHILE_CONFIGURATIONS + 2) * curve_s(capacity, LOADS, switch_s)
    found = before_s + curves_s + WORTHWHILE_CANDIDATES * verify_s([typical], switch_s)
    return found / (1 - DECIDING_SHARE) if bounded else found


def services_s(budget_s: float) -> float:
    """Time for the service times of a calibration: all of it, or less of a small budget."""
    return min(SERVICES_S, max(LEAST_SERVICES_S, SERVICES_SHARE * budget_s))


def spent_s(points: Sequence[Point], before_s: float = 0.0) -> float:
    """The study's time when the last of these was recorded; of points that do not say, their costs."""
    if points and points[-1].spent_s is not None:
        return points[-1].spent_s
    return before_s + sum(p.cost_s for p in points)
