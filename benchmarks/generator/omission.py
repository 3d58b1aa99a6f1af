"""Coordinated omission: who sees a server that stands still for one second in every ten?

    .venv/bin/python -m benchmarks.generator.omission [--quick] [--json FILE]

The server (`known_server.py`) answers after 2 ms. During the stall it answers nothing, and at its end
everything that waits, one after the other. With R requests/s spread evenly, stalls of S seconds in
every P, and M replies per second while the backlog is worked off, a request due t after the beginning
of a stall waits

    S - t * (1 - R / M)     for t < S / (1 - R / M), the others not at all

so a share x of all requests (t < x * P) waits longer than S - x * P * (1 - R / M), and

    p99 = 2 ms + S - 0.01 * P * (1 - R / M)

which is 902 ms, and a little more for what the drain takes; M is measured by the server itself. A
client that waits for replies before it asks again sends next to nothing during the stall: for it one
request per user is slow, whatever the share of the time that nobody was answered.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from benchmarks.generator.known_server import KNOWN
from benchmarks.generator.truth import measure, serving
from benchmarks.harness.process import PEERS, BenchmarkError
from benchmarks.harness.report import Report, aim, console, note, spread, table
from benchmarks.peers import wrk
from dlbench.loadgen.control.generator import Generator

LOCUST_USER = PEERS / "locust_user.py"
PATH = "/v2/models/null/infer"
BODY = b'{"inputs":[{"name":"x","shape":[1,16],"datatype":"FP32","data":[%s]}]}'
BODY = BODY % b",".join([b"0.5"] * 16)
HEADERS = {"Content-Type": "application/json"}
SERVER = KNOWN["long stall"]
USERS = 50
WARM_S = 1


@dataclass(frozen=True)
class Plan:
    """How long and how often; durations are whole periods of the stall."""

    rates: tuple[int, ...] = (100, 1000, 4000)
    repeats: int = 3
    seconds: int = 20


QUICK = Plan(rates=(1000,), repeats=1, seconds=10)


class Load(NamedTuple):
    """What a client is asked to send."""

    rate: int
    seconds: int
    seed: int


class Seen(NamedTuple):
    """What a client says."""

    rate_rps: float
    p50_ms: float
    p99_ms: float


class Turn(NamedTuple):
    """What it says, beside what is true of this very turn."""

    seen: Seen
    truth_p99_ms: float

    @property
    def error(self) -> float:
        return self.seen.p99_ms / self.truth_p99_ms - 1


Client = Callable[[Generator, str, Load], Seen]


def main() -> None:
    report = Report(__doc__ or "")
    plan = QUICK if report.quick else Plan()
    found: dict[str, dict[int, list[Turn]]] = {
        name: {rate: [] for rate in plan.rates} for name in CLIENTS
    }
    with Generator() as generator:
        for repeat in range(plan.repeats):
            for name, client in CLIENTS.items():
                for rate, turns in found[name].items():
                    turns.append(turn(generator, client, Load(rate, plan.seconds, repeat)))
            note(f"round {repeat + 1} of {plan.repeats}")
    show(found)
    report.keep({"plan": plan, "turns": found})


def turn(generator: Generator, client: Client, load: Load) -> Turn:
    """A fresh server, loaded, and asked how fast it worked its stalls off."""
    with serving(SERVER.name, seed=0) as served:
        seen = client(generator, served.url, load)
    assert served.timing
    busy = load.rate / served.timing.drained_rps if served.timing.drained_rps else 0.0
    return Turn(seen, SERVER.quantile(0.99, busy))


def dlbench(generator: Generator, url: str, load: Load) -> Seen:
    """Open loop, Poisson."""
    given = {"rate": load.rate, "duration_s": load.seconds, "warmup_s": WARM_S, "seed": load.seed}
    found = measure(generator, url, **given).measurement
    return Seen(found.throughput_rps, found.p50_ms or 0.0, found.p99_ms or 0.0)


def locust(_: Generator, url: str, load: Load) -> Seen:
    """Stock FastHttpUser: users that share the rate, by Locust's own `constant_throughput`."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(BODY)
        body.flush()
        pace = (USERS, WARM_S, load.seconds, load.rate)
        settings = [port_of(url), PATH, body.name, json.dumps(HEADERS), *pace]
        text = subprocess.run(
            [sys.executable, LOCUST_USER, *map(str, settings)],
            capture_output=True,
            text=True,
            check=True,
            timeout=WARM_S + load.seconds + 60,
        ).stdout
    found = json.loads(text.splitlines()[-1])
    if found["errors"]:
        raise BenchmarkError("Locust met errors")
    return Seen(found["requests"] / found["duration_s"], found["p50_ms"], found["p99_ms"])


def wrk_unpaced(_: Generator, url: str, load: Load) -> Seen:
    """wrk knows no rate: as many connections as come near it, 500/s each at best.

    Its p99 is corrected afterwards: it adds the requests that it would have sent during a stall, at
    its mean interval, which is right for a stall as regular as this one.
    """
    request = wrk.request_bytes(PATH, BODY, HEADERS)
    found = wrk.run(port_of(url), [request], max(1, load.rate // 450), load.seconds)
    return Seen(found.rate, found.p50_ms, found.p99_ms)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


CLIENTS: dict[str, Client] = {
    "dlbench, open loop": dlbench,
    f"FastHttpUser, {USERS} users": locust,
    "wrk, closed, corrected": wrk_unpaced,
}


def show(found: dict[str, dict[int, list[Turn]]]) -> None:
    made = table(
        "2 ms, but nothing is answered for 1 s in every 10 s: p99, Poisson at the rate",
        *("client", "rate", "seen/s", "p50 ms", "p99 ms (min-max)", "true p99", "error of median"),
    )
    open_loop = next(iter(found.values()))
    # A closed loop leaves a handful of requests waiting: too few to time a drain by.
    truths = {
        rate: median(turn.truth_p99_ms for turn in turns) for rate, turns in open_loop.items()
    }
    for name, by_rate in found.items():
        for rate, turns in by_rate.items():
            tails = [turn.seen.p99_ms for turn in turns]
            made.add_row(
                *(name, f"{rate:,}", f"{median(turn.seen.rate_rps for turn in turns):,.0f}"),
                *(f"{median(turn.seen.p50_ms for turn in turns):.1f}", spread(tails, ",.0f")),
                *(f"{truths[rate]:,.0f}", f"{median(tails) / truths[rate] - 1:+.1%}"),
            )
    console.print(made)
    for rate, turns in open_loop.items():
        off = median(turn.error for turn in turns)
        aim(f"dlbench at {rate:,}/s: error of the median p99, %,", [abs(off) * 100], 5)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
