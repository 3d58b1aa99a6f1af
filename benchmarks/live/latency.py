"""silero_vad_half at a moderate rate that its sides carry: latency from the scheduled time."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import sides
from benchmarks.harness.process import BenchmarkError
from benchmarks.harness.report import aim, console, note, rounds, spread, table

if TYPE_CHECKING:
    from benchmarks.harness.sides import Side
    from benchmarks.harness.turns import Plan

SILERO = "silero_vad_half"
RATE = 1500
SHARE = 0.7
WORKERS = (1, 2, 3)
SCRIPT = Path(__file__).with_name("steady.py")
FIGURES = ("p50_ms", "p99_ms", "lateness_p99_ms")
Steady = dict[str, float]


def measure(plan: Plan) -> dict[str, Any]:
    """Each side with the settings of its lowest p99, in turns; Poisson arrivals."""
    chosen = {label: calmest(grid, plan) for label, grid in contenders().items()}
    found: dict[str, list[Steady]] = {label: [] for label in chosen}
    for order in rounds(chosen, plan.repeats):
        for label in order:
            found[label].append(steady(chosen[label], plan.warm_s, plan.steady_s))
    show(chosen, found)
    return {"settings": {label: side.name for label, side in chosen.items()}, "turns": found}


def contenders() -> dict[str, list[Side]]:
    """LitServe and MLServer are not here: this rate is about all that they can take."""
    return {
        "dlbench": [sides.dlbench(SILERO, *one) for one in product(WORKERS, (8,))],
        "mosec, batching": [sides.mosec(SILERO, *one) for one in product(WORKERS, (8,))],
        "mosec, batch 1": [sides.mosec(SILERO, *one) for one in product(WORKERS, (1,))],
        "FastAPI": [sides.fastapi(SILERO, processes) for processes in WORKERS],
    }


def calmest(candidates: list[Side], plan: Plan) -> Side:
    """Whose p99 is lowest in a short run."""
    tried = candidates[: plan.candidates]
    found = {side: steady(side, plan.warm_s, plan.probe_s)["p99_ms"] for side in tried}
    best = min(found, key=lambda side: found[side])
    note(f"{best.name}: best of {len(found)}")
    return best


def steady(side: Side, warm_s: float, seconds: float) -> Steady:
    """One run of `steady.py` against a fresh server."""
    with sides.serving(side) as port, tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(side.requests))
        file.flush()
        options = [port, file.name, len(side.requests[0]), RATE, warm_s, seconds]
        text = subprocess.run(
            [sys.executable, SCRIPT, *map(str, options)],
            capture_output=True,
            text=True,
            check=True,
            timeout=warm_s + seconds + 60,
        ).stdout
    found = json.loads(text)
    if found["errors"]:
        raise BenchmarkError(f"{side.name} failed {found['errors']} requests at {RATE}/s")
    return found


def show(chosen: dict[str, Side], found: dict[str, list[Steady]]) -> None:
    made = table(
        f"{SILERO}: latency at {RATE:,}/s, open loop, from the scheduled time",
        "server",
        "workers x batch, wait",
        "p50 ms",
        "p99 ms",
        "client's lateness p99 ms",
    )
    for label, runs in found.items():
        cells = (spread([run[name] for run in runs]) for name in FIGURES)
        made.add_row(label, chosen[label].settings, *cells)
    console.print(made)
    for label in ("mosec, batching", "mosec, batch 1"):
        pairs = zip(found["dlbench"], found[label], strict=True)
        shares = [ours["p99_ms"] / theirs["p99_ms"] for ours, theirs in pairs]
        aim(f"p99 at {RATE:,}/s, as a share of {label}'s", shares, SHARE)
