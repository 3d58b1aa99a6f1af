"""silero_vad_half, 0.1 ms of computing: a model so short that the server is what is measured."""

from __future__ import annotations

from itertools import product
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.harness import sides
from benchmarks.harness.report import aim_over, console, note, spread, table
from benchmarks.harness.turns import choose, ratios, take_turns

if TYPE_CHECKING:
    from benchmarks.harness.sides import Side
    from benchmarks.harness.turns import Chosen, Plan
    from benchmarks.peers.wrk import Run

SILERO = "silero_vad_half"
WORKERS = (1, 2, 3)
# (workers, batch)
GRID = tuple(product(WORKERS, (16, 32, 64)))
LITSERVE_GRID = ((2, 8), (2, 32), (1, 32))
MLSERVER_GRID = ((2, 32), (0, 8), (0, 32))
# Longer waits, near mosec's best: (workers, batch, milliseconds).
MOSEC_WAITS = tuple(product((2, 3), (64,), (3,)))
AIMS = {"mosec": 1.4, "LitServe": 10.0, "MLServer": 10.0}


def measure(plan: Plan) -> dict[str, Any]:
    """Every side at its best, in turns."""
    chosen = {label: choose(grid, plan) for label, grid in contenders().items()}
    found = take_turns(chosen, plan)
    show(chosen, found)
    return {"tried": {label: one.tried for label, one in chosen.items()}, "turns": found}


def contenders() -> dict[str, list[Side]]:
    """What is searched for each row of the table."""
    return {
        "dlbench": [sides.dlbench(SILERO, *one) for one in GRID],
        "mosec": [sides.mosec(SILERO, *one) for one in (*GRID, *MOSEC_WAITS)],
        "FastAPI": [sides.fastapi(SILERO, processes) for processes in WORKERS],
        **{
            f"LitServe, {form}": [sides.litserve(form, SILERO, *one) for one in LITSERVE_GRID]
            for form in ("base64", "raw")
        },
        **{
            f"MLServer, {form}": [sides.mlserver(form, SILERO, *one) for one in MLSERVER_GRID]
            for form in ("V2 JSON", "V2 base64")
        },
    }


def show(chosen: dict[str, Chosen], found: dict[str, list[Run]]) -> None:
    title = f"{SILERO}: requests/s, each side with its best settings and connections"
    made = table(
        title, "server", "workers x batch, wait", "conns", "median/s", "min-max", "dlbench is"
    )
    for label, runs in found.items():
        rates = [run.rate for run in runs]
        times = "" if label == "dlbench" else spread(ratios(found["dlbench"], runs))
        settings, connections = chosen[label].side.settings, str(chosen[label].connections)
        span = f"{min(rates) / 1000:.1f}-{max(rates) / 1000:.1f}k"
        made.add_row(label, settings, connections, f"{median(rates):,.0f}", span, times)
    console.print(made)
    note("dlbench is: times that row, round by round; median (min-max)")
    for label, runs in found.items():
        if least := AIMS.get(label.partition(",")[0]):
            aim_over(f"{SILERO}, times {label}", ratios(found["dlbench"], runs), least)
