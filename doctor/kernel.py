"""What the kernel says of itself under /proc and /sys. None: this one does not say.

One function per file that is read; `root` is where /proc and /sys lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from dlbench.loadgen.analysis.container import memory_left_mb

if TYPE_CHECKING:
    from pathlib import Path

CPUS = "sys/devices/system/cpu"
# Two drivers, two files; of the first one a 1 means that turbo is off.
TURBO = ((f"{CPUS}/intel_pstate/no_turbo", "0"), (f"{CPUS}/cpufreq/boost", "1"))


class Kernel(BaseModel):
    """Settings and sums of the kernel; memory in MiB, `stolen_share` of the time since the boot.

    `container_left_mb` is what this process' control groups may still take, None: no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    turbo: bool | None
    huge_pages: str | None
    clock_source: str | None
    timer_slack_us: float | None
    listen_backlog: int | None
    available_mb: float | None
    container_left_mb: float | None
    swap_used_mb: float | None
    stolen_share: float | None


def kernel(root: Path) -> Kernel:
    """All of it, read now."""
    memory = memory_mb(root)
    swap = memory.get("SwapTotal"), memory.get("SwapFree")
    return Kernel(
        turbo=turbo(root),
        huge_pages=huge_pages(root),
        clock_source=clock_source(root),
        timer_slack_us=timer_slack_us(root),
        listen_backlog=listen_backlog(root),
        available_mb=memory.get("MemAvailable"),
        container_left_mb=memory_left_mb(root),
        swap_used_mb=None if swap[0] is None or swap[1] is None else swap[0] - swap[1],
        stolen_share=stolen_share(root),
    )


def turbo(root: Path) -> bool | None:
    """Whether cores may run above their base clock."""
    said = ((_text(root / path), on) for path, on in TURBO)
    return next((text == on for text, on in said if text), None)


def huge_pages(root: Path) -> str | None:
    """Which memory gets transparent huge pages: always, madvise or never."""
    _, _, rest = _text(root / "sys/kernel/mm/transparent_hugepage/enabled").partition("[")
    return rest.partition("]")[0] or None


def clock_source(root: Path) -> str | None:
    """What the kernel reads the time from."""
    return _text(root / "sys/devices/system/clocksource/clocksource0/current_clocksource") or None


def timer_slack_us(root: Path) -> float | None:
    """How much later than asked the kernel may wake this process, to save wake-ups."""
    slack = _text(root / "proc/self/timerslack_ns")
    return int(slack) / 1000 if slack.isdecimal() else None


def listen_backlog(root: Path) -> int | None:
    """The most connections that may wait to be accepted, whatever a server asks for."""
    most = _text(root / "proc/sys/net/core/somaxconn")
    return int(most) if most.isdecimal() else None


def memory_mb(root: Path) -> dict[str, float]:
    """The sizes of /proc/meminfo by name, in MiB."""
    rows = (line.split() for line in _text(root / "proc/meminfo").splitlines())
    return {row[0].rstrip(":"): int(row[1]) / 1024 for row in rows if row[2:] == ["kB"]}


def stolen_share(root: Path) -> float | None:
    """Of all processor time since the boot, the share that the host gave to other guests."""
    words = _text(root / "proc/stat").partition("\n")[0].split()
    # cpu user nice system idle iowait irq softirq steal (guest is in user already)
    ticks = [int(word) for word in words[1:9]]
    return ticks[7] / sum(ticks) if len(ticks) == 8 and any(ticks) else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
