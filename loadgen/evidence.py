"""What a verdict looks at: the few numbers of a run that tell whether to believe it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from dlbench.loadgen.statistics import WINDOWS, quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlbench.loadgen.messages import Facts
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.samples import Samples

MS = 1e6
# How much of the p99 may be our own doing: the p99 from the scheduled times less the one from the
# actual send times. Below the floor it is what an operating system does to a process that wakes.
INFLATION_SHARE = 0.10
LATENESS_FLOOR_MS = 0.5
# Requests that are late come in a bunch, and the server queues them: that is our doing too, and
# is not in the difference. A bunch of a third of the p99's length could explain it.
LATENESS_SHARE = 1 / 3


@dataclass(frozen=True)
class Evidence:
    """What the rules look at: counts over the window, times in ms unless they say otherwise."""

    is_open: bool
    requests: int
    successes: int
    errors: dict[str, int]
    window_s: float
    # Successes that ended inside the window, whenever they began.
    completed: int
    in_flight_start: int
    in_flight_end: int
    p10_ms: float
    p50_ms: float
    p99_ms: float
    # From the actual instead of the scheduled send times.
    p99_from_sent_ms: float
    lateness_p99_ms: float
    client_cpu: float
    real_time: bool
    connections: int
    connections_asked: int
    exhausted: bool
    # Length and time of the longest silence between two replies, in seconds of the window.
    silence_s: float
    silence_at_s: float
    # Median latency of each tenth of the window; empty when there are too few requests.
    medians_ms: tuple[float, ...]

    @classmethod
    def of(cls, samples: Samples, facts: Facts, profile: LoadProfile) -> Self:
        """Derive it from the raw record."""
        ordered = np.sort(samples.latencies_ns) / MS
        start, end = samples.window_ns
        silence_at, silence = _silence(samples.completed_ns, start)
        return cls(
            is_open=samples.latency_from == "scheduled",
            requests=samples.requests,
            successes=len(ordered),
            errors=samples.errors,
            window_s=samples.window_s,
            completed=len(samples.completed_ns),
            in_flight_start=_in_flight(samples, start),
            in_flight_end=_in_flight(samples, end),
            p10_ms=quantile(ordered, 0.1) or 0.0,
            p50_ms=quantile(ordered, 0.5) or 0.0,
            p99_ms=quantile(ordered, 0.99) or 0.0,
            p99_from_sent_ms=quantile(np.sort(samples.from_sent_ns) / MS, 0.99) or 0.0,
            lateness_p99_ms=quantile(np.sort(samples.lateness_ns) / MS, 0.99) or 0.0,
            client_cpu=facts.client_cpu,
            real_time=facts.real_time,
            connections=facts.connections,
            connections_asked=profile.connections,
            exhausted=facts.exhausted,
            silence_s=silence,
            silence_at_s=silence_at,
            medians_ms=_medians(samples),
        )

    @property
    def late(self) -> bool:
        """Whether our own lateness is material to the p99 that we would report."""
        inflation_ms = self.p99_ms - self.p99_from_sent_ms
        return inflation_ms > max(LATENESS_FLOOR_MS, INFLATION_SHARE * self.p99_ms) or (
            self.lateness_p99_ms > max(LATENESS_FLOOR_MS, LATENESS_SHARE * self.p99_ms)
        )

    @property
    def missing_share(self) -> float:
        """Share of the window's requests that failed, or piled up beyond what is under way anyhow.

        With R requests/s that take W seconds, R*W are always in flight (Little's law); the tenth
        percentile stands for W, since a pile inflates the mean. Arrivals are random, so three
        standard deviations (of a Poisson number) are nothing yet.
        """
        normal = self.requests / self.window_s * self.p10_ms / 1000
        usual = max(normal + 3 * math.sqrt(normal), self.in_flight_start)
        piled = max(0.0, self.in_flight_end - usual)
        return (piled + sum(self.errors.values())) / max(1, self.requests)


def _in_flight(samples: Samples, at_ns: int) -> int:
    begun = samples.scheduled_ns < at_ns
    return int(np.count_nonzero(begun & (samples.done_ns >= at_ns) & (samples.outcome == 0)))


def _silence(completed_ns: NDArray[np.int64], start_ns: int) -> tuple[float, float]:
    """(when, how long) of the longest gap between two successes, in seconds."""
    gaps = np.diff(completed_ns)
    if not len(gaps):
        return 0.0, 0.0
    at = int(gaps.argmax())
    return float(completed_ns[at] - start_ns) / 1e9, float(gaps[at]) / 1e9


def _medians(samples: Samples) -> tuple[float, ...]:
    if len(samples.latencies_ns) < 20 * WINDOWS:
        return ()
    parts = np.array_split(samples.latencies_ns[np.argsort(samples.begun_ns)], WINDOWS)
    return tuple(float(np.median(part)) / MS for part in parts)
