"""How well the search for the highest rate within an objective finds it, on simulated servers.

    .venv/bin/python -m benchmarks.simulated.rate_search [--quick] [--json FILE]

Requests arrive by Poisson and wait first come first served; every run has its verdict from the same
code as a real one. What the answer should be is known: for M/M/1 in closed form (the sojourn time is
exponential with rate mu - lambda), for the others from a long simulation of the same server.
Seeded: every run prints the same. tests/unit/loadgen/control/test_rate_search.py runs on this simulation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness.report import Report, console, note, table
from dlbench.loadgen.analysis.samples import Samples
from dlbench.loadgen.analysis.summary import summarise
from dlbench.loadgen.control.capacity import Capacity, find_capacity
from dlbench.loadgen.control.generator import Run
from dlbench.loadgen.control.objective import Objective
from dlbench.loadgen.control.rate_search import SearchSettings
from dlbench.loadgen.messages import RunFacts
from dlbench.loadgen.profile import LoadProfile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

WARM_S = 1.0
TIMEOUT_S = 10.0
CLIENT_RPS = 50_000.0
SERVERS = 60
QUICK_SERVERS = 4
TRUTH_REQUESTS = 200_000

# (arrivals in seconds, rate, random numbers) -> when each is answered
Answer = Callable[["Floats", float, np.random.Generator], "Floats"]


def queue(arrivals_s: Floats, services_s: Floats) -> Floats:
    """Departures of one server, first come first served (Lindley's recursion, unrolled)."""
    work_s = np.cumsum(services_s)
    idle_s = np.maximum.accumulate(arrivals_s - (work_s - services_s))
    return work_s + idle_s


@dataclass(frozen=True)
class MM1:
    mu: float

    def __call__(self, arrivals_s: Floats, _rate: float, rng: np.random.Generator) -> Floats:
        return queue(arrivals_s, rng.exponential(1 / self.mu, len(arrivals_s)))


@dataclass(frozen=True)
class MDc:
    """c servers with one constant service time: every c-th request meets the same one."""

    service_s: float
    servers: int

    def __call__(self, arrivals_s: Floats, _rate: float, _rng: np.random.Generator) -> Floats:
        done_s = np.empty_like(arrivals_s)
        for first in range(self.servers):
            mine = arrivals_s[first :: self.servers]
            done_s[first :: self.servers] = queue(mine, np.full(len(mine), self.service_s))
        return done_s


@dataclass(frozen=True)
class Noisy:
    """Another speed in each run, as real machines have it."""

    mu: float
    deviation: float = 0.07

    def __call__(self, arrivals_s: Floats, rate: float, rng: np.random.Generator) -> Floats:
        return MM1(self.mu * math.exp(rng.normal(0, self.deviation)))(arrivals_s, rate, rng)


@dataclass(frozen=True)
class Stalling:
    """Stands still for `for_s` in every `every_s`, beginning anywhere."""

    mu: float
    every_s: float
    for_s: float

    def __call__(self, arrivals_s: Floats, _rate: float, rng: np.random.Generator) -> Floats:
        at_s = arrivals_s + rng.uniform(0, self.every_s)
        into_s = at_s % self.every_s
        freed_s = np.where(into_s < self.for_s, arrivals_s + self.for_s - into_s, arrivals_s)
        return queue(freed_s, rng.exponential(1 / self.mu, len(arrivals_s)))


@dataclass(frozen=True)
class FullBatches:
    """Waits for full batches, but no longer than `most_s`: slow where requests are few."""

    mu: float
    batch: int
    most_s: float

    def __call__(self, arrivals_s: Floats, rate: float, rng: np.random.Generator) -> Floats:
        done_s = queue(arrivals_s, rng.exponential(1 / self.mu, len(arrivals_s)))
        return done_s + min(self.most_s, self.batch / rate)


@dataclass(frozen=True)
class Dip:
    """An M/M/1 that is slow between two rates."""

    mu: float
    low: float
    high: float

    def __call__(self, arrivals_s: Floats, rate: float, rng: np.random.Generator) -> Floats:
        slow_s = 1.0 if self.low < rate < self.high else 0.0
        return MM1(self.mu)(arrivals_s, rate, rng) + slow_s


class Simulated:
    """A server and a client that sends so much and no more: measures as a generator does."""

    def __init__(self, server: Answer, seed: int = 0, client_rps: float = CLIENT_RPS) -> None:
        self._server, self._seed, self._client_rps = server, seed, client_rps
        self.now_s = 0.0

    def measure(self, rate_rps: float, duration_s: float, seed: int) -> Run:
        rng = np.random.default_rng((self._seed, seed))
        length_s = WARM_S + duration_s
        due_s = np.sort(rng.uniform(0, length_s, rng.poisson(rate_rps * length_s)))
        sent_s = due_s
        if rate_rps > self._client_rps:
            sent_s = queue(due_s, np.full(len(due_s), 1 / self._client_rps))
        done_s = self._server(sent_s, rate_rps, rng)
        failed = done_s - due_s > TIMEOUT_S
        done_s = np.minimum(done_s, due_s + TIMEOUT_S)
        drain_s = max(0.0, float(done_s.max(initial=0.0)) - length_s)
        self.now_s += length_s + drain_s
        samples = Samples(
            latency_from="scheduled",
            scheduled_ns=nanoseconds(due_s),
            sent_ns=nanoseconds(sent_s),
            done_ns=nanoseconds(done_s),
            outcome=failed.astype(np.int16),
            connect_ns=np.zeros(len(due_s), np.int64),
            request_class=np.zeros(len(due_s), np.int8),
            names=("ok", "timeout"),
            window_ns=(round(WARM_S * 1e9), round(length_s * 1e9)),
        )
        facts = RunFacts(
            complete=True,
            started_at="",
            client_cpu=min(1.0, rate_rps / self._client_rps),
            net_mbps=0.0,
            real_time=True,
            connections=1000,
            exhausted=False,
            drain_s=drain_s,
        )
        profile = LoadProfile(rate=rate_rps, duration_s=duration_s, warmup_s=WARM_S)
        return Run(summarise(samples, facts, profile), samples)


def nanoseconds(times_s: Floats) -> NDArray[np.int64]:
    return np.rint(times_s * 1e9).astype(np.int64)


def search(
    server: Answer,
    objective: Objective,
    seed: int,
    client_rps: float = CLIENT_RPS,
    **settings: float,
) -> Capacity:
    """The search on a simulated server, with its clock."""
    simulated = Simulated(server, seed, client_rps)
    asked = SearchSettings(**settings)  # type: ignore[arg-type]
    return find_capacity(simulated.measure, objective, asked, clock=lambda: simulated.now_s)


@cache
def long_share(server: Answer, rate: float, most_ms: float) -> float:
    """Share of the requests over the bound in one very long run of a steady server."""
    rng = np.random.default_rng(1)
    arrivals_s = np.cumsum(rng.exponential(1 / rate, TRUTH_REQUESTS))
    latencies_s = server(arrivals_s, rate, rng) - arrivals_s
    return float((latencies_s * 1000 > most_ms).mean())


def true_rate(server: Answer, q: float, most_ms: float, most_rps: float) -> float:
    """Where the share over the bound passes 1 - q, by bisection."""
    low, high = 0.0, most_rps
    for _ in range(14):
        middle = (low + high) / 2
        over = long_share(server, middle, most_ms) > 1 - q
        low, high = (low, middle) if over else (middle, high)
    return low


@dataclass(frozen=True)
class Case:
    """One simulated server, its objective, and what the answer should be."""

    server: Answer
    objective: Objective
    truth_rps: float
    client_rps: float = CLIENT_RPS


def drawn(number: int) -> tuple[float, float, float]:
    """(capacity, utilisation at the answer, bound in ms) of an M/M/1, all over the place."""
    rng = np.random.default_rng((7, number))
    mu = math.exp(rng.uniform(math.log(40), math.log(3000)))
    utilisation = rng.uniform(0.3, 0.93)
    return mu, utilisation, 1000 * math.log(100) / (mu * (1 - utilisation))


def p99(most_ms: float) -> Objective:
    return Objective.parse(f"p99<{most_ms:.6f}ms")


def mm1(number: int) -> Case:
    mu, utilisation, most_ms = drawn(number)
    return Case(MM1(mu), p99(most_ms), mu * utilisation)


def fast(number: int) -> Case:
    """Ten times as fast: a run of the same length says ten times as much."""
    mu, utilisation, most_ms = drawn(number)
    return Case(MM1(10 * mu), p99(most_ms / 10), 10 * mu * utilisation)


def mdc(number: int) -> Case:
    mu, _, _ = drawn(number)
    servers = 1 + number % 4
    server, most_ms = MDc(servers / mu, servers), 1000 * (2.5 + number % 3) * servers / mu
    return Case(server, p99(most_ms), true_rate(server, 0.99, most_ms, mu))


def noisy(number: int) -> Case:
    mu, utilisation, most_ms = drawn(number)
    return Case(Noisy(mu), p99(most_ms), mu * utilisation)


def stalling(number: int) -> Case:
    """A third of a percent stands still: seen, and still within p99."""
    mu, _, most_ms = drawn(number)
    server = Stalling(mu, 1.0, 0.003)
    return Case(server, p99(most_ms), true_rate(server, 0.99, most_ms, mu))


def batching(number: int) -> Case:
    """Fails below a tenth of its capacity, which may be below the rate that the search begins at."""
    mu, _, _ = drawn(number)
    most_ms = 1000 * 30 / mu
    server = FullBatches(mu, 3, 2 * most_ms / 1000)
    return Case(server, p99(most_ms), true_rate(server, 0.99, most_ms, mu))


def limited_client(number: int) -> Case:
    """The client can do half of what the server can; the answer is the server's all the same."""
    mu, utilisation, most_ms = drawn(number)
    return Case(MM1(mu), p99(most_ms), mu * utilisation, 0.5 * mu * utilisation)


KINDS: dict[str, Callable[[int], Case]] = {
    "M/M/1": mm1,
    "M/M/1, 10x faster": fast,
    "M/D/c": mdc,
    "M/M/1, 7 % noise": noisy,
    "short stalls": stalling,
    "waits for batches": batching,
    "client too slow": limited_client,
}


def main() -> None:
    report = Report(__doc__ or "")
    made = table(
        f"Answer against truth; {SearchSettings().budget_s:.0f} s at the most",
        *("server", "found", "found/true", "5-95 %", "within 10 %", "too high", "confirmed"),
        *("estimate/true", "5-95 %", "holds"),
        *("non-mon.", "client", "runs", "seconds", "most"),
    )
    kept = {}
    for name, make in KINDS.items():
        cases = [make(number) for number in range(QUICK_SERVERS if report.quick else SERVERS)]
        found = [search(c.server, c.objective, n, c.client_rps) for n, c in enumerate(cases)]
        made.add_row(name, *row(cases, found))
        kept[name] = [
            {"truth_rps": case.truth_rps, **capacity.model_dump(exclude={"trials"})}
            for case, capacity in zip(cases, found, strict=True)
        ]
        note(f"{name} done")
    console.print(made)
    console.print(
        "too high: more than 2 % above the truth and called confirmed. estimate: R(B) from all runs; holds: "
        "its 95 % interval holds the truth. seconds: of the simulated load."
    )
    report.keep(kept)


def row(cases: list[Case], found: list[Capacity]) -> list[str]:
    pairs = [(c, f) for c, f in zip(cases, found, strict=True) if f.rate_rps]
    ratios = np.array([f.rate_rps / c.truth_rps for c, f in pairs])
    high = [ratio > 1.02 and f.confirmed for ratio, (_, f) in zip(ratios, pairs, strict=True)]
    low, middle, top = np.quantile(ratios, [0.05, 0.5, 0.95]) if pairs else [math.nan] * 3
    return [
        f"{len(pairs)}/{len(found)}",
        f"{middle:.3f}",
        f"{low:.2f}-{top:.2f}",
        f"{np.mean(np.abs(ratios - 1) <= 0.1):.0%}" if pairs else "",
        str(sum(high)),
        str(sum(f.confirmed for f in found)),
        *estimated(cases, found),
        str(sum(f.non_monotonic for f in found)),
        str(sum(f.client_limit_rps is not None for f in found)),
        f"{median(len(f.trials) for f in found):.0f}",
        f"{median(f.took_s for f in found):.0f}",
        f"{max(f.took_s for f in found):.0f}",
    ]


def estimated(cases: list[Case], found: list[Capacity]) -> list[str]:
    """R(B) from all runs: how near the truth, and how often its interval holds that."""
    pairs = [(c.truth_rps, f.estimate) for c, f in zip(cases, found, strict=True) if f.estimate]
    if not pairs:
        return [""] * 3
    low, middle, top = np.quantile([e.rate_rps / truth for truth, e in pairs], [0.05, 0.5, 0.95])
    holds = np.mean([e.low_rps <= truth <= e.high_rps for truth, e in pairs])
    return [f"{middle:.3f}", f"{low:.2f}-{top:.2f}", f"{holds:.0%}"]


if __name__ == "__main__":
    main()
