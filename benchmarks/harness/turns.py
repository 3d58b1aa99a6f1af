"""Each side's best settings, searched for, and sides that take turns with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.harness import sides
from benchmarks.harness.process import BenchmarkError
from benchmarks.harness.report import note, rounds
from benchmarks.peers import wrk

if TYPE_CHECKING:
    from benchmarks.harness.sides import Side


@dataclass(frozen=True)
class Plan:
    """How long, how often, and what is searched; `QUICK` only shows that everything works."""

    repeats: int = 5
    warm_s: float = 1
    scan_s: float = 1
    seconds: float = 4
    connections: tuple[int, ...] = (16, 32, 64, 128, 256)
    probe_connections: tuple[int, ...] = (64, 256)
    candidates: int | None = None  # how many of each search
    steady_s: float = 5
    probe_s: float = 3


QUICK = Plan(
    repeats=1,
    seconds=1,
    connections=(32, 128),
    probe_connections=(128,),
    candidates=1,
    steady_s=2,
    probe_s=1,
)


@dataclass(frozen=True)
class Chosen:
    """A side at its best: settings and connections, with the rates of everything that was tried."""

    side: Side
    connections: int
    tried: dict[str, float]


def choose(candidates: list[Side], plan: Plan) -> Chosen:
    """The fastest of `candidates` at its best number of connections."""
    found: dict[Side, wrk.Run] = {}
    for side in candidates[: plan.candidates]:
        try:
            found[side] = peak(scan(side, plan.probe_connections, plan))
        except (BenchmarkError, TimeoutError) as error:
            note(f"{side.name} is out of the search: {error}")
    if not found:
        raise BenchmarkError(f"{candidates[0].server}: none of its settings could be measured")
    best = max(found, key=lambda side: found[side].rate)
    connections = peak(scan(best, plan.connections, plan)).connections
    note(f"{best.name}: best of {len(found)}, with {connections} connections")
    return Chosen(best, connections, {side.name: run.rate for side, run in found.items()})


def scan(side: Side, connections: tuple[int, ...], plan: Plan) -> list[wrk.Run]:
    """One short run for each number of connections, on one server."""
    with sides.serving(side) as port:
        load(side, port, connections[0], plan.warm_s)
        return [load(side, port, count, plan.scan_s) for count in connections]


def load(side: Side, port: int, connections: int, seconds: float) -> wrk.Run:
    """One run, after the end of what an earlier one left: wrk hangs up on requests under way."""
    sides.ask(port, side.requests[0])
    return wrk.run(port, side.requests, connections, seconds)


def peak(runs: list[wrk.Run]) -> wrk.Run:
    return max(runs, key=lambda run: run.rate)


def take_turns(chosen: dict[str, Chosen], plan: Plan) -> dict[str, list[wrk.Run]]:
    """A run for each side in each round, always on a fresh server."""
    found: dict[str, list[wrk.Run]] = {label: [] for label in chosen}
    for order in rounds(chosen, plan.repeats):
        for label in order:
            found[label].append(turn(chosen[label], plan))
    return found


def turn(chosen: Chosen, plan: Plan) -> wrk.Run:
    """A fresh server, warmed, measured, ended."""
    with sides.serving(chosen.side) as port:
        load(chosen.side, port, chosen.connections, plan.warm_s)
        return load(chosen.side, port, chosen.connections, plan.seconds)


def ratios(left: list[wrk.Run], right: list[wrk.Run]) -> list[float]:
    """How many times `right` `left` is, round by round."""
    return [a.rate / b.rate for a, b in zip(left, right, strict=True)]
