"""How a run is doing while it runs: looks at the recorder now and then, never at every request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.analysis.statistics import quantile
from dlbench.loadgen.engine.recorder import OK, PENDING
from dlbench.loadgen.messages import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlbench.loadgen.engine.recorder import Recorder

NS = 1e9
NS_PER_MS = 1e6
# Enough for a p99 to look at, few enough not to delay a request by a millisecond.
RECENT = 4000


@dataclass(frozen=True)
class EndedRequests:
    """Requests that ended since the last look: the successes' latencies, the failures by kind.

    `latencies_ms` are those of all, in the order in which they began, infinite for a failure;
    `longest_ms` is the longest until a reply or a failure, 0 without any.
    """

    latencies_ns: NDArray[np.int64]
    lateness_ns: NDArray[np.int64]
    errors: dict[str, int]
    latencies_ms: NDArray[np.float64]
    longest_ms: float


class Watch:
    """Reads on in a recorder's columns from where it was; times and counts come from outside."""

    def __init__(self, recorder: Recorder, offsets_ns: NDArray[np.int64] | None) -> None:
        """`offsets_ns` is an open loop's schedule; None: latencies count from the sent time."""
        self._recorder = recorder
        self._offsets = offsets_ns
        self._cursor = 0
        self._last_ns = self._last_ended = self._errors = 0

    def take(self, begun: int, start_ns: int) -> EndedRequests:
        """What ended since the last call, up to the first request that has not."""
        recorder, first = self._recorder, self._cursor
        outcome = np.array(recorder.outcome[first:begun], np.int16)
        pending = np.flatnonzero(outcome == PENDING)
        count = int(pending[0]) if len(pending) else len(outcome)
        self._cursor = last = first + count
        sent = np.array(recorder.sent[first:last], np.int64)
        done = np.array(recorder.done[first:last], np.int64)
        began = sent if self._offsets is None else self._offsets[first:last] + start_ns
        outcome, took = outcome[:count], done - began
        return EndedRequests(
            took[outcome == OK],
            sent - began,
            self._by_kind(outcome),
            np.where(outcome == OK, took / NS_PER_MS, np.inf),
            float(took.max(initial=0)) / NS_PER_MS,
        )

    def _by_kind(self, outcome: NDArray[np.int16]) -> dict[str, int]:
        names = self._recorder.outcomes.names
        codes, counts = np.unique(outcome[outcome != OK], return_counts=True)
        return {names[code]: int(n) for code, n in zip(codes, counts, strict=True)}

    def look(
        self, batch: EndedRequests, elapsed_ns: int, ended: int, in_flight: int, warm_ns: int
    ) -> Progress:
        """Progress after `elapsed_ns`, with the quantiles of the batch just taken."""
        self._errors += sum(batch.errors.values())
        rate = (ended - self._last_ended) * NS / max(1, elapsed_ns - self._last_ns)
        self._last_ns, self._last_ended = elapsed_ns, ended
        return Progress(
            elapsed_s=elapsed_ns / NS,
            requests=ended,
            rate_rps=rate,
            p50_ms=recent_quantile(batch.latencies_ms, 0.5),
            p99_ms=recent_quantile(batch.latencies_ms, 0.99),
            errors=self._errors,
            lateness_p99_ms=None if self._offsets is None else _lateness(batch),
            in_flight=in_flight,
            warming_up=elapsed_ns < warm_ns,
            longest_ms=batch.longest_ms,
        )


def recent_quantile(values_ms: NDArray[np.float64], q: float) -> float | None:
    """Of the latest, None without any."""
    return quantile(np.sort(values_ms[-RECENT:]), q)


def _lateness(batch: EndedRequests) -> float | None:
    return recent_quantile(batch.lateness_ns / NS_PER_MS, 0.99)
