"""What a verdict looks at: the few numbers of a run that tell whether to believe it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from dlbench.loadgen.statistics import WINDOWS, quantile
from dlbench.loadgen.warmup import mser5

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
# MSER-5's cut is looked at if it could move a p99, and leaves three parts like it to compare with.
WARMUP_SHARES = (0.01, 0.25)
# How often in each tenth of the window the requests in flight are counted.
LOOKS = 20


@dataclass(frozen=True)
class Evidence:
    """What the rules look at: counts over the window, times in ms unless they say otherwise."""

    is_open: bool
    # False: the load itself changes (a pattern, a trace), so latency and throughput may too.
    steady_rate: bool
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
    # Mean number of requests in flight in each tenth of the window.
    in_flight: tuple[float, ...] = ()
    # How far into the window MSER-5 sees a warm-up (0: none), its median latency, and the largest
    # median of the equally long parts after it.
    warmup_s: float = 0.0
    warmup_ms: float = 0.0
    settled_ms: float = 0.0

    @classmethod
    def of(cls, samples: Samples, facts: Facts, profile: LoadProfile) -> Self:
        """Derive it from the raw record."""
        ordered = np.sort(samples.latencies_ns) / MS
        start, end = samples.window_ns
        silence_at, silence = _silence(samples.completed_ns, start)
        warmup_s, warmup_ms, settled_ms = _warmup(samples)
        return cls(
            is_open=samples.latency_from == "scheduled",
            steady_rate=profile.pattern == "steady" and profile.trace is None,
            requests=samples.requests,
            successes=len(ordered),
            errors=samples.errors,
            window_s=samples.window_s,
            completed=len(samples.completed_ns),
            in_flight_start=int(_in_flight(samples, np.array([start]))[0]),
            in_flight_end=int(_in_flight(samples, np.array([end]))[0]),
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
            in_flight=_in_flight_means(samples),
            warmup_s=warmup_s,
            warmup_ms=warmup_ms,
            settled_ms=settled_ms,
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


def _in_flight(samples: Samples, at_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the later successes had begun and not ended at these times."""
    succeeded = samples.outcome == 0
    begun, done = (np.sort(t[succeeded]) for t in (samples.scheduled_ns, samples.done_ns))
    return np.searchsorted(begun, at_ns) - np.searchsorted(done, at_ns)


def _in_flight_means(samples: Samples) -> tuple[float, ...]:
    start, end = samples.window_ns
    at = np.linspace(start, end, WINDOWS * LOOKS, endpoint=False).astype(np.int64)
    return tuple(float(m) for m in _in_flight(samples, at).reshape(WINDOWS, LOOKS).mean(axis=1))


def _warmup(samples: Samples) -> tuple[float, float, float]:
    """(how far into the window, its median, the largest of the equally long parts after it)."""
    begun, latencies = samples.begun_ns, samples.latencies_ns / MS
    order = np.argsort(begun, kind="stable")
    begun, latencies = begun[order], latencies[order]
    cut = mser5(latencies, WARMUP_SHARES[1])
    if cut < max(2 * WINDOWS, WARMUP_SHARES[0] * len(latencies)):
        return 0.0, 0.0, 0.0
    # Parts that overlap, as the cut was laid where it suits its own part best, too.
    later = np.lib.stride_tricks.sliding_window_view(latencies[cut:], cut)[:: max(1, cut // 4)]
    settled = float(np.median(later, axis=1).max())
    at_s = float(begun[cut] - samples.window_ns[0]) / 1e9
    return at_s, float(np.median(latencies[:cut])), settled


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
