"""How many workers there should be: pure decisions, about one a second.

A sizing says for one look how many workers are too few and how many too many; between the two
nothing changes. `Damped` turns that into decisions: out at once, in only slowly.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil, exp, inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

from dlbench.proxy.serving.erlang import service_quantile_s, workers_needed
from dlbench.proxy.serving.forecast import HoltTrend

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.config import ServingConfig

# Kubernetes' HorizontalPodAutoscaler waits 300 s before it scales in. A worker starts sooner than a
# pod, so one given back too early costs less; at 60 s noise alone gave workers back and forth.
SCALE_IN_WINDOW_S = 120.0
# Twice the start of a worker: what is measured before the last ones work would order them again.
SCALE_OUT_COOL_DOWN_S = 2.0
# A worker is given back only if the others would hold so much more than arrives. Counts of a
# second scatter by 10 % at 100/s, and the highest of a window lies two such deviations up.
SCALE_IN_MARGIN = 1.25
# What waits counts as if it arrived over this time, so a backlog is worked off, not only halted.
# benchmarks/simulated/autoscalers.py: at 1 s fewer requests of a spike are late (18 % against 24 %), but the
# noise of short queues passes for load and workers come and go twice as often; 5 s is the reverse.
DRAIN_S = 2.0


@dataclass(frozen=True)
class Observed:
    """What one look at the workers saw; "since" means since the last look."""

    now_s: float
    workers: int  # live and starting, without those that drain
    utilisation: float  # busy share of `workers` since, 0 to 1; a starting one counts as idle
    waiting: int  # requests in queues now
    arrivals_per_s: float  # since, those that were refused included
    service_s: float  # seconds of a worker per request, smoothed; 0: not known yet
    latency_p99_s: float  # of the requests answered since; 0: none was


class Autoscaler(Protocol):
    """Says how many workers are wanted."""

    def decide(self, observed: Observed) -> int:
        """Workers wanted from now on."""
        ...


class Band(NamedTuple):
    """With fewer than `fewest` workers it is too slow, more than `most` are wasted."""

    fewest: int
    most: int


class Sizing(Protocol):
    """Judges one look, without regard to the bounds."""

    def band(self, observed: Observed) -> Band:
        """The numbers of workers that are right for what was seen."""
        ...


class NoAutoscaler:
    """Leaves the workers as they are, outside `min_workers` and `max_workers` too."""

    def decide(self, observed: Observed) -> int:
        return observed.workers


class Damped:
    """Out as soon as a sizing wants it, in to the most that it wanted within a window.

    The window is Kubernetes' `stabilizationWindowSeconds`. Decisions stay within `min_workers` and
    `most_workers` of the configuration.
    """

    def __init__(self, config: ServingConfig, sizing: Sizing) -> None:
        self._fewest = config.min_workers
        self._most = config.most_workers
        self._sizing = sizing
        self._scaled_out_s = -inf
        # (when, workers), falling: an entry below a later one can never be the highest again.
        self._wanted: deque[tuple[float, int]] = deque()

    def decide(self, observed: Observed) -> int:
        fewest, most = self._sizing.band(observed)
        wanted = self._within_bounds(max(fewest, min(observed.workers, most)))
        if not self._wanted:  # those that it was started with have their window too
            self._wanted.append((observed.now_s, observed.workers))
        highest = self._highest(observed.now_s, wanted)
        if wanted > observed.workers:
            return self._within_bounds(self._out(observed, wanted))
        return self._within_bounds(min(observed.workers, highest))

    def _out(self, observed: Observed, wanted: int) -> int:
        if observed.now_s - self._scaled_out_s < SCALE_OUT_COOL_DOWN_S:
            return observed.workers
        self._scaled_out_s = observed.now_s
        return wanted

    def _highest(self, now_s: float, wanted: int) -> int:
        """The most workers wanted within the window that ends now."""
        while self._wanted and self._wanted[-1][1] <= wanted:
            self._wanted.pop()
        self._wanted.append((now_s, wanted))
        while now_s - self._wanted[0][0] > SCALE_IN_WINDOW_S:
            self._wanted.popleft()
        return self._wanted[0][1]

    def _within_bounds(self, workers: int) -> int:
        return min(max(workers, self._fewest), self._most)


class Threshold:
    """Kubernetes' rule: ceil(workers x utilisation / target), outside the bounds only.

    Its own tolerance is 10 % of the target. One second of work scatters more than the quarter of a
    minute that it averages over, so the bounds are wider: a quarter of the target.
    """

    TARGET = 0.64
    LOWER = 0.48
    UPPER = 0.80

    def band(self, observed: Observed) -> Band:
        if self.LOWER <= observed.utilisation <= self.UPPER:
            return Band(observed.workers, observed.workers)
        wanted = ceil(observed.workers * observed.utilisation / self.TARGET)
        return Band(wanted, wanted)


class QueueLength:
    """As many workers as share the queue with no more than WAITING each ("backlog per instance").

    That is AWS' rule for scaling by a queue. A queue is empty at 30 % load and at 80 % alike, so
    workers are given back by how busy they are, and only to where a queue does not form yet.
    """

    WAITING = 4
    QUIET = 0.64

    def band(self, observed: Observed) -> Band:
        fewest = ceil(observed.waiting / self.WAITING)
        busy = observed.workers * observed.utilisation
        return Band(fewest, max(fewest, ceil(busy / self.QUIET)))


class Predictive:
    """The workers for the arrivals that Holt's trend expects when new ones have settled in.

    Enough is where a request waits, on average, no longer than it is served.
    """

    AHEAD_S = 5.0
    # Long enough that the counts' noise, AHEAD_S times over, does not look like a trend.
    LEVEL_S = 3.0
    TREND_S = 10.0

    def __init__(self, config: ServingConfig) -> None:
        self._most = config.most_workers
        self._rate = HoltTrend(self.LEVEL_S, self.TREND_S)

    def band(self, observed: Observed) -> Band:
        self._rate.observe(observed.now_s, observed.arrivals_per_s)
        return band_for(max(0.0, self._rate.ahead(self.AHEAD_S)), observed, self._needed)

    def _needed(self, arrivals_per_s: float, service_s: float) -> int:
        return workers_needed(
            arrivals_per_s, service_s, self._most, lambda queue: queue.mean_wait_s() <= service_s
        )


class Cost:
    """The fewest workers whose p99 latency stays within `slo_ms`, by the model and by measurement.

    Where the measured p99 breaks the SLO although the workers have not changed for a while, what
    the model finds is scaled up to one worker more than there are, and that is forgotten slowly.
    """

    TAIL = 0.01
    # An SLO below the p99 of the service alone cannot be held: then waiting may add a tenth.
    SERVICE_MARGIN = 1.1
    # A backlog is no fault of the model: by then it is gone.
    VIOLATED_S = 10 * DRAIN_S
    FORGET_S = 1800.0

    def __init__(self, config: ServingConfig) -> None:
        self._most = config.most_workers
        self._slo_s = config.slo_ms / 1e3
        self._surcharge = 0.0
        self._workers = 0
        self._now_s = self._held_s = -inf

    def band(self, observed: Observed) -> Band:
        fewest, most = band_for(observed.arrivals_per_s, observed, self._needed)
        self._learn(observed, fewest)
        return Band(*(round(workers * (1 + self._surcharge)) for workers in (fewest, most)))

    def _needed(self, arrivals_per_s: float, service_s: float) -> int:
        bound = max(self._slo_s, self.SERVICE_MARGIN * service_quantile_s(1 - self.TAIL, service_s))
        return workers_needed(
            arrivals_per_s,
            service_s,
            self._most,
            lambda queue: queue.sojourn_tail(bound) <= self.TAIL,
        )

    def _learn(self, observed: Observed, modelled: int) -> None:
        elapsed, self._now_s = observed.now_s - self._now_s, observed.now_s
        self._surcharge *= exp(-elapsed / self.FORGET_S)
        if observed.latency_p99_s <= self._slo_s or observed.workers != self._workers:
            self._workers, self._held_s = observed.workers, observed.now_s
        can_grow = modelled > 0 and observed.workers < self._most
        if can_grow and observed.now_s - self._held_s >= self.VIOLATED_S:
            self._held_s = observed.now_s
            self._surcharge = max(self._surcharge, (observed.workers + 1) / modelled - 1)


def band_for(
    arrivals_per_s: float, observed: Observed, needed: Callable[[float, float], int]
) -> Band:
    """The workers that `needed` finds for these arrivals and the backlog, with and without margin."""
    if not observed.service_s:
        return Band(observed.workers, observed.workers)
    load = arrivals_per_s + observed.waiting / DRAIN_S
    return Band(
        needed(load, observed.service_s), needed(load * SCALE_IN_MARGIN, observed.service_s)
    )


AUTOSCALERS: dict[str, Callable[[ServingConfig], Autoscaler]] = {
    "none": lambda _: NoAutoscaler(),
    "threshold": lambda config: Damped(config, Threshold()),
    "queue_length": lambda config: Damped(config, QueueLength()),
    "predictive": lambda config: Damped(config, Predictive(config)),
    "cost": lambda config: Damped(config, Cost(config)),
}
