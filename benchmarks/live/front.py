"""What a request costs the front: processor time of its process, below saturation and at it.

    .venv/bin/python -m benchmarks.live.front [--quick] [--json FILE]

A model that computes nothing and silero_vad_half, no cache, two workers, V2 binary both ways. Below
saturation our generator sends 2,000/s open loop, so nearly every request goes to a worker alone and
wakes everybody up; at saturation wrk keeps 64 connections busy, and a batch shares the way there and
back. A proxy is fresh for every turn, and takes one load after the other.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, product

from benchmarks.harness import made, models, report, sides
from benchmarks.harness.process import BenchmarkError
from benchmarks.harness.proxies import Watched, offer, proxy, requests_for
from benchmarks.peers import wrk
from dlbench.loadgen.control.generator import Generator

SILERO = "silero_vad_half"
RATE = 2000
CONNECTIONS = 64
WORKERS, BATCH = 2, 8
AIM_US = 25.0
LOADS = (f"{RATE:,}/s", "saturated")


@dataclass(frozen=True)
class Plan:
    """How long and how often; `--quick` only shows that everything works."""

    repeats: int = 5
    seconds: float = 5
    warm_s: float = 1


@dataclass(frozen=True)
class Cost:
    """Microseconds of the front's processor time per request, and what the load was."""

    user_us: float
    system_us: float
    rate: float
    rows_per_batch: float

    @property
    def total_us(self) -> float:
        return self.user_us + self.system_us


def main() -> None:
    script = report.Report(__doc__)
    plan = Plan(repeats=2, seconds=1) if script.quick else Plan()
    with ExitStack() as stack:
        files = {
            "affine": stack.enter_context(made.affine()),
            SILERO: models.fetch(SILERO),
        }
        generator = stack.enter_context(Generator())
        costs: dict[str, list[Cost]] = {f"{m}, {load}": [] for m, load in product(files, LOADS)}
        for model in chain.from_iterable(report.rounds(files, plan.repeats)):
            with proxy(files[model], workers=WORKERS, max_batch_size=BATCH) as front:
                costs[f"{model}, {LOADS[0]}"].append(below(front, generator, plan))
                costs[f"{model}, {LOADS[1]}"].append(saturated(front, model, plan))
    show(costs)
    script.keep(costs)


def below(front: Watched, generator: Generator, plan: Plan) -> Cost:
    """At a rate that it carries with ease."""

    def load(seconds: float) -> None:
        shape = {"input": (576,), "state": (2, 128)} if front.name == SILERO else {}
        found = offer(generator, front, RATE, seconds, warmup_s=0, shape=shape).measurement
        if found.errors:
            raise BenchmarkError(f"{front.name} failed requests: {found.errors}")

    load(plan.warm_s)
    return cost(front, lambda: load(plan.seconds), plan.seconds)


def saturated(front: Watched, model: str, plan: Plan) -> Cost:
    """As fast as a closed loop can."""
    requests = requests_to(front, model)
    wrk.run(front.port, requests, CONNECTIONS, plan.warm_s)
    return cost(
        front, lambda: wrk.run(front.port, requests, CONNECTIONS, plan.seconds), plan.seconds
    )


def requests_to(front: Watched, model: str) -> list[bytes]:
    if model == SILERO:
        return [sides.v2_request(SILERO, front.path, body) for body in sides.bodies(SILERO)]
    return requests_for(front.path, made.rows(sides.DISTINCT))


def cost(front: Watched, load, seconds: float) -> Cost:
    """The front's processor time for what `load` sends, by its own count of requests."""
    before, cpu = front.counters(), front.cpu()
    load()
    used, after = front.cpu(), front.counters()
    requests = after["requests"] - before["requests"]
    return Cost(
        1e6 * (used.user_s - cpu.user_s) / requests,
        1e6 * (used.system_s - cpu.system_s) / requests,
        requests / seconds,
        (after["rows"] - before["rows"]) / (after["batches"] - before["batches"]),
    )


def show(costs: dict[str, list[Cost]]) -> None:
    headings = ("us/request", "user", "system", "requests/s", "rows a batch")
    table = report.table("CPU of the front's process per request, no cache", "load", *headings)
    for title, found in costs.items():
        table.add_row(
            title,
            report.spread([one.total_us for one in found], ".1f"),
            report.spread([one.user_us for one in found], ".1f"),
            report.spread([one.system_us for one in found], ".1f"),
            report.spread([one.rate for one in found], ",.0f"),
            report.spread([one.rows_per_batch for one in found], ".1f"),
        )
    report.console.print(table)
    for title, found in costs.items():
        report.aim(f"us/request, {title}", [one.total_us for one in found], AIM_US, ".1f")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
