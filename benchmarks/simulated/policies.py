"""CPU time of one scheduling decision: every policy over 2, 8 and 64 workers.

    .venv/bin/python -m benchmarks.simulated.policies [--quick] [--json FILE]

The workers differ in weight and speed, and 512 requests wait or run: each decision ends the oldest.
Keys are 4,000 by a Zipf law, or a single hot one. The rows take turns; a figure is the median of
these, with min-max. Bookkeeping is one `began` and one `ended`. Both are differences of two loops, so
tens of nanoseconds are noise.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import asdict, dataclass
from itertools import islice, product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.harness import machine
from dlbench.proxy.dispatch.loads import Loads
from dlbench.proxy.dispatch.policy import POLICIES, Member

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlbench.proxy.dispatch.policy import Policy

WORKERS = (2, 8, 64)
RUNNING = 512
LIMIT_NS = 2000  # at 64 workers
console = Console(width=100, highlight=False)


@dataclass(frozen=True)
class Plan:
    """How often; `--quick` only shows that everything works."""

    repeats: int = 9
    decisions: int = 20_000


@dataclass(frozen=True)
class Cost:
    """Nanoseconds of CPU time per request, taken once."""

    decision_ns: float
    bookkeeping_ns: float


Costs = dict[tuple[str, int], list[Cost]]  # (row's title, workers) -> a cost for each turn


def main() -> None:
    options = arguments()
    plan = Plan(repeats=2, decisions=2000) if options.quick else Plan()
    facts = machine.facts()
    console.print(machine.show(facts))
    costs = measured(plan)
    console.print(table(costs))
    most = max(WORKERS)
    slow = [t for (t, n), c in costs.items() if n == most and middle(c, "decision_ns") > LIMIT_NS]
    console.print(f"over {LIMIT_NS} ns a decision at {most} workers: {', '.join(slow) or 'none'}")
    if options.json:
        rows = [(*place, [asdict(cost) for cost in found]) for place, found in costs.items()]
        options.json.write_text(json.dumps({"facts": facts, "costs": rows}, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: numbers mean nothing")
    parser.add_argument("--json", type=Path, help="keep the raw numbers in this file")
    return parser.parse_args()


# --- measuring -------------------------------------------------------------------------------------


def measured(plan: Plan) -> Costs:
    keys = workloads(RUNNING + plan.decisions)
    costs: Costs = {place: [] for place in product(keys, WORKERS)}
    for _ in range(plan.repeats):
        for title, workers in costs:
            make = POLICIES[title.partition(",")[0]]
            costs[title, workers].append(cost(make, workers, keys[title]))
    return costs


def workloads(count: int) -> dict[str, Sequence[bytes]]:
    """Row's title -> the key of each request, as long as the result cache's."""
    chance = random.Random(1)
    distinct = [chance.randbytes(16) for _ in range(4000)]
    zipf = chance.choices(distinct, [1 / rank for rank in range(1, 4001)], k=count)
    unkeyed = {name: [b""] * count for name in POLICIES if name != "consistent_hash"}
    return {**unkeyed, "consistent_hash": zipf, "consistent_hash, one key": distinct[:1] * count}


def cost(make: Callable[[], Policy], workers: int, keys: Sequence[bytes]) -> Cost:
    """What deciding adds to a loop over the same decisions, and bookkeeping to a loop without."""
    policy, choices = make(), []
    policy.join(members(workers))
    deciding_ns = decide(policy, busy(workers), keys, choices)
    replaying_ns = replay(busy(workers), choices)
    count = len(keys) - RUNNING
    return Cost((deciding_ns - replaying_ns) / count, (replaying_ns - only_loop(choices)) / count)


def members(count: int) -> list[Member]:
    return [Member(f"worker-{number}", 1.0 + number % 3) for number in range(count)]


def busy(workers: int) -> Loads:
    """Loads of workers that were measured once."""
    loads = Loads([member.name for member in members(workers)])
    for index in range(workers):
        loads.took(index, 1, 1_000_000 * (1 + index % 4))
    return loads


def decide(policy: Policy, loads: Loads, keys: Sequence[bytes], choices: list[int]) -> int:
    choose, began, ended, note = policy.choose, loads.began, loads.ended, choices.append
    for key in keys[:RUNNING]:
        note(choose(loads, key))
        began(choices[-1], 1, 1)
    oldest = iter(choices)
    rest = keys[RUNNING:]
    start = time.process_time_ns()
    for key, old in zip(rest, oldest, strict=False):
        index = choose(loads, key)
        note(index)
        began(index, 1, 1)  # SHARED is -1: it costs as much to book it for the last one
        ended(old, 1, 1)
    return time.process_time_ns() - start


def replay(loads: Loads, choices: Sequence[int]) -> int:
    began, ended = loads.began, loads.ended
    notes: list[int] = []
    note = notes.append
    for index in choices[:RUNNING]:
        began(index, 1, 1)
    start = time.process_time_ns()
    for index, old in zip(islice(choices, RUNNING, None), choices, strict=False):
        note(index)
        began(index, 1, 1)
        ended(old, 1, 1)
    return time.process_time_ns() - start


def only_loop(choices: Sequence[int]) -> int:
    notes: list[int] = []
    note = notes.append
    start = time.process_time_ns()
    for index, _ in zip(islice(choices, RUNNING, None), choices, strict=False):
        note(index)
    return time.process_time_ns() - start


# --- showing ---------------------------------------------------------------------------------------


def middle(costs: Sequence[Cost], field: str) -> float:
    return median(getattr(cost, field) for cost in costs)


def table(costs: Costs) -> Table:
    shown = Table(title="ns of CPU time per decision: median (min-max)")
    shown.add_column("policy")
    for workers in WORKERS:
        shown.add_column(f"{workers} workers", justify="right")
    shown.add_column("bookkeeping", justify="right")
    for title in dict.fromkeys(title for title, _ in costs):
        decisions = [spread(costs[title, workers], "decision_ns") for workers in WORKERS]
        shown.add_row(title, *decisions, spread(costs[title, max(WORKERS)], "bookkeeping_ns"))
    return shown


def spread(costs: Sequence[Cost], field: str) -> str:
    found = [getattr(cost, field) for cost in costs]
    return f"{median(found):.0f} ({min(found):.0f}-{max(found):.0f})"


if __name__ == "__main__":
    main()
