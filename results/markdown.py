"""A study's front as a Markdown table with its findings, for a pull request or a wiki."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from dlbench.loadgen.quantity import digits, interval, latency
from dlbench.results.findings import BASELINES, bound, changes, times
from dlbench.results.missing import NothingToShow
from dlbench.tuner.front import front_indices
from dlbench.tuner.plan import of_search
from dlbench.tuner.point import with_outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dlbench.tuner.point import Point
    from dlbench.tuner.verify.verification import Verified

HEAD = (
    ("point", "---"),
    ("throughput, 1/s", "---:"),
    ("p99, ms", "---:"),
    ("95 % interval", "---"),
    ("CPU, cores", "---:"),
    ("memory, MB", "---:"),
    ("cache hits", "---:"),
    ("knobs, where they differ from the default", "---"),
)


def markdown(
    points: Sequence[Point],
    result: Verified,
    findings: Mapping[str, str],
    about: Mapping[str, Any],
) -> str:
    """Heading, table and findings; `about` is the study's identity.

    Raises:
        NothingToShow: no point held yet.
    """
    shown = _shown(points, result)
    if not shown:
        raise NothingToShow("the study has no operating point that held: there is no front")
    model = PurePath(str(about["model"])).name
    title = f"### Front of {_text(model)} on {about['device']}, {_text(str(about['machine']))}"
    said = [f"- **{heading}**: {_text(text)}" for heading, text in findings.items()]
    bounds = [*_bounds(result), ""] if result.bounds else []
    notes = said or ["Measured once, not verified: the study is under way."]
    return "\n".join([title, "", *bounds, *_table(shown, result), "", *notes]) + "\n"


def _bounds(result: Verified) -> Iterator[str]:
    """The best configuration within each bound."""
    yield "| p99 within | best configuration | requests/s, 95 % | the default | times the default |"
    yield "| ---: | --- | ---: | ---: | ---: |"
    for row in result.bounds:
        ends = interval(row.low_rps, row.high_rps, joint="-")
        rate, default = f"{digits(row.rate_rps)} {ends}", _number(row.default_rps)
        yield _line((bound(row), _text(changes(row.config, result)), rate, default, times(row)))


def _shown(points: Sequence[Point], result: Verified) -> list[Point]:
    """The front and then the baselines that are not on it; what was screened, if nothing else is."""
    if result.points:
        others = [b for name in BASELINES if (b := result.baseline(name)) and not b.on_front]
        return [*result.front, *others]
    held = with_outcome(of_search(list(points)))
    return [held[i][0] for i in front_indices([outcome for _, outcome in held])]


def _table(points: Sequence[Point], result: Verified) -> Iterator[str]:
    names, rules = zip(*HEAD, strict=True)
    yield _line(names)
    yield _line(rules)
    for point in points:
        yield _line(_cells(point, result))


def _cells(point: Point, result: Verified) -> Iterator[str]:
    """A row; what was not measured is empty."""
    m, used = point.measured, point.resources
    yield f"**{point.name}** (recommended)" if point.recommended else point.name
    yield f"{m.throughput_rps:,.0f}"
    yield "" if m.p99_ms is None else _text(latency(m.p99_ms, m.longest_ms))
    yield _text(interval(m.p99_low_ms, m.p99_high_ms, m.longest_ms, joint=" to ").strip("[]"))
    yield _number(used.server_cpu)
    yield _number(used.server_rss_mb)
    yield "" if used.cache_hit_ratio is None else f"{used.cache_hit_ratio:.0%}"
    verdict = "" if point.outcome else f" ({m.verdict})"
    yield _text(changes(point.config, result) + verdict)


def _number(value: float | None) -> str:
    return "" if value is None else digits(value)


def _line(cells: Sequence[str] | Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(words: str) -> str:
    """Escape text as Markdown, since a model may have any name."""
    return "".join(f"\\{c}" if c in "\\`*<>|#" else " " if c in "\r\n" else c for c in words)
