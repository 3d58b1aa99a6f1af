"""Our proxy against mosec and FastAPI on one machine, in one run, with the same neutral client.

    .venv/bin/python benchmarks/proxy.py [--quick] [--json FILE]

What is measured, in this order:
1. every side answers what onnxruntime answers (else there is no benchmark);
2. mosec's best settings are searched for, and every side's best number of connections;
3. silero_vad_half: the sides take turns, a fresh server each time; ratios are taken turn by turn;
4. their latency at a rate that all of them carry, open loop, with our own generator;
5. magika: our proxy and the same number of processes without any server take turns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import machine
import models
import sides
import venvs
import wrk
from process import BenchmarkError, running
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import Popen

    from sides import Side

SILERO, MAGIKA = "silero_vad_half", "magika"
WORKERS, BATCH = 2, 8
STEADY_RATE = 1500
console = Console(width=80, highlight=False)


@dataclass(frozen=True)
class Plan:
    """How long and how often; `--quick` only shows that everything works."""

    repeats: int = 5
    seconds: float = 5
    warm_s: float = 1
    scan_s: float = 2
    connections: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    steady_s: float = 10
    steady_repeats: int = 3
    mosec_workers: tuple[int, ...] = (1, 2, 3)
    mosec_batches: tuple[int, ...] = (1, 8, 16, 32, 64)
    mosec_waits_ms: tuple[int, ...] = (1, 2, 5)
    ceiling_batches: tuple[int, ...] = (1, 2, 4, 8)


QUICK = Plan(
    repeats=2,
    seconds=1,
    warm_s=1,
    scan_s=1,
    steady_s=2,
    steady_repeats=1,
    connections=(16, 64),
    mosec_workers=(2,),
    mosec_batches=(8, 32),
    mosec_waits_ms=(1,),
    ceiling_batches=(1, 4),
)


def main() -> None:
    options = arguments()
    plan = QUICK if options.quick else Plan()
    facts = machine.facts("onnxruntime-gpu", "uvloop", "httptools", "numpy")
    facts |= {"wrk": wrk.version(), **peer_versions()}
    console.print(machine.show(facts))
    result = {"facts": facts, "plan": asdict(plan), "silero": silero(plan), "magika": magika(plan)}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, default=asdict))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: numbers mean nothing")
    parser.add_argument("--json", type=Path, help="keep the raw numbers in this file")
    return parser.parse_args()


def peer_versions() -> dict[str, str]:
    found = machine.package_versions(venvs.python_of("mosec"), "mosec")
    return found | machine.package_versions(venvs.python_of("fastapi"), "fastapi", "uvicorn")


# --- silero: a model so short that the server is what is measured ---------------------------------


@dataclass(frozen=True)
class Attempt:
    """mosec with one choice of settings."""

    workers: int
    batch: int
    wait_ms: int
    runs: list[wrk.Run]

    @property
    def rate(self) -> float:
        return max(run.rate for run in self.runs)


def silero(plan: Plan) -> dict[str, Any]:
    """Every side at its best number of connections, in turns."""
    searched = search_mosec(plan)
    best = max(searched, key=lambda attempt: attempt.rate)
    ours = sides.dlbench(SILERO, WORKERS, BATCH)
    rivals = {
        "mosec, same settings": sides.mosec(SILERO, WORKERS, BATCH, plan.mosec_waits_ms[0]),
        "mosec, its best": sides.mosec(SILERO, best.workers, best.batch, best.wait_ms),
        "dlbench with those": sides.dlbench(SILERO, best.workers, best.batch),
        "FastAPI": sides.fastapi(SILERO, WORKERS),
    }
    order = {"dlbench": ours, **rivals}
    for side in order.values():
        sides.check(side)
    note("every side answers what onnxruntime answers")
    scans = {label: scan(side, plan.connections, plan) for label, side in order.items()}
    turns = take_turns(order, scans, plan)
    show_silero(order, turns)
    return {
        "settings": {label: side.name for label, side in order.items()},
        "mosec_search": searched,
        "scans": scans,
        "turns": turns,
        "steady": steady_latencies(plan, order["FastAPI"]),
    }


def search_mosec(plan: Plan) -> list[Attempt]:
    """mosec with every number of workers and batch size, then the best of them with every wait."""
    first, *other_waits = plan.mosec_waits_ms
    grid = product(plan.mosec_workers, plan.mosec_batches)
    tried = [attempt(plan, workers, batch, first) for workers, batch in grid]
    best = max(tried, key=lambda one: one.rate)
    return [*tried, *(attempt(plan, best.workers, best.batch, wait) for wait in other_waits)]


def attempt(plan: Plan, workers: int, batch: int, wait_ms: int) -> Attempt:
    side = sides.mosec(SILERO, workers, batch, wait_ms)
    return Attempt(workers, batch, wait_ms, scan(side, plan.connections[-3:], plan))


def scan(side: Side, connections: tuple[int, ...], plan: Plan) -> list[wrk.Run]:
    """One short run for each number of connections, on one server."""
    with sides.serving(side) as port:
        wrk.run(port, side.requests, connections[0], plan.warm_s)
        runs = [wrk.run(port, side.requests, count, plan.scan_s) for count in connections]
    best = max(runs, key=lambda run: run.rate)
    note(f"{side.name}: {best.rate:,.0f}/s with {best.connections} connections")
    return runs


def take_turns(
    order: dict[str, Side], scans: dict[str, list[wrk.Run]], plan: Plan
) -> dict[str, list[wrk.Run]]:
    """A B C D E, E D C B A, and so on: whatever drifts, drifts for all."""
    turns: dict[str, list[wrk.Run]] = {label: [] for label in order}
    for turn in range(plan.repeats):
        for label in list(order)[:: 1 if turn % 2 == 0 else -1]:
            connections = max(scans[label], key=lambda run: run.rate).connections
            turns[label].append(one_turn(order[label], connections, plan))
        note(f"turn {turn + 1} of {plan.repeats}")
    return turns


def one_turn(side: Side, connections: int, plan: Plan) -> wrk.Run:
    """A fresh server, warmed, measured, ended."""
    with sides.serving(side) as port:
        wrk.run(port, side.requests, connections, plan.warm_s)
        return wrk.run(port, side.requests, connections, plan.seconds)


def show_silero(order: dict[str, Side], turns: dict[str, list[wrk.Run]]) -> None:
    table = new_table(f"{SILERO}: requests/s, each side at its best number of connections")
    columns(table, "server", "settings", "conns", "median/s", "min-max", "dlbench is")
    for label, runs in turns.items():
        rates = [run.rate for run in runs]
        ratio = "" if label == "dlbench" else spread(ratios(turns["dlbench"], runs))
        settings, conns = order[label].settings, str(runs[0].connections)
        span = f"{min(rates) / 1000:.1f}-{max(rates) / 1000:.1f}k"
        table.add_row(label, settings, conns, f"{median(rates):,.0f}", span, ratio)
    console.print(table)
    console.print("dlbench is: times that row, turn by turn; median (min-max).")
    equal = spread(ratios(turns["dlbench with those"], turns["mosec, its best"]))
    console.print(f"With mosec's best settings for both, dlbench is {equal} times mosec.")


def ratios(left: list[wrk.Run], right: list[wrk.Run]) -> list[float]:
    return [a.rate / b.rate for a, b in zip(left, right, strict=True)]


# --- silero at a moderate rate ---------------------------------------------------------------------


def steady_latencies(plan: Plan, fastapi: Side) -> dict[str, list[dict[str, float]]]:
    """Latency from the scheduled time at a rate that all of them carry; Poisson, our generator."""
    wait_ms = plan.mosec_waits_ms[0]
    order = {
        "dlbench": sides.dlbench(SILERO, WORKERS, BATCH),
        "mosec, same settings": sides.mosec(SILERO, WORKERS, BATCH, wait_ms),
        "mosec without batching": sides.mosec(SILERO, WORKERS, 1, wait_ms),
        "FastAPI": fastapi,
    }
    found: dict[str, list[dict[str, float]]] = {label: [] for label in order}
    for turn in range(plan.steady_repeats):
        for label in list(order)[:: 1 if turn % 2 == 0 else -1]:
            found[label].append(steady(order[label], plan))
    show_steady(found)
    return found


def steady(side: Side, plan: Plan) -> dict[str, float]:
    """One run of `steady.py` against a fresh server."""
    with sides.serving(side) as port, tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(side.requests))
        file.flush()
        script = Path(__file__).with_name("steady.py")
        load = [STEADY_RATE, plan.warm_s, plan.steady_s]
        command = [script, port, file.name, len(side.requests[0]), *load]
        text = subprocess.run(
            [sys.executable, *map(str, command)],
            capture_output=True,
            text=True,
            check=True,
            timeout=plan.warm_s + plan.steady_s + 60,
        ).stdout
    found = json.loads(text)
    if found["errors"]:
        raise BenchmarkError(f"{side.name} failed {found['errors']} requests at {STEADY_RATE}/s")
    return found


def show_steady(found: dict[str, list[dict[str, float]]]) -> None:
    table = new_table(f"{SILERO}: latency at {STEADY_RATE:,}/s, open loop, from the scheduled time")
    columns(table, "server", "p50 ms", "p99 ms", "client's lateness p99 ms")
    for label, runs in found.items():
        names = ("p50_ms", "p99_ms", "lateness_p99_ms")
        table.add_row(label, *(spread([run[name] for run in runs]) for name in names))
    console.print(table)


# --- magika: 8 ms of computing, where a server can only be in the way ------------------------------


def magika(plan: Plan) -> dict[str, Any]:
    """Our proxy and the same number of processes that only compute, in turns."""
    ours = sides.dlbench(MAGIKA, WORKERS, BATCH)
    sides.check(ours)
    ceilings = {batch: ceiling(batch, plan.scan_s) for batch in plan.ceiling_batches}
    batch = max(ceilings, key=lambda size: ceilings[size])
    runs, limits = [], []
    connections = best_connections(ours, plan)
    for turn in range(plan.repeats):
        steps: list[Callable[[], None]] = [
            lambda: runs.append(one_turn(ours, connections, plan)),
            lambda: limits.append(ceiling(batch, plan.seconds)),
        ]
        for step in steps if turn % 2 == 0 else reversed(steps):
            step()
    show_magika(runs, limits, batch)
    return {"ceiling_scan": ceilings, "ceiling_batch": batch, "runs": runs, "ceiling": limits}


def best_connections(side: Side, plan: Plan) -> int:
    counts = tuple(count for count in plan.connections if count <= 64)
    return max(scan(side, counts, plan), key=lambda run: run.rate).connections


def ceiling(batch: int, seconds: float) -> float:
    """Rows per second of WORKERS processes that call `session.run` and do nothing else."""
    path = str(models.fetch(MAGIKA))
    command = [sys.executable, "ceiling.py", path, MAGIKA, str(batch), str(seconds)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with ExitStack() as stack:
        start = partial(running, command, cwd=sides.PEERS, **pipes)
        processes = [stack.enter_context(start()) for _ in range(WORKERS)]
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


def show_magika(runs: list[wrk.Run], limits: list[float], batch: int) -> None:
    table = new_table(f"{MAGIKA}: our proxy and {WORKERS} processes that only compute")
    columns(table, "", "rows/s", "share of the ceiling")
    rates = [run.rate for run in runs]
    shares = [rate / limit for rate, limit in zip(rates, limits, strict=True)]
    name = f"dlbench, {WORKERS} workers, batch {BATCH}, {runs[0].connections} connections"
    table.add_row(name, spread(rates, ".0f"), spread(shares))
    table.add_row(f"session.run, {WORKERS} processes, batch {batch}", spread(limits, ".0f"), "")
    console.print(table)


# --- how it looks ----------------------------------------------------------------------------------


def new_table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)


def columns(table: Table, first: str, *others: str) -> None:
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")


def spread(values: list[float], form: str = ".2f") -> str:
    """median (min-max)"""
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def note(text: str) -> None:
    console.print(f"[dim]{text}[/]")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
