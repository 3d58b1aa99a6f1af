"""What measurements cost: the arithmetic by which a study keeps to its budget. Pure.

All times are seconds of measuring, waiting for servers included.
"""

from __future__ import annotations

import math
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
# What a change of configuration costs beside the measuring, before any was seen: mostly the start
# of a worker. Warming a cache comes on top.
SWITCH_S = 1.4
# So many repeats are kept time for: three are reported, the even ones choose (a
# reported p99 pools at least three). Time that is left over buys more.
REPEATS = 5
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
# A budget that cannot pay for so many whole curves measures fewer loads of each; the answer that is
# called trustworthy has searched more.
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


def probe_s(batch_s: float) -> float:
    """Length of a probe of a configuration whose full batches take so long."""
    return min(MOST_PROBE_S, max(PROBE_S, PROBE_BATCHES * batch_s))


def screen_s(rate: float) -> float:
    """Length of a screening measurement: enough requests, and long enough to settle."""
    return max(SCREEN_S, math.ceil(SCREEN_REQUESTS / rate * 10) / 10)


def switch_s(points: Sequence[Point]) -> float:
    """What a change of configuration costs here, in the median: what probes took beside probing."""
    found = [p.cost_s - PROBE_S - WARMUP_S for p in points if p.phase == "probe" and p.measurement]
    return max(0.0, median(found)) if found else SWITCH_S


def curve_s(capacity: float, loads: Sequence[float], switch_s: float = SWITCH_S) -> float:
    """What a configuration of this capacity costs: its start, a probe and every load."""
    measured = sum(screen_s(share * capacity) + WARMUP_S for share in loads)
    return switch_s + PROBE_S + WARMUP_S + measured


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
    switches = len({c.configuration for c in candidates}) * switch_s
    return switches + sum(c.repeat_s + WARMUP_S for c in candidates)


def verify_s(candidates: Sequence[Candidate], switch_s: float = SWITCH_S) -> float:
    """What verifying these takes at least."""
    return REPEATS * round_s(candidates, switch_s)


def shortened(candidates: Sequence[Candidate], most_s: float, switch_s: float) -> list[Candidate]:
    """The same, with as many requests as can be had in `most_s`, what takes longest cut alike."""
    asked_s = verify_s(candidates, switch_s)
    measured_s = REPEATS * sum(c.repeat_s for c in candidates)
    if asked_s <= most_s or not measured_s:
        return list(candidates)
    cut = max(0.0, 1 - (asked_s - most_s) / measured_s)
    return [c._replace(cut=cut) for c in candidates]


def trustworthy_s(capacity: float, default: ServingConfig) -> float:
    """How long a trustworthy answer takes: all loads, enough configurations, verified."""
    typical = Candidate("", default, 0.7, 0.7 * capacity)
    curves = (WORTHWHILE_CONFIGURATIONS + 2) * curve_s(capacity, LOADS)
    return curves + WORTHWHILE_CANDIDATES * verify_s([typical])


def services_s(budget_s: float) -> float:
    """Time for the service times of a calibration: all of it, or less of a small budget."""
    return min(SERVICES_S, max(LEAST_SERVICES_S, SERVICES_SHARE * budget_s))


def spent_s(points: Sequence[Point]) -> float:
    """Time that measuring took so far."""
    return sum(p.cost_s for p in points)
