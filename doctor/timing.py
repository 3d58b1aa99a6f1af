"""How fine the clock is, and how late a sleeping process is woken: measured, in a quarter second."""

from __future__ import annotations

import itertools
import time

from pydantic import BaseModel, ConfigDict

READS = 2000
SLEEPS = 200
SLEEP_S = 0.001


class Timing(BaseModel):
    """The smallest step of the clock, and by how much sleeps of 1 ms were too long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clock_step_ns: int
    late_p50_ms: float
    late_p99_ms: float


def measure() -> Timing:
    """Read the clock, then sleep; best done while nothing else of ours runs."""
    late_ms = sorted(_overslept_ms() for _ in range(SLEEPS))
    return Timing(
        clock_step_ns=clock_step_ns([time.perf_counter_ns() for _ in range(READS)]),
        late_p50_ms=late_ms[SLEEPS // 2],
        late_p99_ms=late_ms[SLEEPS * 99 // 100],
    )


def clock_step_ns(reads: list[int]) -> int:
    """The smallest step between consecutive reads that differ; 0 if none do.

    A clock finer than a read takes shows the time of a read.
    """
    return min((b - a for a, b in itertools.pairwise(reads) if b != a), default=0)


def _overslept_ms() -> float:
    before = time.perf_counter()
    time.sleep(SLEEP_S)
    return (time.perf_counter() - before - SLEEP_S) * 1000
