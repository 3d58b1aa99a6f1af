"""More than it can take: what a proxy still answers, and how fast, at up to five times its capacity.

    .venv/bin/python -m benchmarks.live.overload [--quick] [--json FILE]

magika (8 ms a row), one worker: the client would not be on the same machine, so it and the front get
the other core. The capacity is what a closed loop of 16 connections gets; the queue's limit is 100 ms
of that. Then our generator offers shares of the capacity, open loop, in turns on one proxy. Goodput
is what was answered 200 within the window. An admitted request waits for a full queue, for the batch
that runs, and for its own: at the goodput of that very turn that is the mean wait under overload, and
the p99 must not grow with the load.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from statistics import median

from benchmarks.harness import models, report, sides
from benchmarks.harness.process import BenchmarkError
from benchmarks.harness.proxies import Watched, offer, proxy, refused
from benchmarks.peers import wrk
from dlbench.loadgen.control.generator import Generator

MAGIKA = "magika"
WORKERS, BATCH = 1, 2
CONNECTIONS = 16
QUEUE_S = 0.1
FACTORS = (0.5, 1.0, 2.0, 5.0)
AIM_GOODPUT = 0.9
# Bounded by the queue's limit means: not by the load.
AIM_GROWTH = 1.1


@dataclass(frozen=True)
class Plan:
    """How long and how often; `--quick` only shows that everything works."""

    repeats: int = 4
    seconds: float = 6
    warm_s: float = 1.5
    calibrate_s: float = 5


@dataclass(frozen=True)
class Turn:
    """One load on the proxy."""

    offered: float
    goodput: float
    refused: int
    failed: int
    p50_ms: float
    p99_ms: float
    lateness_p99_ms: float
    front_cpu: float  # share of a core
    client_cpu: float
    bound_ms: float


def main() -> None:
    script = report.Report(__doc__)
    plan = Plan(repeats=1, seconds=2, calibrate_s=2) if script.quick else Plan()
    with proxy(models.fetch(MAGIKA), workers=WORKERS, max_batch_size=BATCH) as front:
        capacity = capacity_of(front, plan)
        limit = max(1, round(QUEUE_S * capacity))
        front.configure(max_queue_size=limit)
        report.note(f"capacity {capacity:,.0f}/s, so at most {limit} requests wait")
        turns = measured(front, capacity, limit, plan)
    show(turns)
    script.keep({"capacity": capacity, "limit": limit, "turns": turns})


def capacity_of(front: Watched, plan: Plan) -> float:
    """Requests per second with always enough to do."""
    requests = [sides.v2_request(MAGIKA, front.path, body) for body in sides.bodies(MAGIKA)]
    wrk.run(front.port, requests, CONNECTIONS, plan.warm_s)
    return wrk.run(front.port, requests, CONNECTIONS, plan.calibrate_s).rate


def measured(front: Watched, capacity: float, limit: int, plan: Plan) -> dict[str, list[Turn]]:
    """Every share of the capacity, in turns."""
    factors = {f"{factor:g}x": factor for factor in FACTORS}
    turns: dict[str, list[Turn]] = {title: [] for title in factors}
    with Generator() as generator:
        for number, order in enumerate(report.rounds(turns, plan.repeats)):
            for title in order:
                rate = factors[title] * capacity
                turns[title].append(turn(front, generator, rate, limit, number, plan))
    return turns


def turn(
    front: Watched, generator: Generator, rate: float, limit: int, seed: int, plan: Plan
) -> Turn:
    load = {"warmup_s": plan.warm_s, "timeout_s": 20, "seed": seed}
    before = sum(front.cpu())
    found = offer(generator, front, rate, plan.seconds, **load).measurement
    front_cpu = (sum(front.cpu()) - before) / (plan.warm_s + plan.seconds)
    no_room = refused(found.errors)
    return Turn(
        rate,
        found.throughput_rps,
        no_room,
        sum(found.errors.values()) - no_room,
        found.p50_ms,
        found.p99_ms,
        found.lateness_p99_ms,
        front_cpu,
        found.client_cpu,
        1000 * (limit + 2 * WORKERS * BATCH) / found.throughput_rps,
    )


def show(turns: dict[str, list[Turn]]) -> None:
    headings = (
        "offered/s",
        "goodput/s",
        "of the peak",
        "p50 ms",
        "p99 ms",
        "refused",
        "failed",
        "front",
    )
    table = report.table(f"{MAGIKA}: offered, and what became of it", "load", *headings, "client")
    peaks = [max(one.goodput for one in each) for each in zip(*turns.values(), strict=True)]
    shares = {
        title: [one.goodput / peak for one, peak in zip(found, peaks, strict=True)]
        for title, found in turns.items()
    }
    for title, found in turns.items():
        table.add_row(
            title,
            f"{found[0].offered:,.0f}",
            report.spread([one.goodput for one in found], ".0f"),
            report.spread(shares[title]),
            report.spread([one.p50_ms for one in found], ".0f"),
            report.spread([one.p99_ms for one in found], ".0f"),
            f"{sum(one.refused for one in found):,}",
            f"{sum(one.failed for one in found):,}",
            f"{median(one.front_cpu for one in found):.0%}",
            f"{median(one.client_cpu for one in found):.0%}",
        )
    report.console.print(table)
    late = [one.lateness_p99_ms for one in turns["5x"]]
    report.note("front, client: share of a core")
    report.note(f"sent late at 5x, p99: {report.spread(late)} ms")
    report.aim_over("goodput at 5x of its peak", shares["5x"], AIM_GOODPUT)
    pairs = zip(turns["5x"], turns["2x"], strict=True)
    growth = [five.p99_ms / two.p99_ms for five, two in pairs]
    report.aim("p99 of the admitted at 5x, of that at 2x,", growth, AIM_GROWTH)
    shares_of_bound = [one.p99_ms / one.bound_ms for one in turns["5x"]]
    report.note(f"p99 at 5x, of the mean wait for a full queue: {report.spread(shares_of_bound)}")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
