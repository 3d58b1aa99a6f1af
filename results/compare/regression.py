"""Is a change a regression, or can the data not tell? Pure.

A change is judged by its whole interval: it is a regression if all of it lies beyond the tolerance,
none if none of it does, and otherwise nobody knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dlbench.loadgen.quantity import digits
from dlbench.results.compare.comparison import ERROR_RATE
from dlbench.results.compare.wording import by_how_much, interval
from dlbench.tuner.point import ERROR_RATE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dlbench.results.compare.comparison import Change, Compared

Verdict = Literal["regression", "traded", "better", "no regression", "cannot tell"]
Outcome = Literal["regression", "no regression", "cannot tell"]

TOLERANCE = 0.05


@dataclass(frozen=True)
class Judgement:
    """The outcome of a comparison: a verdict on each change, and one on the whole with its reason.

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
    verdicts = _traded(compared, [verdict(c, tolerance) for c in compared.changes], tolerance)
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
    trades = "".join(f"; {by_how_much}" for by_how_much in _trades(compared, found))
    unsure = ", ".join(name for name, v in decisive if v == "cannot tell")
    if unsure:
        remedy = f"; {compared.remedy} would narrow the intervals" if compared.remedy else ""
        said = f"{unsure} may or may not be worse by more than {percent(tolerance)}{trades}{remedy}"
        return "cannot tell", said
    if not decisive:
        return "cannot tell", "no deciding figure was measured on both sides"
    sure = ", ".join(name for name, v in decisive if v != "traded")
    return "no regression", f"{sure}: none is worse by more than {percent(tolerance)}{trades}"


def _trades(compared: Compared, found: Sequence[tuple[Change, Verdict]]) -> Iterator[str]:
    """What was given, and for what."""
    for change, word in found:
        gains = (c for c, v in found if v == "better" and c.subject == change.subject)
        got = [_by_how_much(c) for c in gains if c.figure in compared.traded]
        if word == "traded":
            yield f"{_by_how_much(change)} was traded for {', '.join(got)}"


def _name(change: Change) -> str:
    return f"{change.subject} {change.figure}".strip()


def _by_how_much(change: Change) -> str:
    if change.figure == ERROR_RATE:
        return f"{_name(change)} {change.first:.2%} to {change.second:.2%}"
    return f"{_name(change)} {by_how_much(change)} [{interval(change)}]"


def percent(share: float) -> str:
    """A share as people write it."""
    return f"{digits(share * 100)}%"


def _traded(
    compared: Compared, verdicts: Sequence[Verdict], tolerance: float
) -> tuple[Verdict, ...]:
    """A loss in a figure that may be traded, where the same subject surely gained in another one.

    The gain has to lie beyond the tolerance as a loss does: a little of one does not excuse much of
    the other.
    """
    found, may = list(zip(compared.changes, verdicts, strict=True)), compared.traded
    gained = {c.subject for c, _ in found if c.figure in may and _surely_gained(c, tolerance)}
    return tuple(
        "traded" if v == "regression" and c.figure in may and c.subject in gained else v
        for c, v in found
    )


def _surely_gained(change: Change, tolerance: float) -> bool:
    _, high = change.loss
    return high is not None and high < -tolerance
