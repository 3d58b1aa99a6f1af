"""What a study could not decide because its budget was over, and what budget would decide it. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dlbench.tuner import budget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.tuner.bounds.decision import BoundRow
    from dlbench.tuner.plan import Plan
    from dlbench.tuner.point import Point

# Closer than this two configurations are the same for anybody, and no budget tells them apart.
SAME = 0.02
MARGIN = 1.25
# More than this is no advice.
MOST_S = 3600.0


def unknown(plan: Plan, points: Sequence[Point], answer: BoundRow | None) -> str:
    """One sentence on what is not decided, with the budget that would decide it; "" if all is."""
    if answer is None:
        return ""
    rounds = len({p.repeat for p in points if p.phase == "verify"})
    if not rounds:
        return f"the budget left no time to compare anything with the default{_advice(plan, _least_s(plan, points))}"
    if answer.decided or answer.is_default or answer.ratio is None:
        return ""
    assert answer.ratio_low is not None
    gain = math.log(max(answer.ratio, 1e-9))
    if abs(gain) < SAME:
        return ""
    half = math.log(answer.ratio / answer.ratio_low)
    needed = rounds * (half / gain) ** 2
    enough_s = _before_s(plan, points) + needed * _round_s(points, rounds)
    return f"whether it takes more than the default is not decided{_advice(plan, enough_s)}"


def _advice(plan: Plan, enough_s: float) -> str:
    """What the comparison needs is a share of the whole budget."""
    told_s = MARGIN * enough_s
    if told_s > MOST_S or told_s <= plan.study.budget_s:
        return ""
    return f"; --budget {math.ceil(told_s / 60)}m would decide it"


def _before_s(plan: Plan, points: Sequence[Point]) -> float:
    """What the study takes until the comparison begins, with the larger budget's larger share."""
    search = [p for p in points if p.phase != "verify"]
    return plan.spent_s(search) / (1 - budget.COMPARE_SHARE)


def _round_s(points: Sequence[Point], rounds: int) -> float:
    return sum(p.cost_s for p in points if p.phase == "verify") / rounds


def _least_s(plan: Plan, points: Sequence[Point]) -> float:
    return plan.spent_s(points) + 2 * plan.reserve_s(points)
