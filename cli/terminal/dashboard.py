"""How `dlbench top` looks, fit for 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dlbench.loadgen.quantity import digits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from dlbench.cli.terminal.scrape import ModelRow, View, WorkerRow

BAR_WIDTH = 10
# What the numbers leave of 80 columns; a longer name loses its end.
MODEL_WIDTH = 14
FULL, EMPTY = "━", " "
# An error rate from which the eye should be caught; a tenth of a percent is an SLO of three nines.
ALARMING = 0.001


def dashboard(url: str, view: View) -> RenderableType:
    """Everything about one interval: the proxy, its models, each model's workers."""
    parts: list[RenderableType] = [_header(url, view), Text(), _models(view.models)]
    parts += [Text(_errors(model), style="red") for model in view.models if model.errors]
    for model in view.models:
        title = f"workers of {_name(model)}: outstanding, rate, CPU"
        parts += [Text(), Text(title, style="bold"), _workers(model)]
    return Group(*parts)


def _header(url: str, view: View) -> Text:
    facts = [
        f"connections {view.connections}",
        f"CPU {view.server_cpu:.2f} cores",
        f"{view.server_rss_mb:,.0f} MB",
    ]
    for gpu in view.gpus:
        busy = "" if gpu.gpu_util is None else f" {gpu.gpu_util:.0%}"
        facts.append(f"GPU {gpu.gpu}{busy} {gpu.gpu_mem_mb:,.0f} MB")
    header = Text(url, style="bold")
    return header.append("  " + "  ".join(facts), style="default")


def _models(models: Sequence[ModelRow]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("model", overflow="ellipsis", no_wrap=True, max_width=MODEL_WIDTH)
    for title in ("rate\n/s", "p50\nms", "p99\nms", "queue\nms", "wait-\ning", "in\nflight"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("mean\nbatch", "cache\nhits", "errors\n"):
        table.add_column(title, justify="right", no_wrap=True)
    for m in models:
        rate = m.error_rate or 0.0
        table.add_row(
            _name(m),
            f"{m.throughput_rps:,.0f}",
            *("" if ms is None else digits(ms) for ms in (m.p50_ms, m.p99_ms, m.queue_mean_ms)),
            f"{m.queue_length:,}",
            f"{m.in_flight:,}",
            "" if m.mean_batch_size is None else digits(m.mean_batch_size),
            _number(m.cache_hit_ratio, ".0%"),
            Text(_number(m.error_rate, ".2%"), style="bold red" if rate >= ALARMING else ""),
        )
    return table


def _workers(model: ModelRow) -> Columns:
    """One entry per worker, as many beside each other as fit; bars share the longest as scale."""
    most = max((worker.outstanding for worker in model.workers), default=0)
    return Columns([_worker(worker, most) for worker in model.workers], padding=(0, 2, 0, 0))


def _worker(worker: WorkerRow, most: int) -> Text:
    if not worker.up:
        return Text(f"{worker.name} down", style="bold red")
    filled = round(BAR_WIDTH * worker.outstanding / most) if most else 0
    entry = Text(f"{worker.name} ")
    entry.append(FULL * filled + EMPTY * (BAR_WIDTH - filled), style="green")
    entry.append(f"{worker.outstanding:>4}{worker.throughput_rps:>7,.0f}/s{worker.cpu:>5.0%}")
    if worker.restarts:
        entry.append(f" restarts {worker.restarts}", style="yellow")
    return entry


def _name(model: ModelRow) -> str:
    return model.model if model.version == "1" else f"{model.model} {model.version}"


def _errors(model: ModelRow) -> str:
    counts = ", ".join(f"{count:,} of status {status}" for status, count in model.errors.items())
    return f"{_name(model)} errors: {counts}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
