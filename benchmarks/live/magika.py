"""magika, 8 ms of computing: a server can only be in the way, so the measure is having none."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from benchmarks.harness import models, sides, turns
from benchmarks.harness.process import PEERS, BenchmarkError, running
from benchmarks.harness.report import aim_over, console, note, rounds, spread, table

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import Popen

    from benchmarks.harness.turns import Chosen, Plan

MAGIKA = "magika"
GRID = tuple(product((1, 2, 3), (1, 8)))
# More would only wait: a request takes 8 ms.
CONNECTIONS, PROBE_CONNECTIONS = (8, 16, 64), (32,)
CEILING_BATCHES = (1, 2, 4, 8)
CEILING_SHARE = 0.85
# Equal runs of one server differ by 7 % here.
LEVEL = 0.93
CORES = len(os.sched_getaffinity(0))


def measure(plan: Plan) -> dict[str, Any]:
    """Our proxy, mosec, and a process for each core that only computes, in turns."""
    plan = replace(plan, connections=CONNECTIONS, probe_connections=PROBE_CONNECTIONS)
    chosen = {label: turns.choose(grid, plan) for label, grid in contenders().items()}
    limits = {batch: ceiling(batch, plan.scan_s) for batch in CEILING_BATCHES}
    batch = max(limits, key=lambda size: limits[size])
    note(f"the ceiling is highest with batches of {batch}")
    found = take_turns(chosen, batch, plan)
    show(chosen, batch, found)
    tried = {label: one.tried for label, one in chosen.items()}
    return {"tried": tried, "ceilings": limits, "turns": found}


def contenders() -> dict[str, list[sides.Side]]:
    return {
        "dlbench": [sides.dlbench(MAGIKA, *one) for one in GRID],
        "mosec": [sides.mosec(MAGIKA, *one) for one in GRID],
    }


def take_turns(chosen: dict[str, Chosen], batch: int, plan: Plan) -> dict[str, list[float]]:
    """Rows per second of each side and of the ceiling, round by round."""
    steps: dict[str, Callable[[], float]] = {
        label: partial(rate, one, plan) for label, one in chosen.items()
    }
    steps["no server"] = partial(ceiling, batch, plan.seconds)
    found: dict[str, list[float]] = {label: [] for label in steps}
    for order in rounds(steps, plan.repeats):
        for label in order:
            found[label].append(steps[label]())
    return found


def rate(chosen: Chosen, plan: Plan) -> float:
    return turns.turn(chosen, plan).rate


def ceiling(batch: int, seconds: float) -> float:
    """Rows per second of one process per core that calls `session.run` and does nothing else."""
    path = str(models.fetch(MAGIKA))
    command = [sys.executable, "ceiling.py", path, MAGIKA, str(batch), str(seconds)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with ExitStack() as stack:
        start = partial(running, command, cwd=PEERS, **pipes)
        processes = [stack.enter_context(start()) for _ in range(CORES)]
        return sum(race(processes, seconds + 30))


def race(processes: list[Popen[str]], timeout_s: float) -> list[float]:
    """Start them together once all are ready; their rates."""
    for process in processes:
        if process.stdout.readline().strip() != "ready":
            raise BenchmarkError("the ceiling did not start")
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    rates = [float(process.stdout.readline()) for process in processes]
    for process in processes:
        process.wait(timeout_s)
    return rates


def show(chosen: dict[str, Chosen], batch: int, found: dict[str, list[float]]) -> None:
    shares = {label: times(rates, found["no server"]) for label, rates in found.items()}
    made = table(
        f"{MAGIKA}: rows/s", "", "workers x batch, wait", "conns", "rows/s", "of the ceiling"
    )
    for label, one in chosen.items():
        cells = spread(found[label], ".0f"), spread(shares[label])
        made.add_row(label, one.side.settings, str(one.connections), *cells)
    made.add_row("no server", f"{CORES} x {batch}", "", spread(found["no server"], ".0f"), "")
    console.print(made)
    aim_over(f"{MAGIKA}, share of the ceiling", shares["dlbench"], CEILING_SHARE)
    aim_over(f"{MAGIKA}, times mosec", times(found["dlbench"], found["mosec"]), LEVEL)


def times(left: list[float], right: list[float]) -> list[float]:
    """How many times `right` `left` is, round by round."""
    return [a / b for a, b in zip(left, right, strict=True)]
