"""What a study does not know because its budget was over, and what budget would be enough. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dlbench.tuner import budget
from dlbench.tuner.plan import OUT_OF_BUDGET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dlbench.tuner.plan import Plan
    from dlbench.tuner.point import Point

# A longer budget calibrates for longer.
CALIBRATION_S = 30.0
# Capacities and starts were measured once or twice, and on a machine that is not always as quick.
MARGIN = 1.25
ROUNDS = {1: "once", 2: "twice"}


def unknown(plan: Plan, points: Sequence[Point]) -> str:
    """One sentence on what there was no time for, with the budget that leaves nothing out; "": all.

    Who follows it is not told to take still more: from that budget on nothing is advised.
    """
    found = list(left_out(plan, points))
    if not found:
        return ""
    enough_s = whole_s(plan, points)
    told = enough_s is not None and plan.study.budget_s < enough_s
    advice = f"; a --budget of about {_minutes(MARGIN * (enough_s or 0.0))} leaves nothing out"
    *others, last = found
    listed = f"{', '.join(others)} or {last}" if others else last
    return f"the budget left no time {listed}" + (advice if told else "")


def left_out(plan: Plan, points: Sequence[Point]) -> Iterator[str]:
    """What there was no time for, one phrase each."""
    seen = {p.configuration for p in points}
    if plan.study.proposer == "twin" and plan.predictions is None:
        yield "to predict anything (configurations were proposed without the twin)"
    if missing := [name for name in plan.baselines if name not in seen]:
        yield f"to measure {' and '.join(missing)}"
    yield from _search(plan, points, len(seen - set(plan.baselines)))
    yield from _loads(plan, points)
    yield from _rounds(plan, points)


def whole_s(plan: Plan, points: Sequence[Point]) -> float | None:
    """The budget that leaves nothing out, by what was measured; None: too little was."""
    probes = [p for p in points if p.phase == "probe" and p.configuration in plan.baselines]
    if not any(plan.capacity(p) for p in probes):
        return None
    capacity = plan.known_capacity(points)
    before_s = max(plan.before_s, CALIBRATION_S)
    bounded = bool(plan.study.constraints.objectives)
    default, switch_s = plan.space.default, plan.switch_s(points)
    return budget.whole_s(capacity, default, before_s, switch_s, bounded=bounded)


def _search(plan: Plan, points: Sequence[Point], tried: int) -> Iterator[str]:
    if plan.proposal(points) != OUT_OF_BUDGET or tried >= budget.WORTHWHILE_CONFIGURATIONS:
        return
    yield (
        f"to try more than {tried} configuration{'s' if tried > 1 else ''}"
        if tried
        else "to try any configuration but the baselines"
    )


def _loads(plan: Plan, points: Sequence[Point]) -> Iterator[str]:
    count, requests = len(plan.loads(points)), _requests(points)
    if requests < budget.SCREEN_REQUESTS:
        yield f"to send more than {requests:,} requests at a load (a p99 needs {budget.SCREEN_REQUESTS})"
    elif count < len(budget.LOADS):
        yield f"to measure each configuration at more than {count} load{'s' if count > 1 else ''}"


def _requests(points: Sequence[Point]) -> int:
    """The fewest that were planned for a load of the search."""
    measured = [p.measurement for p in points if p.phase in ("baseline", "screen") and p.share]
    planned = [(m.offered_rps or 0.0) * m.duration_s for m in measured if m is not None]
    return round(min(planned, default=budget.SCREEN_REQUESTS))


def _rounds(plan: Plan, points: Sequence[Point]) -> Iterator[str]:
    chosen = {c.name for c in plan.candidates(points)}
    repeats = [p.repeat for p in points if p.phase == "verify" and p.name in chosen]
    rounds = max(repeats, default=0)
    if not rounds:
        yield "to measure anything again, so nothing can be recommended"
    elif rounds < budget.REPEATS:
        yield f"to measure the candidates again more than {ROUNDS.get(rounds, f'{rounds} times')}"


def _minutes(seconds: float) -> str:
    return f"{math.ceil(seconds / 60)}m"
