"""The points of a study as the rows of its report's table. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlbench.proxy.knob import KNOBS
from dlbench.results.findings import changed, default_config, shown
from dlbench.results.records import recommended_toml, rows, study_points
from dlbench.tuner.point import ERROR_RATE_LIMIT
from dlbench.tuner.verify.disturbed import mattered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dlbench.proxy.settings import ServerSettings
    from dlbench.tuner.point import Point
    from dlbench.tuner.verify.verification import Verified

    Record = dict[str, Any]

# Where a mean latency went, in the order of a request's way.
PARTS = (
    *("lateness_mean_ms", "connect_mean_ms", "server_queue_ms", "server_compute_ms"),
    "network_ms",
)


def page_rows(points: Sequence[Point], result: Verified) -> list[Record]:
    """Every measured point under the CSV's names; the repeats of a verified one as what they make."""
    shown_points = study_points(points, result)
    return list(map(_record, shown_points, rows(shown_points, result.estimates)))


def _record(point: Point, figures: Record) -> Record:
    """A row without its knobs, which stand with its configuration."""
    kept = {name: v for name, v in figures.items() if name not in KNOBS}
    measured = point.measurement
    parts = {name: getattr(measured, name) for name in PARTS} if measured else {}
    return kept | {
        **{name: value for name, value in parts.items() if value is not None},
        "configuration": point.configuration,
        "share": point.share,
        "on_front": point.on_front,
        "recommended": point.recommended,
        "counts": point.outcome is not None,
        "disturbances": list(point.disturbances),
    }


def configurations(
    points: Iterable[Point], result: Verified, settings: ServerSettings
) -> dict[str, Record]:
    """Name -> knobs, what differs from the default, and the TOML that `dlbench serve` takes."""
    base = default_config(result)
    first: dict[str, Point] = {}
    for point in points:
        first.setdefault(point.configuration, point)
    return {
        name: {
            "knobs": {knob: _plain(value) for knob, value in point.config},
            "changes": changed(point.config, base) or ["the default configuration"],
            "toml": recommended_toml(point.config, settings, {}).lstrip(),
        }
        for name, point in first.items()
    }


def uncounted(points: Iterable[Point]) -> list[Record]:
    """Points that are not on the front or need care, and why, in measuring order."""
    points = list(points)
    moved = {id(point) for point in mattered(points)}
    return [
        {
            "point": point.name,
            "phase": point.phase,
            "repeat": point.repeat,
            "verdict": point.measurement.verdict if point.measurement else "failed",
            "reason": reason,
            "disturbances": list(point.disturbances),
            "log_tail": point.log_tail,
        }
        for point in points
        if (reason := _reason(point)) or id(point) in moved
    ]


def _reason(point: Point) -> str:
    measured = point.measurement
    if measured is None:
        return point.failure
    if measured.verdict != "ok":
        return measured.reason
    lost = measured.error_rate > ERROR_RATE_LIMIT
    return f"{measured.error_rate:.2%} of the requests were lost" if lost else ""


def _plain(value: Any) -> Any:  # noqa: ANN401 - a knob's value
    """Numbers stay numbers, so that they sort; what is a list or a switch is written out."""
    return shown(value) if isinstance(value, bool | tuple) else value
