"""Results as tables for people, fit for 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from dlbench.loadgen.quantity import digits, interval, latency
from dlbench.proxy.knob import search_values
from dlbench.results.findings import bound, changes, default_config, shown, times
from dlbench.results.plot import ASCII, plot, series

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.console import Console, RenderableType

    from dlbench.loadgen.control.result import LoadResult
    from dlbench.loadgen.measurement import Measurement
    from dlbench.tuner.bounds.decision import BoundRow
    from dlbench.tuner.verify.verification import Verified

WIDEST_PLOT = 100  # characters; wider, its points only stand further apart
VERDICT_STYLES = {
    "ok": "green",
    "unsteady": "yellow",
    "saturated": "magenta",
    "invalid": "bold red",
}


def result_table(result: LoadResult) -> RenderableType:
    """The result of `dlbench load`."""
    verdict = Text(result.verdict, style=VERDICT_STYLES[result.verdict])
    if result.reason:
        verdict.append(f": {result.reason}", style="default")
    parts: list[RenderableType] = [verdict, _rows(_load_rows(result)), Text(), _latencies(result)]
    if result.classes:
        parts += [Text(), _classes(result)]
    return Group(*parts, Text(), _rows(_client_rows(result)), *_examples(result))


def _rows(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in rows:
        if value:
            table.add_row(name, value)
    return table


def _load_rows(m: LoadResult) -> list[tuple[str, str]]:
    throughput = _between(m.throughput_low_rps, m.throughput_high_rps, ",.1f")
    return [
        ("load", m.schedule),
        ("offered", "" if m.offered_rps is None else f"{m.offered_rps:,.1f}/s"),
        ("throughput", f"{m.throughput_rps:,.1f}/s{throughput}"),
        ("requests", f"{m.requests:,} in {m.duration_s:.1f} s"),
        ("errors", f"{m.error_rate:.2%}" + _kinds(m.errors)),
    ]


def _latencies(m: Measurement) -> Table:
    """Each quantile with its interval, and beside it where the mean went."""
    since = "scheduled send" if m.latency_from == "scheduled" else "send"
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title, justify in ((f"ms from the {since}", "left"), ("", "right"), ("95 %", "left")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for name in ("p50", "p90", "p95", "p99", "p999"):
        value = getattr(m, f"{name}_ms")
        ends = (getattr(m, f"{name}_low_ms"), getattr(m, f"{name}_high_ms"))
        if value is not None:
            table.add_row(name, latency(value, m.longest_ms), interval(*ends, m.longest_ms))
    if m.mean_ms is not None:
        answered = " of the answered" if m.error_rate else ""
        table.add_row(f"mean{answered}", digits(m.mean_ms), _parts_of_mean(m))
    return table


def _parts_of_mean(m: Measurement) -> str:
    parts = {
        "sent late": m.lateness_mean_ms,
        "connecting": m.connect_mean_ms,
        "queue": m.server_queue_ms,
        "compute": m.server_compute_ms,
        "network": m.network_ms,
    }
    return ", ".join(
        f"{name} {digits(value, 2)}" for name, value in parts.items() if value is not None
    )


def _classes(m: Measurement) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("class")
    for title in ("requests", "per second", "p50 ms", "p99 ms", "errors", "missed"):
        table.add_column(title, justify="right")
    for name, one in m.classes.items():
        figures = (one.p50_ms, one.p99_ms)
        missed = "" if one.missed_rate is None else f"{one.missed_rate:.2%}"
        table.add_row(
            name,
            f"{one.requests:,}",
            f"{one.throughput_rps:,.1f}",
            *("" if value is None else latency(value, one.longest_ms) for value in figures),
            f"{one.error_rate:.2%}",
            missed,
        )
    return table


def _client_rows(m: Measurement) -> list[tuple[str, str]]:
    processes = f" in {m.client_processes} processes" if m.client_processes > 1 else ""
    spare = f", {digits(m.headroom)} times this rate at most" if m.headroom else ""
    overhead = (
        ""
        if m.overhead_p50_ms is None
        else f"p50 {_ms(m.overhead_p50_ms, 2)}, p99 {_ms(m.overhead_p99_ms, 2)}"
    )
    return [
        ("lateness p99", _ms(m.lateness_p99_ms)),
        ("client", f"{m.client_cpu:.0%} of a core{processes}{spare}"),
        ("client latency", overhead),
        ("traffic", f"{m.net_mbps:,.1f} Mbit/s"),
    ]


def _examples(m: Measurement) -> list[RenderableType]:
    """The first of each kind of error, in its own words."""
    return [
        Text(f"{kind}: {' '.join(text.split())[:200]}", style="dim")
        for kind, text in sorted(m.error_examples.items())
        if text
    ]


def report(result: Verified) -> RenderableType:
    """The best configuration within each bound on p99: the Pareto front, read by the bound."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("p99\nwithin", justify="right", no_wrap=True)
    table.add_column("best configuration\n", overflow="fold")
    table.add_column("requests/s\n95 %", justify="right")
    table.add_column("default\n", justify="right", no_wrap=True)
    table.add_column("times the\ndefault", justify="right")
    above: BoundRow | None = None
    for row in result.bounds:
        table.add_row(*_bound_cells(row, result, above), style=_style(row, result))
        above = row
    return Group(table, Text(f"the default: {_searched(result)}", style="dim"))


def _bound_cells(row: BoundRow, result: Verified, above: BoundRow | None) -> Iterator[str]:
    same = above is not None and above.configuration == row.configuration
    yield bound(row)
    yield "as above" if same else changes(row.config, result)
    beyond = "" if row.measured else "~"
    yield f"{beyond}{digits(row.rate_rps)} {interval(row.low_rps, row.high_rps, joint='-')}"
    yield "" if row.is_default or not row.default_rps else digits(row.default_rps)
    yield "" if row.is_default else times(row)


def _style(row: BoundRow, result: Verified) -> str:
    answer = result.answer
    return "bold green" if answer is not None and row.p99_ms == answer.p99_ms else ""


def front_plot(result: Verified, console: Console) -> Text:
    """The verified points as a plot, in ASCII unless this is a terminal that shows more."""
    text = plot(series(result), min(console.width, WIDEST_PLOT))
    plain = console.options.ascii_only or not console.is_terminal
    return Text(text.translate(ASCII) if plain else text)


def _searched(result: Verified) -> str:
    base = default_config(result)
    return ", ".join(f"{knob} {shown(getattr(base, knob))}" for knob in search_values())


def answer(found: Mapping[str, str]) -> RenderableType:
    """The findings under their headings, each text as wide as the terminal leaves it."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, text in found.items():
        if heading != "answer":
            table.add_row(heading, Text(text))
    return table


def _ms(value: float | None, count: int = 3) -> str:
    return "" if value is None else f"{digits(value, count)} ms"


def _between(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f"  [{low:{form}}, {high:{form}}]"


def _kinds(errors: dict[str, int]) -> str:
    return "".join(f", {count} {kind}" for kind, count in sorted(errors.items()))
