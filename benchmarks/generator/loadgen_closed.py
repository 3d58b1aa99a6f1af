"""Closed loops that take turns: what each client makes of a core against a server that does nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.generator.loadgen_clients import Client, Run, span
from benchmarks.harness.report import aim_over, console, rounds, table

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


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
class Contest:
    """Clients by name, ours ("dlbench") first; `server(core)` is a context of a port."""

    title: str
    clients: dict[str, Client]
    server: Callable[[int], AbstractContextManager[int]]
    # How many times a client's requests per core ours have to be.
    aims: dict[str, float]


def closed_loop(contest: Contest, plan: Plan) -> dict[str, Any]:
    """Each client at its best number of users, in turns."""
    allowed = os.sched_getaffinity(0)
    client_core, server_core = min(allowed), max(allowed)
    os.sched_setaffinity(0, {client_core})  # inherited by every client
    try:
        clients = contest.clients
        users = {name: best_users(contest, name, plan, server_core) for name in clients}
        turns: dict[str, list[Run]] = {name: [] for name in clients}
        for order in rounds(clients, plan.repeats):
            for name in order:
                with contest.server(server_core) as port:
                    run = clients[name](port, users[name], plan.warm_s, plan.seconds)
                turns[name].append(run)
    finally:
        os.sched_setaffinity(0, allowed)
    show(contest, turns, users)
    return {"users": users, "turns": turns}


def best_users(contest: Contest, name: str, plan: Plan, server_core: int) -> int:
    """The number of users with which this client gets the most out of a core."""

    def per_core(users: int) -> float:
        with contest.server(server_core) as port:
            return contest.clients[name](port, users, plan.warm_s, plan.seconds / 2).per_core

    return max(plan.users, key=per_core)


def show(contest: Contest, turns: dict[str, list[Run]], users: dict[str, int]) -> None:
    made = table(
        contest.title,
        *("client", "users", "requests/s", "per core", "min-max", "dlbench is"),
    )
    for name, runs in turns.items():
        ratios = advantages(turns["dlbench"], runs)
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
    for name, least in contest.aims.items():
        aim_over(f"dlbench / {name}, per core", advantages(turns["dlbench"], turns[name]), least)


def advantages(ours: list[Run], theirs: list[Run]) -> list[float]:
    """How many times as much we get out of a core, round by round."""
    return [a.per_core / b.per_core for a, b in zip(ours, theirs, strict=True)]
