"""What a verdict looks at: the few numbers of a run that tell whether to believe it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from dlbench.loadgen.analysis.statistics import WINDOWS, quantile
from dlbench.loadgen.analysis.warmup import mser5

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlbench.loadgen.analysis.samples import Samples
    from dlbench.loadgen.messages import RunFacts
    from dlbench.loadgen.profile import LoadProfile

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
# A pile is there for all of the window's last part, a chance peak is not.
LAST_PART = 0.25
# Fewer requests than this are looked at one by one, not by the medians of ten parts.
FEW = 5 * WINDOWS


# Arrivals at random deviate by the square root of their number. Queues of 0.7 of the capacity have
# more than the first share of it in flight all through the last quarter in 1 run of 20 at most.
SURE, PERHAPS = 0.7, 0.1
# What makes one look twice: so many more in flight, or latencies of the later half so much longer.
PILED_SHARE, LONGER = 0.05, 1.1


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
    # Right answers, and over how many seconds they were counted.
    completed: int
    replies_s: float
    in_flight_start: int
    in_flight_end: int
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
    # Median latency of each tenth of the window; of fewer than 50 requests each latency by itself.
    medians_ms: tuple[float, ...]
    # Mean number of requests in flight in each tenth of the window.
    in_flight: tuple[float, ...] = ()
    # How far into the window MSER-5 sees a warm-up (0: none), its median latency, and the largest
    # median of the equally long parts after it.
    # The fewest that were in flight in the window's last quarter.
    least_in_flight: int = 0
    # How many would be in flight at the end if all took as long as those that began at first.
    expected_in_flight: float = 0.0
    # How much longer each request took than the one a second before it, in seconds.
    slope: float = 0.0
    # The window was nearly over before the first requests were answered.
    fills: bool = False
    # In a closed loop: throughput times latency, and what was really in flight (Little's law).
    little: tuple[float, float] | None = None
    warmup_s: float = 0.0
    warmup_ms: float = 0.0
    settled_ms: float = 0.0

    @classmethod
    def of(cls, samples: Samples, facts: RunFacts, profile: LoadProfile) -> Self:
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
            replies_s=samples.replies_s,
            in_flight_start=int(_in_flight(samples, np.array([start]))[0]),
            in_flight_end=int(_in_flight(samples, np.array([end]))[0]),
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
            least_in_flight=_least_in_flight(samples),
            expected_in_flight=_expected_in_flight(samples),
            slope=_slope(samples),
            fills=samples.fills,
            little=None if samples.latency_from == "scheduled" else _little(samples),
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
    def rates(self) -> tuple[float, float]:
        """Requests per second that were completed and that were offered."""
        return self.completed / self.replies_s, self.requests / self.window_s

    @property
    def falling_behind(self) -> float:
        """Share of what is offered that is not completed, where each request takes longer than the last.

        Of those that begin in a second, the last is answered 1 + slope seconds after the first.
        """
        return self.slope / (1 + self.slope) if self.slope > 0 else 0.0

    @property
    def missing_share(self) -> float:
        """Share of the window's requests that failed, or piled up more surely than by chance.

        A pile counts when it is there all through the last quarter, and when arrivals and services
        at random would not make it: the number that arrives has a deviation of its square root.
        """
        piled = self._piled(self.in_flight_end) if self.surely_piled else 0.0
        return (piled + sum(self.errors.values())) / max(1, self.requests)

    @property
    def surely_piled(self) -> bool:
        """Whether more were in flight in all of the last quarter than chance puts there."""
        return self._piled(self.least_in_flight) > SURE * math.sqrt(self.requests)

    def _piled(self, in_flight: int) -> float:
        """How many are more than usual: three standard deviations (of a Poisson number) are nothing."""
        normal = self.expected_in_flight
        return max(0.0, in_flight - max(normal + 3 * math.sqrt(normal), self.in_flight_start))

    @property
    def rose(self) -> bool:
        """Whether latency rose between the halves, or requests piled up, be it by chance."""
        if self._piled(self.in_flight_end) > PILED_SHARE * self.requests:
            return True
        half = len(self.medians_ms) // 2
        if not half or self.least_in_flight <= PERHAPS * math.sqrt(self.requests):
            return False
        first, second = self.medians_ms[:half], self.medians_ms[half:]
        return float(np.median(second)) >= LONGER * float(np.median(first))


def _in_flight(samples: Samples, at_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the later successes had begun and not ended at these times."""
    succeeded = samples.outcome == 0
    begun, done = (np.sort(t[succeeded]) for t in (samples.scheduled_ns, samples.done_ns))
    return np.searchsorted(begun, at_ns) - np.searchsorted(done, at_ns)


def _least_in_flight(samples: Samples) -> int:
    """They are fewest just after a reply, or at the end."""
    start, end = samples.window_ns
    since = end - int(LAST_PART * (end - start))
    replies = samples.done_ns[(samples.done_ns >= since) & (samples.done_ns < end)]
    return int(_in_flight(samples, np.append(replies, [since, end])).min())


def _expected_in_flight(samples: Samples) -> float:
    """At the window's end, if all requests took as long as those of its first quarter did.

    With R requests/s that take W seconds, R*W are always in flight (Little's law), but none that
    would have begun before the run did. The first ones stand for all, since a pile makes the later
    ones wait.
    """
    took = _by_begin(samples)[1] / 1e9
    first = took[: -(-len(took) // 4)]
    if not len(first):
        return 0.0
    run_s = (samples.window_ns[1] - samples.scheduled_ns.min()) / 1e9
    return samples.requests / samples.window_s * float(np.minimum(first, run_s).mean())


def _little(samples: Samples) -> tuple[float, float]:
    """(rate of all that ended, as the throughput is counted, times its mean time; mean in flight)."""
    took = (samples.done_ns - samples.sent_ns)[samples.counted]
    start, end = samples.reply_window_ns
    ended = int(np.count_nonzero((samples.done_ns >= start) & (samples.done_ns < end)))
    rate = ended / max(1, end - start)
    start, end = samples.window_ns
    inside = np.clip(samples.done_ns, start, end) - np.clip(samples.sent_ns, start, end)
    return rate * float(took.mean() if len(took) else 0.0), float(inside.sum()) / max(
        1, end - start
    )


def _slope(samples: Samples) -> float:
    """By how many seconds a request takes longer than one that began a second earlier.

    The median over all pairs of parts. (P. K. Sen, Estimates of the regression coefficient based on
    Kendall's tau, JASA 63, 1968.)
    """
    begun, took = (_parts(values) for values in _by_begin(samples))
    rows, columns = np.triu_indices(len(begun), 1)
    later = begun[columns] - begun[rows]
    rises = (took[columns] - took[rows])[later > 0] / later[later > 0]
    return float(np.median(rises)) if len(rises) else 0.0


def _by_begin(samples: Samples) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When the counted successes began and how long they took, the first one first."""
    order = np.argsort(samples.begun_ns, kind="stable")
    return samples.begun_ns[order], samples.latencies_ns[order]


def _parts(values: NDArray[np.int64]) -> NDArray[np.float64]:
    """The medians of ten equal parts; of few values each by itself."""
    if len(values) < FEW:
        return values.astype(float)
    return np.array([float(np.median(part)) for part in np.array_split(values, WINDOWS)])


def _in_flight_means(samples: Samples) -> tuple[float, ...]:
    start, end = samples.window_ns
    at = np.linspace(start, end, WINDOWS * LOOKS, endpoint=False).astype(np.int64)
    return tuple(float(m) for m in _in_flight(samples, at).reshape(WINDOWS, LOOKS).mean(axis=1))


def _warmup(samples: Samples) -> tuple[float, float, float]:
    """(how far into the window, its median, the largest of the equally long parts after it)."""
    begun, took = _by_begin(samples)
    latencies = took / MS
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
    _, took = _by_begin(samples)
    return tuple(float(part) / MS for part in _parts(took))
