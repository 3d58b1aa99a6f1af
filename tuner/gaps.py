"""What a study could not decide because its budget was over, and what budget would be enough. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dlbench.tuner import budget
from dlbench.tuner.bounds.decision import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.tuner.bounds.decision import BoundRow
    from dlbench.tuner.plan import Plan
    from dlbench.tuner.point import Point

# Starts and capacities were measured once or twice, and on a machine that is not always as quick.
MARGIN = 1.5
# Nobody is advised to wait longer: a model so slow is not tuned by its p99.
MOST_S = 4 * 3600.0


def unknown(plan: Plan, points: Sequence[Point], answer: BoundRow | None) -> str:
    """One sentence on what is not decided, with the budget that decides all that can be; "": all is.

    Who follows it is not told to take still more: from that budget on nothing is advised.
    """
    found = _open_question(points, answer)
    if not found:
        return ""
    enough_s = whole_s(plan, points)
    if enough_s is None:
        return f"{found}; give it a larger --budget"
    if plan.study.budget_s >= enough_s:
        return f"{found}, and a larger --budget would hardly change that"
    advised_s = min(MARGIN * enough_s, MOST_S)
    return f"{found}; --budget {math.ceil(advised_s / 60)}m is enough to compare them"


def whole_s(plan: Plan, points: Sequence[Point]) -> float | None:
    """The budget, in seconds, that a comparison needs here; None: no capacity was measured."""
    if not any(plan.capacities(points).values()):
        return None
    window_s = budget.open_s(plan.known_capacity(points), budget.COMPARE_S)
    return min(MOST_S, budget.whole_s(window_s, plan.switch_s(points), plan.before_s))


def _open_question(points: Sequence[Point], answer: BoundRow | None) -> str:
    """What nobody knows yet."""
    compared = {p.configuration for p in points if p.phase == "verify" and p.measurement}
    if not compared - {DEFAULT}:
        return "the budget left no time to compare anything with the default"
    if answer is None or answer.decided:
        return ""
    what = "anything" if answer.is_default else "it"
    return f"whether {what} takes more than the default is not decided"
