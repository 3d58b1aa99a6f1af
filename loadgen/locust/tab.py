"""Our numbers in Locust's web page: a tab with a table, filled with every poll of its statistics.

The page reads the tab's title and columns from `extended_tabs` and `extended_tables` among its
template's arguments, and the rows from `extended_stats` in the reply to `/stats/requests`
(locust/webui; Locust's examples/extend_web_ui.py).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flask import Response, request

from dlbench.loadgen.analysis.evidence import LATENESS_FLOOR_MS, LATENESS_SHARE
from dlbench.loadgen.quantity import interval, latency

if TYPE_CHECKING:
    from locust.web import WebUI

    from dlbench.loadgen.measurement import Measurement
    from dlbench.loadgen.messages import Progress

KEY = "dlbench"
# Without a column called `name`: the page would sort the rows by it.
COLUMNS = {"figure": "dlbench", "value": "Value", "note": "What it is"}
Rows = list[tuple[str, str, str]]


class NoPage:
    """The null object: no web page."""

    def progressed(self, load: str, progress: Progress) -> None: ...
    def ended(self, load: str, found: Measurement) -> None: ...
    def failed(self, load: str, reason: str) -> None: ...


class Page(NoPage):
    """A tab; with several loads their tables follow each other."""

    def __init__(self, web: WebUI) -> None:
        self._rows: dict[str, Rows] = {}
        structure = [{"key": key, "title": title} for key, title in COLUMNS.items()]
        arguments = web.template_args
        arguments.setdefault("extended_tabs", []).append({"title": KEY, "key": KEY})
        arguments.setdefault("extended_tables", []).append({"key": KEY, "structure": structure})
        assert web.app is not None
        web.app.after_request(self._extend)

    def progressed(self, load: str, progress: Progress) -> None:
        self._rows[load] = progress_rows(progress)

    def ended(self, load: str, found: Measurement) -> None:
        self._rows[load] = result_rows(found)

    def failed(self, load: str, reason: str) -> None:
        self._rows[load] = [("Verdict", "failed", reason)]

    def _extend(self, response: Response) -> Response:
        if request.endpoint == "locust.request_stats" and response.is_json:
            document = response.get_json()
            # Locust keeps a reply for some seconds: it may have our table already.
            others = [t for t in document.get("extended_stats", []) if t["key"] != KEY]
            document["extended_stats"] = [*others, {"key": KEY, "data": self.table()}]
            response.set_data(json.dumps(document))
        return response

    def table(self) -> list[dict[str, str]]:
        """The rows, with the load's name before them where there are several."""
        several = len(self._rows) > 1
        return [
            dict(zip(COLUMNS, (f"{load}: {name}" if several else name, value, note), strict=True))
            for load, rows in self._rows.items()
            for name, value, note in rows
        ]


def page_of(web: WebUI | None) -> NoPage:
    """The page's updates, or a null object if Locust has no page."""
    return Page(web) if web else NoPage()


def progress_rows(progress: Progress) -> Rows:
    """A run under way: the figures of its last half second."""
    origin = "sent" if progress.lateness_p99_ms is None else "scheduled"
    return [
        ("Verdict", standing(progress), "so far, from the last half second"),
        ("Elapsed", f"{progress.elapsed_s:.1f} s", "of warm-up and measurement"),
        ("Requests", f"{progress.requests:,}", "ended"),
        ("Rate", f"{progress.rate_rps:,.0f}/s", "replies in the last half second"),
        ("p50", _ms(progress.p50_ms, progress.longest_ms), f"from the {origin} time"),
        ("p99", _ms(progress.p99_ms, progress.longest_ms), f"from the {origin} time"),
        ("Lateness p99", _ms(progress.lateness_p99_ms), "actual minus scheduled send time"),
        ("In flight", f"{progress.in_flight:,}", "sent, not answered yet"),
        ("Errors", f"{progress.errors:,}", "of all kinds"),
    ]


def result_rows(found: Measurement) -> Rows:
    """A run that is over: what `dlbench load` reports."""
    beside = "too few requests for an interval"
    if found.p99_low_ms is not None and found.p99_high_ms is not None:
        ends = interval(found.p99_low_ms, found.p99_high_ms, found.longest_ms)
        beside = f"95 % interval {ends} ms"
    origin = found.latency_from
    early = "" if found.complete else "stopped early; "
    return [
        ("Verdict", found.verdict, early + found.reason),
        ("Duration", f"{found.duration_s:.1f} s", "measured"),
        ("Requests", f"{found.requests:,}", "sent while measuring"),
        ("Throughput", f"{found.throughput_rps:,.1f}/s", "replies received while measuring"),
        ("p50", _ms(found.p50_ms, found.longest_ms), f"from the {origin} time"),
        ("p99", _ms(found.p99_ms, found.longest_ms), f"from the {origin} time; {beside}"),
        ("Lateness p99", _ms(found.lateness_p99_ms), "actual minus scheduled send time"),
        ("Errors", f"{found.error_rate:.2%}", ", ".join(found.errors)),
    ]


def standing(progress: Progress) -> str:
    """The verdict that the last half second speaks for; the end's looks at much more."""
    late_ms, p99_ms = progress.lateness_p99_ms or 0.0, progress.p99_ms or 0.0
    if progress.warming_up:
        return "warming up"
    if late_ms > max(LATENESS_FLOOR_MS, LATENESS_SHARE * p99_ms):
        return "invalid: the client sends late"
    return "errors" if progress.errors else "ok"


def _ms(value: float | None, longest_ms: float | None = None) -> str:
    return "not measured" if value is None else f"{latency(value, longest_ms)} ms"
