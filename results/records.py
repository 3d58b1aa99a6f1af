"""What leaves a study: its points as rows, and a configuration as TOML."""

from __future__ import annotations

import csv
from typing import IO, TYPE_CHECKING, Any

import tomli_w

from dlbench.proxy.knob import KNOBS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.settings import ServerSettings
    from dlbench.tuner.bounds.decision import BoundRow
    from dlbench.tuner.point import Point
    from dlbench.tuner.search.correction import Estimate
    from dlbench.tuner.verify.verification import Verified

MEASURED = (
    "offered_rps", "throughput_rps", "throughput_low_rps", "throughput_high_rps",
    "throughput_est_rps", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_low_ms", "p99_high_ms",
    "p99_est_ms", "p999_ms", "mean_ms", "error_rate", "requests", "duration_s",
    "lateness_p99_ms", "client_cpu", "server_cpu", "server_rss_mb", "net_mbps", "gpu_util",
    "gpu_mem_mb", "cache_hit_ratio", "mean_batch_size", "started_at",
    "longest_ms",
)  # fmt: skip
HEAD = ("point", "phase", "verdict", "reason", "on_front", "recommended")
COLUMNS = (*HEAD, *KNOBS, *MEASURED)
# Six significant digits: more would pretend to a precision that no measurement here has.
DIGITS = 6


def row(point: Point, estimate: Estimate | None = None) -> dict[str, Any]:
    """A point under the CSV's names; what was not measured or estimated is left out, never 0."""
    measured = point.measurement.model_dump() if point.measurement else {"verdict": "failed"}
    found = {**measured, **point.resources.model_dump(), **point.config.model_dump()}
    found |= {
        "point": point.name,
        "phase": point.phase,
        "reason": found.get("reason") or point.failure or None,
        "on_front": point.on_front,
        "recommended": point.recommended,
    }
    if estimate is not None:
        found |= {"throughput_est_rps": estimate.throughput_rps, "p99_est_ms": estimate.p99_ms}
    return {name: _plain(found[name]) for name in COLUMNS if found.get(name) is not None}


def study_points(points: Sequence[Point], result: Verified) -> list[Point]:
    """Every point that was measured; the repeats of a verified one as the pooled point they make."""
    if not result.points:
        return list(points)
    return [p for p in points if p.phase != "verify"] + list(result.points)


def write_csv(
    points: Iterable[Point], stream: IO[str], estimates: Mapping[str, Estimate] | None = None
) -> None:
    """One row per measured point, in the order of `COLUMNS`.

    `estimates` are those of the verified points, by name.
    """
    writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_cells, rows(points, estimates or {})))


def rows(points: Iterable[Point], estimates: Mapping[str, Estimate]) -> list[dict[str, Any]]:
    """Every point's `row`; `estimates` are those of the verified points, by name."""
    return [row(p, estimates.get(p.name) if p.phase == "verify" else None) for p in points]


def document(
    result: Verified, found: Mapping[str, str], wall_s: float, file: str | None = None
) -> dict[str, Any]:
    """All of a result under the CSV's names, as one JSON document; `file` has the recommendation."""
    learnt = result.insight
    error = learnt.error if learnt else None
    return {
        "recommended": _recommended(result, file),
        "bounds": [{**bound_record(row), "decided": row.decided} for row in result.bounds],
        "doubts": [text[2:] for text in found.get("doubts", "").splitlines()],
        "wall_s": _plain(wall_s),
        "points": rows(result.points, result.estimates),
        "slo": result.slo,
        "findings": dict(found),
        "estimates": {name: known._asdict() for name, known in result.estimates.items()},
        "twin_error": {n: off._asdict() for n, off in error._asdict().items()} if error else None,
        "twin_spread": learnt.spread if learnt else None,
        "twin_wrong": learnt.wrong if learnt else None,
        "importances": learnt.importances._asdict() if learnt else None,
        "drift": result.drift,
    }


def _recommended(result: Verified, file: str | None) -> dict[str, Any] | None:
    """The answer, None where there is none."""
    row = result.answer
    if row is None:
        return None
    about = {"rule": result.rule, "proved": result.proved, "file": file}
    return {**bound_record(row), **about}


def bound_record(row: BoundRow) -> dict[str, Any]:
    """A row of the table of bounds: rates in requests/s, with the knobs of its configuration."""
    figures = (
        "p99_ms", "rate_rps", "low_rps", "high_rps", "default_rps", "default_low_rps",
        "default_high_rps", "ratio", "ratio_low", "ratio_high",
    )  # fmt: skip
    knobs = {name: _plain(value) for name, value in row.config}
    named = {"configuration": row.configuration, "knobs": knobs}
    return {**named, **{name: _plain(getattr(row, name)) for name in figures}}


def recommended_toml(
    config: ServingConfig, settings: ServerSettings, found: Mapping[str, str]
) -> str:
    """The configuration as `dlbench serve --config` takes it, with what was measured as comments.

    Every knob is written, of the settings those that are not as declared.
    """
    given = settings.model_dump(exclude_defaults=True)
    lines = [f"{heading}: {line}" for heading, text in found.items() for line in text.splitlines()]
    comments = "".join(f"# {line}\n" for line in lines)
    return f"{comments}\n{tomli_w.dumps({**given, **config.model_dump()})}"


def _cells(values: Mapping[str, Any]) -> dict[str, Any]:
    return {n: str(v).lower() if isinstance(v, bool) else v for n, v in values.items()}


def _plain(value: Any) -> Any:  # noqa: ANN401 - what a knob or a figure may be
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
