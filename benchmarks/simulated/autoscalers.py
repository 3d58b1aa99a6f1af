"""What each autoscaler costs and what it spares the requests, in a simulation: no server runs.

    .venv/bin/python -m benchmarks.simulated.autoscalers

Requests arrive by Poisson at a rate that steps, ramps or spikes, and are served first come first
served for exponential times of 10 ms; a worker serves a second after it was asked for, and one that
is given back ends what it is at. The autoscaler looks once a second. Seeded: every run prints the
same. tests/contract/test_autoscalers.py runs on the same simulation.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.serving.autoscaler import AUTOSCALERS, Observed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.proxy.serving.autoscaler import Autoscaler

LOOK_S = 1.0
START_S = 1.0
SERVICE_S = 0.010
SLO_MS = 100.0
MOST_WORKERS = 12
SMOOTHING = 0.1
# (second, requests per second), straight lines between; 100/s keep one worker busy.
LOADS = {
    "step": [(0, 60), (60, 60), (60, 600), (240, 600), (240, 60), (420, 60)],
    "ramp": [(0, 60), (60, 60), (180, 800), (240, 800), (360, 60), (480, 60)],
    "spike": [(0, 60), (60, 60), (65, 900), (75, 900), (80, 60), (240, 60)],
}


class Pool:
    """Workers that start, serve and leave, and the queue before them."""

    def __init__(self, workers: int, service_s: float, seed: int) -> None:
        self.free_s = [0.0] * workers  # a heap: when each live worker is done with what it has
        self.starting_s: list[float] = []
        self.queue: deque[float] = deque()
        self.latencies_s: list[float] = []
        self._mean_s = service_s
        self._rng = np.random.default_rng(seed)

    @property
    def workers(self) -> int:
        return len(self.free_s) + len(self.starting_s)

    def scale(self, now_s: float, wanted: int) -> None:
        for _ in range(wanted - self.workers):
            self.starting_s.append(now_s + START_S)
        for _ in range(self.workers - wanted):
            if self.starting_s:
                self.starting_s.pop()
            else:
                heappop(self.free_s)

    def run(self, begin_s: float, end_s: float, arrivals_s: Sequence[float]) -> float:
        """Serve until `end_s`; the seconds of work done since `begin_s`."""
        self.queue.extend(arrivals_s)
        work_s = self._ahead_s(begin_s)
        for live_s in [at for at in self.starting_s if at < end_s]:
            self.starting_s.remove(live_s)
            heappush(self.free_s, live_s)
        self.latencies_s.clear()
        while self.queue and (start_s := max(self.queue[0], self.free_s[0])) < end_s:
            service_s = self._rng.exponential(self._mean_s)
            self.latencies_s.append(start_s + service_s - self.queue.popleft())
            heapreplace(self.free_s, start_s + service_s)
            work_s += service_s
        return work_s - self._ahead_s(end_s)

    def _ahead_s(self, now_s: float) -> float:
        return sum(max(0.0, at - now_s) for at in self.free_s)


@dataclass(frozen=True)
class Look:
    """What was seen, what was decided on it, and every latency since the look before."""

    observed: Observed
    decided: int
    latencies_s: list[float]


def simulate(
    autoscaler: Autoscaler,
    load: Sequence[tuple[float, float]],
    *,
    workers: int = 1,
    service_s: float = SERVICE_S,
    seed: int = 0,
) -> list[Look]:
    """One look a second for as long as `load` lasts."""
    arrivals_s = poisson(load, np.random.default_rng(seed))
    pool, looks, known_s = Pool(workers, service_s, seed + 1), [], 0.0
    for begin_s, end_s in pairwise(np.arange(0, load[-1][0] + LOOK_S, LOOK_S).tolist()):
        first, last = np.searchsorted(arrivals_s, (begin_s, end_s))
        work_s = pool.run(begin_s, end_s, arrivals_s[first:last].tolist())
        if served := len(pool.latencies_s):
            known_s += (SMOOTHING if known_s else 1.0) * (work_s / served - known_s)
        observed = Observed(
            now_s=end_s,
            workers=pool.workers,
            utilisation=min(1.0, work_s / (pool.workers * LOOK_S)),
            waiting=len(pool.queue),
            arrivals_per_s=float(last - first) / LOOK_S,
            service_s=known_s,
            latency_p99_s=float(np.quantile(pool.latencies_s, 0.99)) if served else 0.0,
        )
        looks.append(Look(observed, autoscaler.decide(observed), list(pool.latencies_s)))
        pool.scale(end_s, looks[-1].decided)
    return looks


def poisson(load: Sequence[tuple[float, float]], rng: np.random.Generator) -> np.ndarray:
    """Arrivals (s) at a changing rate: those at rate 1, with the time stretched by the integral."""
    times, rates = np.array(load, float).T
    grid = np.linspace(0, times[-1], int(times[-1] * 100) + 1)
    due = np.concatenate([[0.0], np.cumsum(np.interp(grid[1:], times, rates)) * grid[1]])
    return np.interp(np.sort(rng.uniform(0, due[-1], rng.poisson(due[-1]))), due, grid)


def worker_seconds(looks: Sequence[Look]) -> float:
    return LOOK_S * sum(look.observed.workers for look in looks)


def overloaded(looks: Sequence[Look]) -> float:
    """Share of the seconds whose p99 was over the SLO."""
    return sum(look.observed.latency_p99_s > SLO_MS / 1e3 for look in looks) / len(looks)


def late(looks: Sequence[Look]) -> float:
    """Share of the requests that took longer than the SLO."""
    latencies = np.concatenate([look.latencies_s for look in looks])
    return float(np.mean(latencies > SLO_MS / 1e3))


def changes(looks: Sequence[Look]) -> int:
    return sum(look.decided != look.observed.workers for look in looks)


def main() -> None:
    config = ServingConfig(min_workers=1, max_workers=MOST_WORKERS, slo_ms=SLO_MS)
    headings = ("worker-seconds", "time over the SLO", "requests over it", "changes", "most")
    for name, load in LOADS.items():
        table = Table(title=name, title_justify="left", box=None, pad_edge=False)
        table.add_column("autoscaler", min_width=16)
        for heading in headings:
            table.add_column(heading, justify="right")
        sides = [("none", 1), *((each, 1) for each in AUTOSCALERS), ("none", MOST_WORKERS)]
        for side, workers in dict.fromkeys(sides):
            looks = simulate(AUTOSCALERS[side](config), load, workers=workers)
            table.add_row(
                f"none, {workers} workers" if side == "none" else side,
                f"{worker_seconds(looks):.0f}",
                f"{overloaded(looks):.1%}",
                f"{late(looks):.1%}",
                f"{changes(looks)}",
                f"{max(look.decided for look in looks)}",
            )
        Console(width=100).print(table, "")


if __name__ == "__main__":
    main()
