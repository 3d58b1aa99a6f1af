"""Results as tables for people, fit for 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from dlbench.proxy.config import ServingConfig, search_values
from dlbench.tuner.report import BASELINES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from dlbench.loadgen.measurement import Measurement
    from dlbench.tuner.point import Point
    from dlbench.tuner.verify import Verified

VERDICT_STYLES = {
    "ok": "green",
    "unsteady": "yellow",
    "saturated": "magenta",
    "invalid": "bold red",
}


def measurement_table(measured: Measurement) -> RenderableType:
    """The result of `dlbench load`."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(justify="left", style="bold")
    table.add_column(justify="left")
    for name, value in _measurement_rows(measured):
        table.add_row(name, value)
    verdict = Text(measured.verdict, style=VERDICT_STYLES[measured.verdict])
    if measured.reason:
        verdict.append(f": {measured.reason}", style="default")
    return Group(verdict, table)


def _measurement_rows(m: Measurement) -> list[tuple[str, str]]:
    since = "from the scheduled send time" if m.latency_from == "scheduled" else "from the send"
    rows = [
        ("offered", "" if m.offered_rps is None else f"{m.offered_rps:,.1f}/s"),
        (
            "throughput",
            f"{m.throughput_rps:,.1f}/s"
            + _between(m.throughput_low_rps, m.throughput_high_rps, ",.1f"),
        ),
        ("latency", since),
        *((name, _ms(getattr(m, f"{name}_ms"))) for name in ("p50", "p90", "p95")),
        ("p99", _ms(m.p99_ms) + _between(m.p99_low_ms, m.p99_high_ms, ".3g")),
        *((name, _ms(getattr(m, f"{name}_ms"))) for name in ("p999", "mean")),
        ("requests", f"{m.requests:,} in {m.duration_s:.1f} s"),
        ("errors", f"{m.error_rate:.2%}" + _kinds(m.errors)),
        ("lateness p99", _ms(m.lateness_p99_ms)),
        ("client CPU", f"{m.client_cpu:.0%} of a core"),
        ("network", f"{m.net_mbps:,.1f} Mbit/s"),
    ]
    return [(name, value) for name, value in rows if value]


def report(result: Verified) -> RenderableType:
    """The verified front and, below a line, what the baselines did in the same rounds."""
    baselines = [b for name in BASELINES if (b := result.baseline(name)) and not b.on_front]
    shown = [*result.front, *baselines]
    varied = [knob for knob in search_values() if len({getattr(p.config, knob) for p in shown}) > 1]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("point")
    table.add_column("throughput\nper second", justify="right")
    table.add_column("p99\nms", justify="right")
    table.add_column("95 %\ninterval", justify="right")
    for knob in varied:
        table.add_column(_header(knob), justify="right")
    for point in result.front:
        _add(table, point, varied, "bold green" if point.recommended else "")
    if baselines:
        table.add_row()
    for point in baselines:
        _add(table, point, varied, "dim")
    return Group(table, Text(_same_for_all(shown, varied), style="dim"))


def _add(table: Table, point: Point, varied: Sequence[str], style: str) -> None:
    m = point.measurement
    if m is None:
        return
    mark = " *" if point.recommended else ""
    table.add_row(
        point.name + mark,
        f"{m.throughput_rps:,.0f}",
        f"{m.p99_ms:.3g}",
        _between(m.p99_low_ms, m.p99_high_ms, ".3g").strip() or "undetermined",
        *(_value(getattr(point.config, knob)) for knob in varied),
        style=style,
    )


def _header(knob: str) -> str:
    """A knob's name broken at its underscores into at most three short lines."""
    return knob.replace("_", "_\n", 2)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _same_for_all(points: Sequence[Point], varied: Sequence[str]) -> str:
    if not points:
        return ""
    config = points[0].config
    searched = search_values()
    said = [
        f"{name} {_value(getattr(config, name))}"
        for name, field in ServingConfig.model_fields.items()
        if name not in varied and (name in searched or getattr(config, name) != field.default)
    ]
    return f"the same for all: {', '.join(said)}; every other knob at its default"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} ms"


def _between(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f"  [{low:{form}}, {high:{form}}]"


def _kinds(errors: dict[str, int]) -> str:
    return "".join(f", {count} {kind}" for kind, count in sorted(errors.items()))
