"""Our load generator against stock Locust and wrk: how much a core gives, and what each one hides.

    .venv/bin/python benchmarks/loadgen.py [--quick] [--json FILE]

1. Closed loop against a server that computes nothing: requests per second of the client's own
   processor time. Client and server have a core each, so the server's speed cannot flatter a client.
2. Open loop at fixed rates: how late is a request sent?
3. A server that answers in 2 ms and stands still for 1 s in every 10 s, at 1,000/s.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import machine
import wrk
from process import BenchmarkError, running
from report import console, rounds, table

from dlbench.loadgen.generator import Generator
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.target import discover

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCUST_USER = Path(__file__).parent / "peers" / "locust_user.py"
INFER = "/v2/models/null/infer"
# What our generator makes of the null server's metadata: x, FP32, [1, 16], binary both ways.
TENSOR = bytes(64)
HEADER = json.dumps(
    {
        "inputs": [
            {
                "name": "x",
                "shape": [1, 16],
                "datatype": "FP32",
                "parameters": {"binary_data_size": len(TENSOR)},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
).encode()
HEADERS = {
    "Content-Type": "application/octet-stream",
    "Inference-Header-Content-Length": str(len(HEADER)),
}
STALL_RATE = 1000
STALL_USERS = 50
STALL = ("--delay-ms", "2", "--stall-s", "1", "--stall-every-s", "10")


@dataclass(frozen=True)
class Plan:
    """How long and how often; `--quick` only shows that everything works."""

    repeats: int = 5
    seconds: float = 5
    warm_s: float = 1
    users: tuple[int, ...] = (8, 16, 64)
    rates: tuple[int, ...] = (1000, 4000, 16000)
    stall_s: float = 20
    stall_repeats: int = 3


QUICK = Plan(repeats=1, seconds=1, users=(16,), rates=(4000,), stall_s=10, stall_repeats=1)


@dataclass(frozen=True)
class Run:
    """What one client reported of one run."""

    requests: int
    duration_s: float
    cpu_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float | None = None
    lateness_p99_ms: float | None = None
    verdict: str = ""

    @property
    def rate(self) -> float:
        return self.requests / self.duration_s

    @property
    def per_core(self) -> float:
        return self.requests / self.cpu_s


def main() -> None:
    options = arguments()
    plan = QUICK if options.quick else Plan()
    facts = machine.facts("locust", "gevent", "geventhttpclient", "uvloop", "numpy")
    facts["wrk"] = wrk.version()
    console.print(machine.show(facts))
    result = {
        "facts": facts,
        "plan": asdict(plan),
        "closed": closed_loop(plan),
        "lateness": lateness(plan),
        "stall": stall(plan),
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, default=asdict))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: numbers mean nothing")
    parser.add_argument("--json", type=Path, help="keep the raw numbers in this file")
    return parser.parse_args()


# --- the clients: (port, users, warm-up, seconds) -> Run -------------------------------------------


def dlbench(port: int, users: int, warm_s: float, seconds: float) -> Run:
    """Closed loop of our generator; every input is new, which the others do not do."""
    return ours(port, LoadProfile(users=users, warmup_s=warm_s, duration_s=seconds))


def ours(port: int, profile: LoadProfile) -> Run:
    target = discover(f"http://127.0.0.1:{port}", profile)
    with Generator() as generator:
        found = generator.measure(target, profile).measurement
    if found.error_rate:
        raise BenchmarkError(f"dlbench met errors: {found.errors}")
    return Run(
        requests=round(found.throughput_rps * found.duration_s),
        duration_s=found.duration_s,
        cpu_s=found.client_cpu * found.duration_s,
        p50_ms=found.p50_ms,
        p99_ms=found.p99_ms,
        lateness_p99_ms=found.lateness_p99_ms,
        verdict=found.verdict,
    )


def locust(port: int, users: int, warm_s: float, seconds: float, rate: float | None = None) -> Run:
    """Stock Locust's FastHttpUser, in a process of its own."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(HEADER + TENSOR)
        body.flush()
        settings = [port, INFER, body.name, json.dumps(HEADERS), users, warm_s, seconds]
        text = subprocess.run(
            [sys.executable, LOCUST_USER, *map(str, settings), *([str(rate)] if rate else [])],
            capture_output=True,
            text=True,
            check=True,
            timeout=warm_s + seconds + 60,
        ).stdout
    found = json.loads(text.splitlines()[-1])
    if found.pop("errors"):
        raise BenchmarkError("Locust met errors")
    return Run(**found)


def wrk_client(port: int, users: int, _warm_s: float, seconds: float) -> Run:
    """wrk with one thread and one request that never changes; its start-up counts, and is 1 ms."""
    request = wrk.request_bytes(INFER, HEADER + TENSOR, HEADERS)
    found = asdict(wrk.run(port, [request], users, seconds))
    del found["connections"]
    return Run(**found)


Client = Callable[[int, int, float, float], Run]
CLIENTS: dict[str, Client] = {"dlbench": dlbench, "FastHttpUser": locust, "wrk": wrk_client}


@contextmanager
def null_server(*arguments: str, core: int | None = None) -> Iterator[int]:
    """The port of a fresh null server, on a core of its own if one is named."""
    command = [sys.executable, "-m", "dlbench.loadgen.null_server", *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running(command, **pipes) as process:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        yield json.loads(process.stdout.readline())["port"]


# --- 1. closed loop --------------------------------------------------------------------------------


def closed_loop(plan: Plan) -> dict[str, Any]:
    """Each client at its best number of users, in turns."""
    allowed = os.sched_getaffinity(0)
    client_core, server_core = min(allowed), max(allowed)
    os.sched_setaffinity(0, {client_core})  # inherited by every client
    try:
        users = {name: best_users(client, plan, server_core) for name, client in CLIENTS.items()}
        turns: dict[str, list[Run]] = {name: [] for name in CLIENTS}
        for order in rounds(CLIENTS, plan.repeats):
            for name in order:
                with null_server(core=server_core) as port:
                    run = CLIENTS[name](port, users[name], plan.warm_s, plan.seconds)
                turns[name].append(run)
    finally:
        os.sched_setaffinity(0, allowed)
    show_closed(turns, users)
    return {"users": users, "turns": turns}


def best_users(client: Client, plan: Plan, server_core: int) -> int:
    """The number of users with which this client gets the most out of a core."""

    def per_core(users: int) -> float:
        with null_server(core=server_core) as port:
            return client(port, users, plan.warm_s, plan.seconds / 2).per_core

    return max(plan.users, key=per_core)


def show_closed(turns: dict[str, list[Run]], users: dict[str, int]) -> None:
    made = table(
        "Closed loop against a server that computes nothing",
        *("client", "users", "requests/s", "per core", "min-max", "dlbench is"),
    )
    for name, runs in turns.items():
        ratios = [a.per_core / b.per_core for a, b in zip(turns["dlbench"], runs, strict=True)]
        made.add_row(
            name,
            str(users[name]),
            f"{median(run.rate for run in runs):,.0f}",
            f"{median(run.per_core for run in runs):,.0f}",
            span([run.per_core / 1000 for run in runs], ".1f") + "k",
            "" if name == "dlbench" else f"{median(ratios):.2f}x ({span(ratios, '.2f')})",
        )
    console.print(made)
    console.print("per core: requests per second of the client's processor time; medians.")


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


def span(values: list[float], form: str) -> str:
    return f"{min(values):{form}}-{max(values):{form}}"


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
