"""A ramp against autoscalers on a real proxy: workers over time, latency, and what it costs.

    .venv/bin/python -m benchmarks.live.scaling [--quick] [--json FILE]

Every 2 s another 60/s are added, six times; then they stay for 6 s. The sum of six Poisson streams is
one, so each step is a load generator of its own that goes on to the end. Workers are stopped and
continued so that each runs 35 % of the time: four of them are four slow machines, not one machine
cut in four, and one of them carries some 170/s. Scaling in takes two minutes by design and is not
seen here: benchmarks/simulated/autoscalers.py simulates it. At most 256 requests wait; others are refused.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import made, report
from benchmarks.harness.process import BenchmarkError
from benchmarks.harness.proxies import Watched, proxy, refused
from benchmarks.harness.throttle import Seen, Throttle
from dlbench.loadgen.control.generator import Generator
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover

if TYPE_CHECKING:
    from pathlib import Path

    from dlbench.loadgen.control.generator import Run

PRODUCTS = 12  # of matrices: some 2 ms
SHARE = 0.35
STEP_RATE = 60.0
STEPS = 6
MOST_WORKERS = 4
SLO_MS = 100.0
SIDES = {
    "none, 1 worker": {"autoscaler": "none", "workers": 1},
    f"none, {MOST_WORKERS} workers": {"autoscaler": "none", "workers": MOST_WORKERS},
    "threshold": {"autoscaler": "threshold", "workers": 1},
    "predictive": {"autoscaler": "predictive", "workers": 1},
}


@dataclass(frozen=True)
class Plan:
    """How long and how often; `--quick` only shows that everything works."""

    repeats: int = 2
    step_s: float = 2
    stay_s: float = 6

    @property
    def starts_s(self) -> list[float]:
        return [number * self.step_s for number in range(STEPS)]

    @property
    def end_s(self) -> float:
        return STEPS * self.step_s + self.stay_s


@dataclass(frozen=True)
class Turn:
    """One ramp."""

    p50_ms: float
    p99_ms: float
    over_slo: float
    refused: int
    failed: int
    worker_seconds: float
    workers: list[Seen]


def main() -> None:
    script = report.Report(__doc__)
    plan = Plan(repeats=1, step_s=1, stay_s=3) if script.quick else Plan()
    turns: dict[str, list[Turn]] = {side: [] for side in SIDES}
    with ExitStack() as stack:
        model = stack.enter_context(made.costly(PRODUCTS))
        generators = [stack.enter_context(Generator()) for _ in range(STEPS)]
        for seed, order in enumerate(report.rounds(SIDES, plan.repeats)):
            for side in order:
                turns[side].append(turn(model, SIDES[side], generators, plan, seed))
    show(turns, plan)
    script.keep(turns)


def turn(
    model: Path, side: dict[str, object], generators: list[Generator], plan: Plan, seed: int
) -> Turn:
    config = {"max_batch_size": 1, "max_queue_size": 256, "max_workers": MOST_WORKERS, **side}
    with proxy(model, **config) as front:
        throttle = Throttle(front, [SHARE])
        with throttle.at_work():
            begin_s = time.monotonic()
            runs = ramp(front, generators, plan, seed)
        return judged(runs, [Seen(at - begin_s, count) for at, count in throttle.seen], plan)


def ramp(front: Watched, generators: list[Generator], plan: Plan, seed: int) -> list[Run]:
    """Every generator starts in its turn; all end together."""
    runs: list[Run] = []
    profile = LoadProfile(rate=STEP_RATE, warmup_s=0, timeout_s=20)
    target = discover(front.url, profile)  # once: later it may be refused

    def step(number: int, start_s: float) -> None:
        time.sleep(start_s)
        own = {"duration_s": plan.end_s - start_s, "seed": STEPS * seed + number}
        runs.append(generators[number].measure(target, profile.model_copy(update=own)))

    threads = [threading.Thread(target=step, args=each) for each in enumerate(plan.starts_s)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(runs) < STEPS:
        raise BenchmarkError("a load generator failed")
    return runs


def judged(runs: list[Run], seen: list[Seen], plan: Plan) -> Turn:
    latencies_ms = np.concatenate([run.samples.latencies_ns for run in runs]) / 1e6
    no_room = sum(refused(run.measurement.errors) for run in runs)
    errors = sum(sum(run.measurement.errors.values()) for run in runs)
    within = [one for one in seen if 0 <= one.at_s <= plan.end_s]
    return Turn(
        float(np.percentile(latencies_ms, 50)),
        float(np.percentile(latencies_ms, 99)),
        float(np.mean(latencies_ms > SLO_MS)),
        no_room,
        errors - no_room,
        sum(one.workers * (after.at_s - one.at_s) for one, after in pairwise(within)),
        within,
    )


def show(turns: dict[str, list[Turn]], plan: Plan) -> None:
    headings = ("worker-seconds", "p50 ms", "p99 ms", f"over {SLO_MS:.0f} ms", "refused", "failed")
    most = STEPS * STEP_RATE
    title = f"{STEP_RATE:.0f}/s to {most:.0f}/s in {STEPS * plan.step_s:.0f} s, then steady"
    table = report.table(title, "autoscaler", *headings)
    for side, found in turns.items():
        table.add_row(
            side,
            report.spread([one.worker_seconds for one in found], ".0f"),
            report.spread([one.p50_ms for one in found], ".0f"),
            report.spread([one.p99_ms for one in found], ".0f"),
            report.spread([100 * one.over_slo for one in found], ".1f") + " %",
            f"{sum(one.refused for one in found):,}",
            f"{sum(one.failed for one in found):,}",
        )
    report.console.print(table)
    report.console.print(f"workers at the end of each {plan.step_s:.0f} s, first round:")
    for side, found in turns.items():
        report.console.print(f"  {side:<16} {over_time(found[0].workers, plan)}")


def over_time(seen: list[Seen], plan: Plan) -> str:
    ends = np.arange(plan.step_s, plan.end_s + 0.001, plan.step_s)
    counts = [[one.workers for one in seen if one.at_s <= end][-1] for end in ends]
    return " ".join(map(str, counts))


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
