"""The processor time that a container's quota allows, in cores; what a mask of cores does not say.

A quota holds for everything below it, so the smallest on the way up to the root counts. `loadgen`
reads the same files for its facts of a machine (`container.py`), and a contract test holds the two
together: a proxy and a client are often on different machines, and neither needs the other's package.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/")


def cpu_quota(root: Path = ROOT) -> float | None:
    """CPU quota of this process in cores, such as 1.5; None: unlimited.

    `root` is where /proc and /sys lie.
    """
    found = (quota for group in _groups(root) for quota in (*_v2(group), *_v1(group)))
    return min(found, default=None)


def whole_cores(quota: float) -> int:
    """Workers that a quota pays for, at least one: 2 for 2.5, 1 for 1.5 and for 0.5.

    Rounded down, since a worker that is paid for in part stands still for part of every period, with
    a batch in its hands; the front uses what is left over.
    """
    return max(1, int(quota))


def _groups(root: Path) -> Iterator[Path]:
    """This process' groups with their parents, wherever they may be mounted.

    Inside a container the path may be the one outside, which is not there; its root is.
    """
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for name in (controllers or "unified", *controllers.split(",")):
            top = mount / name
            group = top / path.strip("/")
            yield group
            yield from (parent for parent in group.parents if parent.is_relative_to(top))


def _v2(group: Path) -> Iterator[float]:
    """`QUOTA PERIOD` in microseconds, or `max PERIOD`."""
    quota, _, period = _text(group / "cpu.max").partition(" ")
    yield from _ratio(quota, period)


def _v1(group: Path) -> Iterator[float]:
    """The same two figures in a file each; -1: no limit."""
    yield from _ratio(*(_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period")))


def _ratio(quota: str, period: str) -> Iterator[float]:
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
