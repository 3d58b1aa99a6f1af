"""A judged comparison in words: rows for any table, Markdown for a pull request, JSON. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dlbench.results.comparison import ERROR_RATE
from dlbench.results.regression import percent
from dlbench.tuner.point import ERROR_RATE_LIMIT
from dlbench.tuner.report import digits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dlbench.loadgen.statistics import Interval
    from dlbench.results.comparison import Change
    from dlbench.results.regression import Judgement, Outcome

THOUSANDFOLD = 1000
# For those who only look at the first word.
SAID: dict[Outcome, str] = {
    "regression": "REGRESSION",
    "no regression": "No regression",
    "cannot tell": "Cannot tell",
}


class Row(NamedTuple):
    """A change as text; of an error rate `change` is the difference, of all else the ratio."""

    subject: str
    figure: str
    first: str
    second: str
    change: str
    interval: str
    verdict: str


def conclusion(judgement: Judgement) -> str:
    """The outcome and why, in one line."""
    return f"{SAID[judgement.outcome]}: {judgement.reason}"


def how_to_read(judgement: Judgement) -> str:
    """What stands below every table."""
    return (
        "The 95 % intervals hold for all figures at once. What is worse, and lies wholly beyond "
        f"{percent(judgement.tolerance)}, is a regression (error rates: beyond "
        f"{percent(ERROR_RATE_LIMIT)} of the requests)."
    )


def rows(judgement: Judgement) -> list[Row]:
    """One for each change."""
    return [_row(change, verdict) for change, verdict in judgement.judged]


def markdown(judgement: Judgement, title: str) -> str:
    """A section for a pull request: what came of it first, then what to know, then the figures."""
    return "\n\n".join(
        [
            f"### {_escaped(title)}",
            f"**{SAID[judgement.outcome]}**: {_escaped(judgement.reason)}",
            *_bullets(judgement.compared.notes),
            "\n".join(_table(judgement)),
            f"{how_to_read(judgement)}\n",
        ]
    )


def document(judgement: Judgement) -> dict[str, Any]:
    """All of it under plain names."""
    return {
        "outcome": judgement.outcome,
        "reason": judgement.reason,
        "tolerance": judgement.tolerance,
        "notes": list(judgement.compared.notes),
        "changes": [_entry(change, verdict) for change, verdict in judgement.judged],
    }


def _entry(change: Change, verdict: str) -> dict[str, Any]:
    """`low` and `high` enclose the ratio, of an error rate the difference."""
    low, high = change.interval
    return {
        "subject": change.subject,
        "figure": change.figure,
        "first": change.first,
        "second": change.second,
        "ratio": change.ratio,
        "low": low,
        "high": high,
        "verdict": verdict,
    }


def _row(change: Change, verdict: str) -> Row:
    value, by = (_share, _difference) if change.figure == ERROR_RATE else (digits, _ratio)
    moved = change.second - change.first if change.figure == ERROR_RATE else change.ratio
    return Row(
        change.subject,
        change.figure,
        value(change.first),
        value(change.second),
        "" if moved is None else by(moved),
        _interval(change.interval, by),
        verdict,
    )


def _interval(ends: Interval, by: Callable[[float], str]) -> str:
    low, high = ends
    return "undetermined" if low is None or high is None else f"{by(low)} to {by(high)}"


def _ratio(value: float) -> str:
    """Nothing is learnt from how far beyond a thousandfold an interval goes."""
    if value > THOUSANDFOLD:
        return f">{THOUSANDFOLD:,}"
    return digits(value) if value > 1 / THOUSANDFOLD else f"<{1 / THOUSANDFOLD}"


def _share(rate: float) -> str:
    return f"{rate:.2%}"


def _difference(rate: float) -> str:
    return f"{rate:+.2%}"


def _bullets(notes: tuple[str, ...]) -> list[str]:
    return ["\n".join(f"- {_escaped(note)}" for note in notes)] if notes else []


def _table(judgement: Judgement) -> Iterator[str]:
    first, second = judgement.compared.sides
    yield _line("", first, second, f"{second} / {first}", "95 %", "")
    yield _line("---", *["---:"] * 4, "---")
    for subject, figure, *cells in rows(judgement):
        yield _line(_escaped(f"{subject} {figure}".strip()), *cells)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """As Markdown shows it: no tags, no tables, no emphasis by accident, in one line."""
    for mark in "\\`*_|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
