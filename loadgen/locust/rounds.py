"""How a load goes on that several processes share: their reports, put together round by round. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlbench.loadgen.analysis.statistics import quantile
from dlbench.loadgen.messages import Progress

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray


class Report(NamedTuple):
    """What one process says: its own progress, and the times that its quantiles were taken from."""

    progress: Progress
    latencies_ms: NDArray[np.float64]
    lateness_ms: NDArray[np.float64]


class Rounds:
    """A round is over when everyone has reported, or someone for the second time.

    Whoever is silent in it is counted with what they had done when they last reported.
    """

    def __init__(self, of: int) -> None:
        self._of = of
        self._reports: dict[str, Report] = {}
        self._last: dict[str, Progress] = {}

    def add(self, member: str, report: Report) -> Progress | None:
        """The progress of the whole load, if this report ends a round."""
        over = self._close() if member in self._reports else None
        self._reports[member] = report
        return over or (self._close() if len(self._reports) == self._of else None)

    def _close(self) -> Progress:
        found = merged(self._reports.values())
        silent = [self._last[member] for member in self._last.keys() - self._reports.keys()]
        self._last |= {member: report.progress for member, report in self._reports.items()}
        self._reports.clear()
        return found.model_copy(
            update={
                "requests": found.requests + sum(progress.requests for progress in silent),
                "errors": found.errors + sum(progress.errors for progress in silent),
            }
        )


def merged(reports: Collection[Report]) -> Progress:
    """Counts and rates add up; quantiles are those of everyone's times together."""
    parts = [report.progress for report in reports]
    latencies = np.concatenate([report.latencies_ms for report in reports])
    lateness = np.concatenate([report.lateness_ms for report in reports])
    is_open = any(part.lateness_p99_ms is not None for part in parts)
    return Progress(
        elapsed_s=max(part.elapsed_s for part in parts),
        requests=sum(part.requests for part in parts),
        rate_rps=sum(part.rate_rps for part in parts),
        p50_ms=quantile(np.sort(latencies), 0.5),
        p99_ms=quantile(np.sort(latencies), 0.99),
        errors=sum(part.errors for part in parts),
        lateness_p99_ms=quantile(np.sort(lateness), 0.99) if is_open else None,
        in_flight=sum(part.in_flight for part in parts),
        warming_up=any(part.warming_up for part in parts),
        longest_ms=max(part.longest_ms for part in parts),
    )
