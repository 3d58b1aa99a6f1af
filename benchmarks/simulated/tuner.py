"""Whole studies on simulated machines: is the answer right, and is it the best there is?

    .venv/bin/python -m benchmarks.simulated.tuner [--quick] [--json FILE]

The real plan, proposers, estimates and decisions, with the machine replaced: five landscapes of some
6,000 configurations (`landscapes.py`) with the noise that was measured here, and bursts of disturbance.
The bound is four times the default's p99 with little to do; every other study has no bound and answers
for a ladder of them. 30 s of the budget go to start and calibration. Twins are off by 10 to 20 % in
every parameter (`right`), or believe in another machine (`wrong`).

`error` is |R(B) as reported / the truth - 1|; `holds` the share of 95 % intervals with the truth in
them; `best` the truth of what is recommended over the best of all configurations; `harm` the share of
studies whose recommendation takes less than 0.98 of what the default does.
"""

from __future__ import annotations

import os

# One thread each: the matrices are small, and two processes share the machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness.report import Report, console, note, table
from benchmarks.simulated.landscapes import MACHINES, Landscape, right_twin, wrong_twin
from benchmarks.simulated.simulated_study import (
    DRIVABLE_RPS,
    SATURATED,
    SimulatedBench,
    SimulatedStudy,
)
from dlbench.tuner.plan import Plan, of_search
from dlbench.tuner.study_config import StudyConfig
from dlbench.tuner.verify.verification import verified

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BEFORE_S = 30.0
SEEDS, QUICK_SEEDS = 10, 1
BOUND = 4.0
LITTLE = 0.3
GRID = np.linspace(0.05, SATURATED, 40)
PROCESSES = 2


@dataclass(frozen=True)
class Case:
    """One study to be made."""

    landscape: str
    twin: str
    budget_s: float
    bounded: bool
    seed: int


@dataclass(frozen=True)
class Found:
    """What came of it; rates over the truth, and the truth over the best and the default's."""

    case: Case
    error: float
    holds: bool
    width: float
    of_best: float
    of_default: float
    ratio_holds: bool
    configurations: int
    rounds: int


@cache
def landscape(name: str) -> Landscape:
    return Landscape(name, MACHINES[name])


def true_rates(of: Landscape, bound_ms: float) -> NDArray[np.float64]:
    """R(B) of every configuration, to a fortieth of its capacity."""
    found = np.zeros(len(of.capacity_rps))
    for share in GRID:
        within = of._server.p99_ms(share) * of._p99_quirk <= bound_ms
        found = np.where(within, share * of.capacity_rps, found)
    return found


def study(case: Case) -> Found | None:
    """A whole study, and how right it was."""
    of, rng = landscape(case.landscape), np.random.default_rng([case.seed, 7])
    believed = (
        right_twin(of.machine, rng) if case.twin == "right" else wrong_twin(case.landscape, rng)
    )
    default = of.space.default
    bound_ms = round(BOUND * of.p99_ms(of.rows[default], LITTLE), 2) if case.bounded else None
    config = StudyConfig(budget_s=case.budget_s, slo_p99_ms=bound_ms, seed=case.seed)
    plan = Plan(of.space, config, DRIVABLE_RPS, of.predicted(believed), before_s=BEFORE_S)
    made = SimulatedStudy(plan, SimulatedBench(of, case.seed, bursts=True))
    made.run()
    points = made.points
    bounds_ms = plan.bounds_ms(of_search(points))
    result = verified(made.repeats(), config, bounds_ms, plan.predictions, points)
    row = result.answer
    if row is None:
        return None
    truth = made.bench.true_rate(row.config, row.p99_ms)
    defaults = made.bench.true_rate(default, row.p99_ms)
    ratio = truth / defaults
    return Found(
        case,
        abs(row.rate_rps / truth - 1),
        row.low_rps <= truth <= row.high_rps,
        (row.high_rps - row.low_rps) / 2 / row.rate_rps,
        truth / max(truth, float(true_rates(of, row.p99_ms).max())),
        ratio,
        row.ratio is None or (row.ratio_low or 0) <= ratio <= (row.ratio_high or 0),
        len({p.configuration for p in points if p.phase == "screen"}),
        len({p.repeat for p in points if p.phase == "verify"}),
    )


def main() -> None:
    report = Report(__doc__ or "")
    seeds = range(QUICK_SEEDS if report.quick else SEEDS)
    cases = [
        Case(name, twin, budget_s, seed % 2 == 0, seed)
        for twin, budget_s in (("right", 300.0), ("right", 600.0), ("wrong", 300.0))
        for name, seed in product(MACHINES, seeds)
    ]
    with ProcessPoolExecutor(PROCESSES) as pool:
        found = []
        for number, one in enumerate(pool.map(study, cases)):
            found += [one] if one is not None else []
            note(f"study {number + 1} of {len(cases)}")
    show(found)
    report.keep(found)


def show(found: Sequence[Found]) -> None:
    heads = ("studies", "error", "90 %", "holds", "width", "ratio holds", "best", ">= 0.95", "harm", "tried", "rounds")  # fmt: skip
    shown = table("whole studies", "twin, budget", *heads)
    for twin, budget_s in dict.fromkeys((f.case.twin, f.case.budget_s) for f in found):
        own = [f for f in found if (f.case.twin, f.case.budget_s) == (twin, budget_s)]
        errors, best = [f.error for f in own], [f.of_best for f in own]
        shown.add_row(
            f"{twin}, {budget_s:.0f} s",
            str(len(own)),
            f"{np.median(errors):.1%}",
            f"{np.quantile(errors, 0.9):.1%}",
            f"{np.mean([f.holds for f in own]):.0%}",
            f"{np.median([f.width for f in own]):.1%}",
            f"{np.mean([f.ratio_holds for f in own]):.0%}",
            f"{np.median(best):.3f}",
            f"{np.mean([b >= 0.95 for b in best]):.0%}",
            f"{np.mean([f.of_default < 0.98 for f in own]):.0%}",
            f"{np.median([f.configurations for f in own]):.0f}",
            f"{np.median([f.rounds for f in own]):.0f}",
        )
    console.print(shown)


if __name__ == "__main__":
    main()
