"""Our proxy against mosec and FastAPI on one machine, in one run, with the same neutral client.

    .venv/bin/python benchmarks/proxy.py [--quick] [--json FILE]

What is measured, in this order:
1. every side answers what onnxruntime answers (else there is no benchmark);
2. mosec's best settings are searched for, and every side's best number of connections;
3. silero_vad_half: the sides take turns, a fresh server each time; ratios are taken turn by turn;
4. magika: our proxy and the same number of processes without any server take turns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
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
console = Console(width=80, highlight=False)


@dataclass(frozen=True)
class Plan:
    """How long and how often; `--quick` only shows that everything works."""

    repeats: int = 7
    seconds: float = 5
    warm_s: float = 2
    scan_s: float = 2
    connections: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    mosec_workers: tuple[int, ...] = (1, 2, 3)
    mosec_batches: tuple[int, ...] = (1, 8, 16, 32, 64)
    mosec_waits_ms: tuple[int, ...] = (1, 2, 5)
    ceiling_batches: tuple[int, ...] = (1, 2, 4, 8)


QUICK = Plan(
    repeats=2,
    seconds=1,
    warm_s=1,
    scan_s=1,
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


def silero(plan: Plan) -> dict[str, Any]:
    """Every side at its best number of connections, in turns."""
    searched = search_mosec(plan)
    best = max(searched, key=lambda name: max(run.rate for run in searched[name][1]))
    ours = sides.dlbench(SILERO, WORKERS, BATCH)
    rivals = [
        sides.mosec(SILERO, WORKERS, BATCH, 1),
        replace(searched[best][0], name=f"{best} (its best)"),
        sides.fastapi(SILERO, WORKERS),
    ]
    for side in (ours, *rivals):
        sides.check(side)
        note(f"{side.name} answers what onnxruntime answers")
    scans = {side.name: scan(side, plan.connections, plan) for side in (ours, *rivals)}
    turns = take_turns([ours, *rivals], scans, plan)
    show_silero(turns, ours.name)
    found = {name: runs for name, (_, runs) in searched.items()}
    return {"mosec_search": found, "scans": scans, "turns": turns, "ours": ours.name}


def search_mosec(plan: Plan) -> dict[str, tuple[Side, list[wrk.Run]]]:
    """mosec with every number of workers and batch size, then the best of them with every wait."""
    found: dict[str, tuple[Side, list[wrk.Run]]] = {}

    def attempt(workers: int, batch: int, wait_ms: int) -> float:
        side = sides.mosec(SILERO, workers, batch, wait_ms)
        if side.name not in found:
            found[side.name] = (side, scan(side, plan.connections[-3:], plan))
        return max(run.rate for run in found[side.name][1])

    grid = list(product(plan.mosec_workers, plan.mosec_batches))
    workers, batch = max(grid, key=lambda cell: attempt(*cell, plan.mosec_waits_ms[0]))
    for wait_ms in plan.mosec_waits_ms:
        attempt(workers, batch, wait_ms)
    return found


def scan(side: Side, connections: tuple[int, ...], plan: Plan) -> list[wrk.Run]:
    """One short run for each number of connections, on one server."""
    with sides.serving(side) as port:
        wrk.run(port, side.requests, connections[0], plan.warm_s)
        runs = [wrk.run(port, side.requests, count, plan.scan_s) for count in connections]
    best = max(runs, key=lambda run: run.rate)
    note(f"{side.name}: {best.rate:,.0f}/s with {best.connections} connections")
    return runs


def take_turns(
    order: list[Side], scans: dict[str, list[wrk.Run]], plan: Plan
) -> dict[str, list[wrk.Run]]:
    """A B C D, D C B A, …: whatever drifts, drifts for all."""
    turns: dict[str, list[wrk.Run]] = {side.name: [] for side in order}
    for turn in range(plan.repeats):
        for side in order if turn % 2 == 0 else reversed(order):
            connections = max(scans[side.name], key=lambda run: run.rate).connections
            turns[side.name].append(one_turn(side, connections, plan))
        note(f"turn {turn + 1} of {plan.repeats}")
    return turns


def one_turn(side: Side, connections: int, plan: Plan) -> wrk.Run:
    """A fresh server, warmed, measured, ended."""
    with sides.serving(side) as port:
        wrk.run(port, side.requests, connections, plan.warm_s)
        return wrk.run(port, side.requests, connections, plan.seconds)


def show_silero(turns: dict[str, list[wrk.Run]], ours: str) -> None:
    table = new_table(f"{SILERO}: requests/s, each side at its best number of connections")
    for heading in ("server", "conns", "median/s", "min-max", "p99 ms", "dlbench is"):
        table.add_column(heading, justify="left" if heading == "server" else "right")
    for name, runs in turns.items():
        ratios = [a.rate / b.rate for a, b in zip(turns[ours], runs, strict=True)]
        table.add_row(
            name,
            str(runs[0].connections),
            f"{median(run.rate for run in runs):,.0f}",
            span([run.rate / 1000 for run in runs], ".1f") + "k",
            f"{median(run.p99_ms for run in runs):.1f}",
            "" if name == ours else f"{median(ratios):.2f}x\n({span(ratios, '.2f')})",
        )
    console.print(table)
    console.print("dlbench is: its rate / the rate of that row, turn by turn; median (min-max).")


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
    shares = [run.rate / limit for run, limit in zip(runs, limits, strict=True)]
    table = new_table(f"{MAGIKA}: our proxy and {WORKERS} processes that only compute")
    for heading in ("", "median/s", "min-max", "share of the ceiling"):
        table.add_column(heading, justify="right" if heading else "left")
    rates = [run.rate for run in runs]
    share = f"{median(shares):.2f} ({span(shares, '.2f')})"
    name = f"dlbench, {WORKERS} workers, batch {BATCH}, {runs[0].connections} conns"
    table.add_row(name, f"{median(rates):.0f}", span(rates, ".0f"), share)
    limit = f"session.run, {WORKERS} processes, batch {batch}"
    table.add_row(limit, f"{median(limits):.0f}", span(limits, ".0f"), "")
    console.print(table)


# --- how it looks ----------------------------------------------------------------------------------


def new_table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)


def span(values: list[float], form: str) -> str:
    return f"{min(values):{form}}-{max(values):{form}}"


def note(text: str) -> None:
    console.print(f"[dim]{text}[/]")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
