"""CPU time of a request in the queue: added, and cut in a batch of 32.

    .venv/bin/python -m benchmarks.simulated.batcher [--quick]

Against a bare deque, which knows neither keys nor orders nor delays: the least that a queue in
Python can cost. The rows take turns; a figure is the median of these, with min-max. Behind the
requests that come and go a backlog waits.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from dataclasses import dataclass
from itertools import count, cycle
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.harness import machine
from dlbench.proxy.dispatch.batcher import Batcher
from dlbench.proxy.dispatch.order import rank_by

BATCH = 32
MS = 1_000_000
FAR = 10**15
console = Console(width=100, highlight=False)


@dataclass(frozen=True)
class Case:
    """A queue, and what comes into it; `tick_ns` apart."""

    title: str
    order: str = "fifo"
    keys: int = 1
    backlog: int = 0
    delay_ns: int = 0
    priorities: tuple[int, ...] = (0,)
    timeout_ns: int = 0
    tick_ns: int = 10_000


CASES = (
    Case("fifo"),
    Case("fifo, 4,096 wait", backlog=4096),
    Case("fifo, delay", delay_ns=MS),
    Case("fifo, deadlines", timeout_ns=FAR),
    Case("priority, one level", order="priority"),
    Case("priority, 3 levels, 4,096 wait", order="priority", backlog=4096, priorities=(1, 2, 3)),
    Case("edf, 4,096 wait", order="edf", backlog=4096, timeout_ns=FAR),
    Case("fifo, 32 keys", keys=32),
    Case("fifo, a key each, 4,096 wait", keys=1 << 20, backlog=4096),
    Case("fifo, a key each, 4,096 wait, delay", keys=1 << 20, backlog=4096, delay_ns=MS),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: numbers mean nothing")
    repeats, requests = (2, 5_000) if parser.parse_args().quick else (9, 30_000)
    console.print(machine.show(machine.facts()))
    floors: list[float] = []
    costs: dict[str, list[float]] = {case.title: [] for case in CASES}
    for _ in range(repeats):
        floors.append(bare(requests))
        for case in CASES:
            costs[case.title].append(cost_ns(case, requests))
    console.print(table(floors, costs))


def bare(requests: int) -> float:
    """Nanoseconds of CPU time per request for a deque of pairs."""
    queue: deque[tuple[int, int]] = deque()
    start = time.process_time_ns()
    for _ in range(requests // BATCH):
        for number in range(BATCH):
            queue.append((number, 1))
        [queue.popleft() for _ in range(BATCH)]
    return (time.process_time_ns() - start) / requests


def cost_ns(case: Case, requests: int) -> float:
    """Nanoseconds of CPU time per request, from `add` to the `cut` that takes it or another."""
    queue = Batcher[int](BATCH, case.delay_ns, rank=rank_by(case.order, 1000 * MS))
    keys = cycle([((3, key), (5,)) for key in range(min(case.keys, case.backlog + requests))])
    clock, priorities = count(1, case.tick_ns), cycle(case.priorities)

    def come(more: int) -> int:
        for _ in range(more):
            now = next(clock)
            deadline = case.timeout_ns and now + case.timeout_ns
            queue.add(next(keys), 1, now, now, next(priorities), deadline)
        return next(clock)

    come(case.backlog)
    start = time.process_time_ns()
    for _ in range(requests // BATCH):
        now = come(BATCH)
        while len(queue) > case.backlog:
            queue.expire(now)
            queue.is_full()
            queue.cut(now + case.delay_ns)
    return (time.process_time_ns() - start) / requests


def table(floors: list[float], costs: dict[str, list[float]]) -> Table:
    found = Table("queue", "ns/request", "min-max", "of a bare deque", title="one request")
    for title, values in {"bare deque": floors, **costs}.items():
        ratio = median(value / floor for value, floor in zip(values, floors, strict=True))
        spread = f"{min(values):,.0f}-{max(values):,.0f}"
        found.add_row(title, f"{median(values):,.0f}", spread, f"{ratio:.1f}x")
    return found


if __name__ == "__main__":
    main()
