"""Where weights, estimates and hashing earn their keep: unequal workers, and a cache each.

    .venv/bin/python -m benchmarks.live.unequal [--quick] [--json FILE]

Three workers and a model of some 2 ms, one row at a time. (a) One worker has a third of the others'
speed: all are stopped and continued every 5 ms and run 60, 60 and 20 % of the time. Our generator
offers 70 % of what a closed loop gets under shared_queue, open loop. A policy that sends the slow one
more than it can do builds a queue there: then p99 grows with the length of the run. (b) Equal workers
(50 % each) and inputs after Zipf's law: 2,000 of them, exponent 0.9, 600 cache entries shared or 200
per worker. The load is 1.5 times what they carry without a cache. What is warm is measured.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.harness import made, report
from benchmarks.harness.process import BenchmarkError
from benchmarks.harness.proxies import Watched, offer, proxy, requests_for
from benchmarks.harness.throttle import Throttle
from benchmarks.peers import wrk
from dlbench.loadgen.control.generator import Generator

if TYPE_CHECKING:
    from pathlib import Path

PRODUCTS = 12  # of matrices: some 2 ms
CONNECTIONS = 16
UNEQUAL, WEIGHTS = (0.6, 0.6, 0.2), (3, 3, 1)
EQUAL = (0.5, 0.5, 0.5)
LOAD, LOAD_CACHED = 0.7, 1.5
POLICIES = (
    "round_robin",
    "weighted_round_robin",
    "least_outstanding",
    "power_of_two_choices",
    "shortest_response_time",
    "shared_queue",
)
ZIPF = {"distinct": 2000, "zipf": 0.9}
CACHES = {
    "worker, round_robin": ("worker", "round_robin"),
    "worker, least_outstanding": ("worker", "least_outstanding"),
    "worker, consistent_hash": ("worker", "consistent_hash"),
    "shared, shared_queue": ("shared", "shared_queue"),
}
ENTRIES = 600


@dataclass(frozen=True)
class Plan:
    """How long and how often; `--quick` only shows that everything works."""

    repeats: int = 3
    seconds: float = 3
    warm_s: float = 1
    fill_s: float = 2
    calibrate_s: float = 3


@dataclass(frozen=True)
class Turn:
    """One load under one policy."""

    rate: float
    p50_ms: float
    p99_ms: float
    failed: int
    hit_ratio: float


Turns = dict[str, list[Turn]]


def main() -> None:
    script = report.Report(__doc__)
    plan = Plan(repeats=1, seconds=2, calibrate_s=2) if script.quick else Plan()
    with made.costly(PRODUCTS) as model, Generator() as generator:
        speeds = unequal_speeds(model, generator, plan)
        caches = caches_each(model, generator, plan)
    script.keep({"speeds": speeds, "caches": caches})


def unequal_speeds(model: Path, generator: Generator, plan: Plan) -> Turns:
    """Part (a)."""
    turns: Turns = {policy: [] for policy in POLICIES}
    config = {"workers": 3, "max_batch_size": 1, "worker_weights": WEIGHTS}
    with proxy(model, **config) as front, Throttle(front, UNEQUAL).at_work():
        rate = LOAD * capacity_of(front, plan)
        for seed, order in enumerate(report.rounds(POLICIES, plan.repeats)):
            for policy in order:
                front.configure(scheduling_policy=policy)
                turns[policy].append(
                    turn(front, generator, rate, plan, warmup_s=plan.warm_s, seed=seed)
                )
    title = f"one of three workers at a third of the speed, {rate:,.0f}/s ({LOAD:.0%})"
    show(title, "policy", turns)
    return turns


def caches_each(model: Path, generator: Generator, plan: Plan) -> Turns:
    """Part (b)."""
    turns: Turns = {title: [] for title in CACHES}
    config = {"workers": 3, "max_batch_size": 1}
    with proxy(model, **config) as front, Throttle(front, EQUAL).at_work():
        rate = LOAD_CACHED * capacity_of(front, plan)
        for seed, order in enumerate(report.rounds(CACHES, plan.repeats)):
            for title in order:
                scope, policy = CACHES[title]
                front.configure(cache_size=ENTRIES, cache_scope=scope, scheduling_policy=policy)
                offer(generator, front, rate, plan.fill_s, warmup_s=0, seed=100 + seed, **ZIPF)
                turns[title].append(
                    turn(front, generator, rate, plan, warmup_s=0, seed=seed, **ZIPF)
                )
    show(f"a cache per worker, Zipf's inputs, {rate:,.0f}/s", "cache, policy", turns)
    return turns


def capacity_of(front: Watched, plan: Plan) -> float:
    """Requests per second with always enough to do, under shared_queue and without a cache."""
    requests = requests_for(front.path, made.rows(64))
    wrk.run(front.port, requests, CONNECTIONS, plan.warm_s)
    return wrk.run(front.port, requests, CONNECTIONS, plan.calibrate_s).rate


def turn(front: Watched, generator: Generator, rate: float, plan: Plan, **load) -> Turn:
    before = front.counters()
    found = offer(generator, front, rate, plan.seconds, timeout_s=20, **load).measurement
    after = front.counters()
    hits = after["cache_hits"] - before["cache_hits"]
    asked = hits + after["cache_misses"] - before["cache_misses"]
    failed = sum(found.errors.values())
    ratio = hits / asked if asked else 0.0
    return Turn(found.throughput_rps, found.p50_ms, found.p99_ms, failed, ratio)


def show(title: str, first: str, turns: Turns) -> None:
    table = report.table(title, first, "answered/s", "p50 ms", "p99 ms", "hits", "failed")
    for side, found in turns.items():
        hits = [one.hit_ratio for one in found]
        table.add_row(
            side,
            report.spread([one.rate for one in found], ",.0f"),
            report.spread([one.p50_ms for one in found], ".1f"),
            report.spread([one.p99_ms for one in found], ",.0f"),
            report.spread(hits) if any(hits) else "",
            f"{sum(one.failed for one in found)}",
        )
    report.console.print(table)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
