"""A worker is killed every second, under 70 % load: is any request lost, and how long do they wait?

    .venv/bin/python -m benchmarks.live.faults [--quick] [--json FILE]

A model of some 4 ms a row, two workers on as many cores. The capacity is what a closed loop of 16
connections gets. For 30 s our generator offers 70 % of it, open loop, and once a second a live
worker, taken at random, is sent SIGKILL; a worker that starts also takes processor time from the
other. Beside it the same load on the same proxy without kills. A proxy is fresh for every round.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from benchmarks.harness import made, report
from benchmarks.harness.process import BenchmarkError
from benchmarks.harness.proxies import Watched, beside, offer, proxy, requests_for
from benchmarks.peers import wrk
from dlbench.loadgen.control.generator import Generator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

PRODUCTS = 24  # of matrices: some 4 ms
WORKERS, BATCH = 2, 8
CONNECTIONS = 16
LOAD = 0.7
KILL_EVERY_S = 1.0
CALM, KILLS = "no kills", "a kill a second"
RESTARTS = "dlbench_worker_restarts_total{"


@dataclass(frozen=True)
class Plan:
    """How long and how often; `--quick` only shows that everything works."""

    repeats: int = 3
    seconds: float = 30
    calm_s: float = 8
    warm_s: float = 1
    calibrate_s: float = 3


@dataclass(frozen=True)
class Turn:
    """One load on the proxy."""

    requests: int
    errors: dict[str, int]
    rate: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    kills: int
    nobody_alive: int
    restarts: int


class Killer:
    """Kills one live worker after the other."""

    def __init__(self, front: Watched, seed: int) -> None:
        self.kills = self.nobody_alive = 0
        self._front = front
        self._random = random.Random(seed)
        self._over = threading.Event()

    def at_work(self) -> AbstractContextManager[None]:
        return beside(self._main_loop, self._over)

    def _main_loop(self) -> None:
        while not self._over.wait(KILL_EVERY_S):
            pids = self._front.workers
            if pids:
                os.kill(self._random.choice(pids), signal.SIGKILL)
                self.kills += 1
            else:
                self.nobody_alive += 1


class NoKiller:
    """Lets them live."""

    kills = nobody_alive = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        yield


def main() -> None:
    script = report.Report(__doc__)
    plan = Plan(repeats=1, seconds=8, calm_s=3, calibrate_s=2) if script.quick else Plan()
    turns: dict[str, list[Turn]] = {CALM: [], KILLS: []}
    with made.costly(PRODUCTS) as model, Generator() as generator:
        rate = LOAD * capacity_of(model, plan)
        for seed, order in enumerate(report.rounds(turns, plan.repeats)):
            with proxy(model, workers=WORKERS, max_batch_size=BATCH) as front:
                for title in order:
                    killer = Killer(front, seed) if title == KILLS else NoKiller()
                    seconds = plan.seconds if title == KILLS else plan.calm_s
                    turns[title].append(turn(front, generator, killer, rate, seconds, plan))
    show(turns, rate)
    script.keep({"rate": rate, "turns": turns})


def capacity_of(model: Path, plan: Plan) -> float:
    """Requests per second with always enough to do."""
    with proxy(model, workers=WORKERS, max_batch_size=BATCH) as front:
        requests = requests_for(front.path, made.rows(64))
        wrk.run(front.port, requests, CONNECTIONS, plan.warm_s)
        return wrk.run(front.port, requests, CONNECTIONS, plan.calibrate_s).rate


def turn(
    front: Watched,
    generator: Generator,
    killer: Killer | NoKiller,
    rate: float,
    seconds: float,
    plan: Plan,
) -> Turn:
    before = restarts(front)
    with killer.at_work():
        found, samples = offer(generator, front, rate, seconds, warmup_s=plan.warm_s, timeout_s=20)
    return Turn(
        found.requests,
        found.errors,
        found.throughput_rps,
        found.p50_ms,
        found.p99_ms,
        float(samples.latencies_ns.max()) / 1e6,
        killer.kills,
        killer.nobody_alive,
        restarts(front) - before,
    )


def restarts(front: Watched) -> int:
    """As the proxy counts them."""
    lines = httpx.get(f"{front.url}/metrics").text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith(RESTARTS))


def show(turns: dict[str, list[Turn]], rate: float) -> None:
    headings = ("requests", "failed", "answered/s", "p50 ms", "p99 ms", "longest ms", "kills")
    table = report.table(
        f"{rate:,.0f}/s, {LOAD:.0%} of the capacity of {WORKERS} workers", "", *headings, "restarts"
    )
    for title, found in turns.items():
        table.add_row(
            title,
            f"{sum(one.requests for one in found):,}",
            f"{sum(sum(one.errors.values()) for one in found):,}",
            report.spread([one.rate for one in found], ".0f"),
            report.spread([one.p50_ms for one in found], ".0f"),
            report.spread([one.p99_ms for one in found], ".0f"),
            report.spread([one.longest_ms for one in found], ".0f"),
            f"{sum(one.kills for one in found)}",
            f"{sum(one.restarts for one in found)}",
        )
    report.console.print(table)
    idle = sum(one.nobody_alive for one in turns[KILLS])
    report.note(f"found nobody alive to kill: {idle} times; errors: {turns[KILLS][0].errors}")
    failed = [float(sum(one.errors.values())) for one in turns[KILLS]]
    report.aim("failed requests a round", failed, 0, ".0f")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
