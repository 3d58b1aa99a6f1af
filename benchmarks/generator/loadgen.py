"""Our load generator against stock Locust and wrk: how much a core gives, and what each one hides.

    .venv/bin/python -m benchmarks.generator.loadgen [--quick] [--json FILE] [--only PART]…

1. Closed loop against a server that computes nothing: requests per second of the client's own
   processor time. Client and server have a core each, so the server's speed cannot flatter a client.
2. Open loop at fixed rates: how late is a request sent?
3. A server that answers in 2 ms and stands still for 1 s in every 10 s, at 1,000/s.
4. As 1, over TLS (against uvloop's) and over gRPC (against frames made by hand on uvloop).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.generator import loadgen_grpc, loadgen_http, loadgen_tls
from benchmarks.generator.loadgen_clients import Run, locust, null_server, ours, span, wrk_client
from benchmarks.generator.loadgen_closed import QUICK, Plan, closed_loop
from benchmarks.harness import machine
from benchmarks.harness.process import BenchmarkError
from benchmarks.harness.report import console, rounds, table
from benchmarks.peers import wrk
from dlbench.loadgen.profile import LoadProfile

if TYPE_CHECKING:
    from collections.abc import Callable

STALL_RATE = 1000
STALL_USERS = 50
STALL = ("--delay-ms", "2", "--stall-s", "1", "--stall-every-s", "10")


def main() -> None:
    options = arguments()
    plan = QUICK if options.quick else Plan()
    facts = machine.facts("locust", "gevent", "geventhttpclient", "uvloop", "numpy")
    facts["wrk"] = wrk.version()
    console.print(machine.show(facts))
    result = {"facts": facts, "plan": asdict(plan)}
    for name in options.only or PARTS:
        result[name] = PARTS[name](plan)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, default=asdict))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: numbers mean nothing")
    parser.add_argument("--json", type=Path, help="keep the raw numbers in this file")
    parser.add_argument("--only", action="append", choices=PARTS, help="may be repeated")
    return parser.parse_args()


# --- 2. lateness -----------------------------------------------------------------------------------


def lateness(plan: Plan) -> dict[int, list[Run]]:
    """Poisson arrivals at several rates; nothing is bound to a core, as people use it."""
    found: dict[int, list[Run]] = {rate: [] for rate in plan.rates}
    for _ in range(plan.repeats):
        for rate, runs in found.items():
            profile = LoadProfile(rate=rate, warmup_s=plan.warm_s, duration_s=plan.seconds)
            with null_server() as port:
                runs.append(ours(port, profile))
    show_lateness(found)
    return found


def show_lateness(found: dict[int, list[Run]]) -> None:
    made = table(
        "Open loop, Poisson: actual minus scheduled send time",
        *("rate", "sent/s", "lateness p99 ms", "min-max", "client CPU", "verdicts"),
    )
    for rate, runs in found.items():
        late = [run.lateness_p99_ms for run in runs]
        made.add_row(
            f"{rate:,}",
            f"{median(run.rate for run in runs):,.0f}",
            f"{median(late):.3f}",
            span(late, ".3f"),
            f"{median(run.cpu_s / run.duration_s for run in runs):.0%}",
            " ".join(sorted({run.verdict for run in runs})),
        )
    console.print(made)


# --- 3. a server that stalls -----------------------------------------------------------------------


def stall(plan: Plan) -> dict[str, list[Run]]:
    """The same stalls seen by an open loop and by two closed ones."""
    # Whole periods of the stall, so that every run sees the same share of it.
    clients = {
        f"dlbench, open loop, {STALL_RATE:,}/s": open_loop,
        f"FastHttpUser, {STALL_USERS} users, {STALL_RATE:,}/s": locust_at_rate,
        "wrk, 3 connections, no rate": wrk_unpaced,
    }
    found: dict[str, list[Run]] = {name: [] for name in clients}
    for order in rounds(clients, plan.stall_repeats):
        for name in order:
            with null_server(*STALL) as port:
                found[name].append(clients[name](port, plan.warm_s, plan.stall_s))
    show_stall(found)
    return found


def open_loop(port: int, warm_s: float, seconds: float) -> Run:
    return ours(port, LoadProfile(rate=STALL_RATE, warmup_s=warm_s, duration_s=seconds))


def locust_at_rate(port: int, warm_s: float, seconds: float) -> Run:
    return locust(port, STALL_USERS, warm_s, seconds, STALL_RATE)


def wrk_unpaced(port: int, warm_s: float, seconds: float) -> Run:
    """wrk knows no rate: three connections come near it."""
    return wrk_client(port, 3, warm_s, seconds)


def show_stall(found: dict[str, list[Run]]) -> None:
    made = table(
        "2 ms, but stands still for 1 s in every 10 s: a tenth waits 0 to 1 s",
        *("client", "requests/s", "p50 ms", "p99 ms", "min-max"),
    )
    for name, runs in found.items():
        tails = [run.p99_ms for run in runs]
        middle = median(run.p50_ms for run in runs)
        rate = median(run.rate for run in runs)
        row = (f"{rate:,.0f}", f"{middle:.1f}", f"{median(tails):,.0f}", span(tails, ",.0f"))
        made.add_row(name, *row)
    console.print(made)
    console.print("wrk's own p99 is corrected afterwards, by its mean interval between requests.")


PARTS: dict[str, Callable[[Plan], Any]] = {
    "closed": partial(closed_loop, loadgen_http.CONTEST),
    "open": lateness,
    "stall": stall,
    "tls": partial(closed_loop, loadgen_tls.CONTEST),
    "grpc": partial(closed_loop, loadgen_grpc.CONTEST),
}

if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
