"""What one hostile request does to everybody else: the wait for /v2/health/live, the front's memory.

    .venv/bin/python -m benchmarks.live.hostile [--quick] [--json FILE]

The bombs of `make fuzz` at 64 MB, one after the other: the longest of the answers to a client that
asks for health all the time on a connection of its own, and what the front's process grew by, beside
the body. What the loop itself computed meanwhile tells the front from a machine that others use.
A packed body is counted as what it was unpacked to at most.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.harness import report
from tests.fuzz import bombs

SIZE = 64_000_000
AIM_MS, AIM_TIMES = 50.0, 4.0


def main() -> None:
    script = report.Report(__doc__)
    size = 1_000_000 if script.quick else SIZE
    with tempfile.TemporaryDirectory() as folder:
        model = bombs.echo_model(Path(folder))
        with bombs.running(model) as (port, pid):
            calm_ms = calm(port, pid)
            found = {bomb.title: bombs.explode(bomb, size, port, pid) for bomb in bombs.BOMBS}
    show(found, calm_ms)
    script.keep({"calm_ms": calm_ms, "bombs": {t: one._asdict() for t, one in found.items()}})


def calm(port: int, pid: int) -> float:
    """The longest wait of three seconds without any bomb."""
    with bombs.Watch(port, pid) as watch:
        time.sleep(3)
    return 1e3 * max(watch.waits)


def show(found: dict[str, bombs.Seen], calm_ms: float) -> None:
    columns = (
        "status",
        "sent MB",
        "reply MB",
        "took s",
        "health ms",
        "front grew MB",
        "of the body",
    )
    table = report.table(f"one request, health waits {calm_ms:.1f} ms without", "request", *columns)
    for title, one in found.items():
        times = f"{one.growth / one.sent:.1f}" if one.sent > 1e6 else ""
        figures = (
            one.sent / 1e6,
            one.received / 1e6,
            one.took_s,
            1e3 * one.wait_s,
            one.growth / 1e6,
        )
        table.add_row(title, str(one.status), *(f"{value:,.1f}" for value in figures), times)
    report.console.print(table)
    packed = {bomb.title for bomb in bombs.BOMBS if bomb.headers == bombs.PACKED}
    large = [one for title, one in found.items() if one.sent > 1e6 and title not in packed]
    busiest = [max(1e3 * one.busy_s for one in found.values())]
    report.aim("longest of the loop, ms,", busiest, AIM_MS, ".1f")
    report.aim(
        "longest wait, ms,", [max(1e3 * one.wait_s for one in found.values())], AIM_MS, ".1f"
    )
    report.aim(
        "growth of the body,", [max(one.growth / one.sent for one in large)], AIM_TIMES, ".1f"
    )


if __name__ == "__main__":
    main()
