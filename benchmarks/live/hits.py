"""What the cache costs: hits against a front that has nothing behind it but one answer.

    .venv/bin/python -m benchmarks.live.hits [--quick] [--json FILE]

Both are our own front with the wire and the cache's key. One looks the key up and answers from a
cache that holds all 100 inputs; the other makes the key too, throws it away, and gives everybody
the same prepared answer, without statistics. They take turns with wrk, fresh ones for every round.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import made, models, report, sides
from benchmarks.harness.process import BenchmarkError
from benchmarks.harness.proxies import Watched, proxy, requests_for
from benchmarks.peers import wrk

if TYPE_CHECKING:
    from pathlib import Path

    from dlbench.proxy.request import InferRequest, Outputs, Reply

SILERO = "silero_vad_half"
DISTINCT = 100
CONNECTIONS = 64
POLICIES = ("lru", "two_level")
BARE = "nothing behind the front"
AIM = 0.8


@dataclass(frozen=True)
class Plan:
    """How long and how often; `--quick` only shows that everything works."""

    repeats: int = 5
    seconds: float = 3
    warm_s: float = 1


@dataclass(frozen=True)
class Turn:
    """One side's run."""

    rate: float
    cpu_us: float


def main() -> None:
    script = report.Report(__doc__)
    plan = Plan(repeats=2, seconds=1) if script.quick else Plan()
    with made.affine() as affine:
        found = {
            "affine, 64 bytes": compared(affine, made.rows(DISTINCT), plan),
            "silero_vad_half, 3.3 kB": compared(models.fetch(SILERO), silero_rows(), plan),
        }
    for model, runs in found.items():
        show(model, runs)
    script.keep(found)


def silero_rows() -> list[dict[str, np.ndarray]]:
    """Distinct seeded inputs for silero."""
    random = np.random.default_rng(0)
    shapes = {name: shape for name, shape, _ in sides.SIGNATURES[SILERO]}
    return [
        {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
        for _ in range(DISTINCT)
    ]


def compared(model: Path, inputs: list[dict[str, np.ndarray]], plan: Plan) -> dict[str, list[Turn]]:
    """Every cache policy and the bare front, in turns on running servers."""
    runs: dict[str, list[Turn]] = {side: [] for side in (BARE, *POLICIES)}
    for order in report.rounds(runs, plan.repeats):
        with ExitStack() as stack:
            fronts = {side: stack.enter_context(front_of(side, model)) for side in runs}
            requests = requests_for(fronts[BARE].path, inputs)
            for front in fronts.values():
                wrk.run(front.port, requests, CONNECTIONS, plan.warm_s)
            for side in order:
                runs[side].append(turn(fronts[side], side, requests, plan.seconds))
    return runs


def front_of(side: str, model: Path):
    if side == BARE:
        return proxy(model, program=["-m", "benchmarks.live.hits", "--bare"], workers=1)
    return proxy(model, workers=1, cache_policy=side, cache_size=10 * DISTINCT)


def turn(front: Watched, side: str, requests: list[bytes], seconds: float) -> Turn:
    before, cpu = front.counters(), front.cpu()
    run = wrk.run(front.port, requests, CONNECTIONS, seconds)
    used, after = front.cpu(), front.counters()
    hits = after["cache_hits"] - before["cache_hits"]
    if side != BARE and (hits < run.requests or after["batches"] > before["batches"]):
        raise BenchmarkError(f"{side}: {hits} hits of {run.requests} requests")
    return Turn(run.rate, 1e6 * (sum(used) - sum(cpu)) / run.requests)


def show(model: str, runs: dict[str, list[Turn]]) -> None:
    headings = ("hits/s", "of the bare front", "CPU us/request")
    table = report.table(f"{model}: {DISTINCT} inputs, all warm", "cache", *headings)
    shares = {
        side: [one.rate / bare.rate for one, bare in zip(found, runs[BARE], strict=True)]
        for side, found in runs.items()
    }
    for side, found in runs.items():
        table.add_row(
            side,
            report.spread([one.rate for one in found], ",.0f"),
            "" if side == BARE else report.spread(shares[side]),
            report.spread([one.cpu_us for one in found], ".1f"),
        )
    report.console.print(table)
    report.aim_over(f"lru's share, {model}", shares["lru"], AIM)


# --- the front with nothing behind it, run as `-m benchmarks.live.hits --bare --settings …` -------------------------


def serve_bare() -> None:
    """Our proxy with another dispatcher."""
    from dlbench.proxy import main
    from dlbench.proxy.dispatch.dispatcher import Dispatcher
    from dlbench.proxy.serving import served

    class OneAnswer(Dispatcher):
        """Makes every request's key, and gives all of them the answer to the first one."""

        prepared: Outputs | None = None

        def submit(self, request: InferRequest, reply: Reply) -> None:
            self._keys.key(request)
            if self.prepared is not None:
                reply(self.prepared)
                return

            def learn(outcome) -> None:
                self.prepared = outcome
                reply(outcome)

            super().submit(request, learn)

    served.Dispatcher = OneAnswer
    sys.argv.remove("--bare")
    main._main()


if __name__ == "__main__":
    try:
        serve_bare() if "--bare" in sys.argv else main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
