"""What a check of the machine found: a verdict, what was seen, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Iterable

# good: nothing to do. note: figures hold, but one should know. bad: it spoils a measurement, or
# something that was meant to work does not. unknown: the system does not say.
Verdict = Literal["good", "note", "bad", "unknown"]
# The worst first.
SEVERITY: tuple[Verdict, ...] = ("bad", "note", "unknown", "good")


class Assessment(NamedTuple):
    """A verdict on what was `seen` (one line), and one line of `advice` with the command, if any."""

    verdict: Verdict
    seen: str
    advice: str = ""


class Finding(BaseModel):
    """A judgement under its name in the report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str
    name: str
    verdict: Verdict
    seen: str
    advice: str


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The most severe of all; "good" where there are none."""
    return min(verdicts, key=SEVERITY.index, default="good")


def at_least(value: float, good: float, fair: float) -> Verdict:
    """The verdict on a figure that should be high."""
    return "good" if value >= good else "note" if value >= fair else "bad"


def at_most(value: float, good: float, fair: float) -> Verdict:
    """The verdict on a figure that should be low."""
    return at_least(-value, -good, -fair)


def judged(verdict: Verdict, seen: str, advice: str) -> Assessment:
    """A judgement whose advice is given only if there is something to do."""
    return Assessment(verdict, seen, advice if verdict in ("note", "bad") else "")
