"""Is a change a regression, or can the data not tell? Pure.

A change is judged by its whole interval: it is a regression if all of it lies beyond the tolerance,
none if none of it does, and otherwise nobody knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dlbench.results.comparison import ERROR_RATE
from dlbench.tuner.point import ERROR_RATE_LIMIT
from dlbench.tuner.report import digits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.results.comparison import Change, Compared

Verdict = Literal["regression", "traded", "better", "no regression", "cannot tell"]
Outcome = Literal["regression", "no regression", "cannot tell"]

TOLERANCE = 0.05
# More throughput at a longer p99 is another place on the front, not a worse one.
TRADED = frozenset({"throughput_rps", "p99_ms"})


@dataclass(frozen=True)
class Judgement:
    """What came of a comparison: a verdict on each change, and one on the whole with its reason.

    A regression of any figure is one of the whole; that there is none takes those that decide.
    """

    compared: Compared
    tolerance: float
    verdicts: tuple[Verdict, ...]
    outcome: Outcome
    reason: str

    @property
    def judged(self) -> list[tuple[Change, Verdict]]:
        """Every change with its verdict."""
        return list(zip(self.compared.changes, self.verdicts, strict=True))


def judge(compared: Compared, tolerance: float = TOLERANCE) -> Judgement:
    """The tolerance is a share, as 0.05; of error rates it is a request in a thousand."""
    if compared.senseless:
        nobody_knows: list[Verdict] = ["cannot tell" for _ in compared.changes]
        return Judgement(
            compared, tolerance, tuple(nobody_knows), "cannot tell", compared.senseless
        )
    verdicts = _traded(compared.changes, [verdict(c, tolerance) for c in compared.changes])
    outcome, reason = _whole(compared, verdicts, tolerance)
    return Judgement(compared, tolerance, verdicts, outcome, reason)


def verdict(change: Change, tolerance: float = TOLERANCE) -> Verdict:
    """On one change by itself."""
    low, high = change.loss
    limit = ERROR_RATE_LIMIT if change.figure == ERROR_RATE else tolerance
    if low is None or high is None:
        return "cannot tell"
    if low > limit:
        return "regression"
    if high < 0:
        return "better"
    return "no regression" if high <= limit else "cannot tell"


def _whole(
    compared: Compared, verdicts: Sequence[Verdict], tolerance: float
) -> tuple[Outcome, str]:
    found = list(zip(compared.changes, verdicts, strict=True))
    worse = [*compared.broken, *(_by_how_much(c) for c, v in found if v == "regression")]
    if worse:
        return "regression", "; ".join(worse)
    decisive = [(_name(c), v) for c, v in found if c.decides]
    unsure = ", ".join(name for name, v in decisive if v == "cannot tell")
    if unsure:
        remedy = f"; {compared.remedy} would narrow the intervals" if compared.remedy else ""
        said = f"{unsure} may be worse by more than {percent(tolerance)}, or not{remedy}"
        return "cannot tell", said
    if not decisive:
        return "cannot tell", "nothing that decides was measured on both sides"
    sure = ", ".join(name for name, _ in decisive)
    return "no regression", f"{sure}: none is worse by more than {percent(tolerance)}"


def _name(change: Change) -> str:
    return f"{change.subject} {change.figure}".strip()


def _by_how_much(change: Change) -> str:
    low, high = change.interval
    assert low is not None
    assert high is not None
    if change.figure == ERROR_RATE:
        return f"{_name(change)} {change.first:.2%} to {change.second:.2%}"
    return f"{_name(change)} {digits(change.ratio or 0.0)} times [{digits(low)}-{digits(high)}]"


def percent(share: float) -> str:
    """A share as people write it."""
    return f"{share * 100:.3g}%"


def _traded(changes: Sequence[Change], verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """A loss in one of throughput and p99 that the same subject's other surely makes up for."""
    found = list(zip(changes, verdicts, strict=True))
    gained = {c.subject for c, v in found if v == "better" and c.figure in TRADED}
    return tuple(
        "traded" if v == "regression" and c.figure in TRADED and c.subject in gained else v
        for c, v in found
    )
