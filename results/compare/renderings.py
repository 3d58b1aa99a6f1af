"""A judged comparison in words: rows for any table, Markdown for a pull request, JSON. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dlbench.results.compare.regression import percent
from dlbench.results.compare.wording import by_how_much, interval, values
from dlbench.tuner.point import ERROR_RATE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlbench.results.compare.comparison import Change
    from dlbench.results.compare.regression import Judgement, Outcome

# For those who only look at the first word.
SAID: dict[Outcome, str] = {
    "regression": "REGRESSION",
    "no regression": "No regression",
    "cannot tell": "Cannot tell",
}


class ChangeRow(NamedTuple):
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
        "The 95 % intervals hold for all figures at once. A figure whose whole interval is worse "
        "by more than "
        f"{percent(judgement.tolerance)}, is a regression (error rates: by more than "
        f"{percent(ERROR_RATE_LIMIT)} of the requests)."
    )


def rows(judgement: Judgement) -> list[ChangeRow]:
    """One for each change."""
    return [_row(change, verdict) for change, verdict in judgement.judged]


def markdown(judgement: Judgement, title: str) -> str:
    """A section for a pull request: the verdict, the notes, the figures."""
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
    """The whole comparison as plain names and values."""
    return {
        "outcome": judgement.outcome,
        "reason": judgement.reason,
        "tolerance": judgement.tolerance,
        "notes": list(judgement.compared.notes),
        "changes": [_entry(change, verdict) for change, verdict in judgement.judged],
    }


def _entry(change: Change, verdict: str) -> dict[str, Any]:
    """`low` and `high` enclose the ratio, of an error rate the difference.

    Of a latency that is infinite, as it falls among failed requests, `longest_ms` is what it is
    longer than, on the first side and on the second.
    """
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
        "longest_ms": change.longest_ms,
    }


def _row(change: Change, verdict: str) -> ChangeRow:
    first, second = values(change)
    return ChangeRow(
        change.subject,
        change.figure,
        first,
        second,
        by_how_much(change),
        interval(change),
        verdict,
    )


def _bullets(notes: tuple[str, ...]) -> list[str]:
    return ["\n".join(f"- {_escaped(note)}" for note in notes)] if notes else []


def _table(judgement: Judgement) -> Iterator[str]:
    first, second = judgement.compared.sides
    yield _line("", first, second, f"{second} is", "95 %", "")
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
