"""Disturbances of the machine during a measurement, a note for each.

Other processes, other guests of the host, swapping, throttling by a quota or for heat. The reading
is at the edge (`now`); what two readings mean is pure (`disturbances`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from dlbench.loadgen.analysis.container import throttled_s
from dlbench.loadgen.quantity import digits

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/")
MIB = 1 << 20
# Below these it is what an idle system does to anybody.
OTHERS_CORES, OTHERS_SHARE = 0.25, 0.1
SWAPPED_MB = 1.0
THROTTLED_SHARE = 0.01
HEAT_COUNTS = "sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"


@dataclass(frozen=True)
class Snapshot:
    """Sums since the machine or the container started, at one moment.

    `busy_s` is processor time of all processes, `ours_s` that of this one and all it started;
    `stolen_s` went to other guests of the host, `throttled_s` was kept from us by a quota, and
    `heat_throttles` counts how often a core was slowed down for its heat.
    """

    at_s: float
    busy_s: float
    ours_s: float
    cores: int = 1
    stolen_s: float = 0.0
    swapped_mb: float = 0.0
    throttled_s: float = 0.0
    heat_throttles: int = 0


def disturbances(before: Snapshot, after: Snapshot) -> tuple[str, ...]:
    """One line for each thing that may have changed what was measured in between."""
    length_s = max(1e-9, after.at_s - before.at_s)
    rules = (_others, _stolen, _swapped, _throttled, _heated)
    return tuple(note for rule in rules if (note := rule(before, after, length_s)))


def is_calm(before: Snapshot, after: Snapshot) -> bool:
    """Whether nothing disturbed and half of the cores had nothing to do: who wanted one had it."""
    length_s = max(1e-9, after.at_s - before.at_s)
    busy = (after.busy_s - before.busy_s) / length_s
    return busy <= after.cores / 2 and not disturbances(before, after)


def _others(before: Snapshot, after: Snapshot, length_s: float) -> str:
    cores = (after.busy_s - before.busy_s - (after.ours_s - before.ours_s)) / length_s
    return _taken("other processes used", cores, after.cores)


def _stolen(before: Snapshot, after: Snapshot, length_s: float) -> str:
    cores = (after.stolen_s - before.stolen_s) / length_s
    return _taken("the host took away", cores, after.cores)


def _taken(who: str, cores: float, of: int) -> str:
    """A share of the cores; little of many cores leaves enough for everybody."""
    if cores < max(OTHERS_CORES, OTHERS_SHARE * of):
        return ""
    return f"{who} {digits(cores, 2)} of {of} cores ({cores / of:.0%}) meanwhile"


def _swapped(before: Snapshot, after: Snapshot, _: float) -> str:
    swapped_mb = after.swapped_mb - before.swapped_mb
    return f"{digits(swapped_mb)} MiB were swapped meanwhile" if swapped_mb >= SWAPPED_MB else ""


def _throttled(before: Snapshot, after: Snapshot, length_s: float) -> str:
    share = (after.throttled_s - before.throttled_s) / length_s
    if share < THROTTLED_SHARE:
        return ""
    return f"the container's CPU quota throttled its processes for {share:.0%} of the time"


def _heated(before: Snapshot, after: Snapshot, _: float) -> str:
    times = after.heat_throttles - before.heat_throttles
    return f"cores were throttled for heat {times} times meanwhile" if times > 0 else ""


def now(root: Path = ROOT) -> Snapshot:
    """Read it all; some 10 ms."""
    times = psutil.cpu_times()
    swap = psutil.swap_memory()
    return Snapshot(
        at_s=time.perf_counter(),
        # Not the interrupts: those of the loopback interface are our own doing.
        busy_s=times.user + times.system + getattr(times, "nice", 0.0),
        ours_s=sum(map(_processor_s, _ours())),
        cores=psutil.cpu_count() or 1,
        stolen_s=getattr(times, "steal", 0.0),
        swapped_mb=(swap.sin + swap.sout) / MIB,
        throttled_s=throttled_s(root),
        heat_throttles=sum(int(count.read_text()) for count in root.glob(HEAT_COUNTS)),
    )


def _ours() -> Iterator[psutil.Process]:
    me = psutil.Process()
    yield me
    yield from me.children(recursive=True)


def _processor_s(process: psutil.Process) -> float:
    """With that of its children that have ended; 0 for one that has just ended itself."""
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.Error:
        return 0.0
