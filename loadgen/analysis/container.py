"""The limits of the control groups that this process is in: what a container may use of its machine.

Both hierarchies are read, v2 (one tree, `cpu.max`, `memory.max`) and v1 (a tree per controller).
A limit holds for everything below it, so the smallest on the way up to the root counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
# v1 says "no limit" with the largest page-aligned integer; no machine has this much memory.
NO_LIMIT_BYTES = 1 << 60


class ContainerLimits(NamedTuple):
    """Processor time in cores and memory in MiB; None: no limit."""

    cpus: float | None
    memory_mb: float | None


def limits(root: Path = Path("/")) -> ContainerLimits:
    """The tightest limits above this process; no limits where there are no control groups."""
    cpus, memory = [], []
    for folder in _folders(root):
        cpus += [*_cpu_v2(folder), *_cpu_v1(folder)]
        memory += [*_memory(folder / "memory.max"), *_memory(folder / "memory.limit_in_bytes")]
    return ContainerLimits(min(cpus, default=None), min(memory, default=None))


def memory_left_mb(root: Path = Path("/")) -> float | None:
    """MiB until the first limit above this process is reached; None: no limit.

    File pages that nobody has used of late are given back when memory is short, so they count as
    free, as in Kubernetes' working set.
    """
    found = [left for folder in _folders(root) for left in (*_left_v2(folder), *_left_v1(folder))]
    return max(0.0, min(found)) if found else None


def throttled_s(root: Path = Path("/")) -> float:
    """Seconds for which a quota has held processes of these groups back so far, the worst group's."""
    found = [0.0]
    for folder in _folders(root):
        stat = _stat(folder / "cpu.stat")
        found.append(stat.get("throttled_usec", 0) / 1e6)  # v2
        found.append(stat.get("throttled_time", 0) / 1e9)  # v1
    return max(found)


def _folders(root: Path) -> Iterator[Path]:
    """This process' groups in every hierarchy, and the groups above them.

    Inside a container the path may be the one outside, which is not there; its root is.
    """
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for top in _tops(mount, controllers):
            group = top / path.strip("/")
            yield group
            yield from (folder for folder in group.parents if folder.is_relative_to(top))


def _tops(mount: Path, controllers: str) -> set[Path]:
    """Where a hierarchy may be mounted: v2 alone or beside v1, and v1 under any of its names."""
    names = ["", "unified"] if not controllers else [controllers, *controllers.split(",")]
    return {mount / name for name in names}


def _cpu_v2(folder: Path) -> Iterator[float]:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    yield from _cores(quota, period)


def _cpu_v1(folder: Path) -> Iterator[float]:
    quota, period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    yield from _cores(quota, period)


def _cores(quota: str, period: str) -> Iterator[float]:
    """v2 says `max` and v1 -1 where there is no limit."""
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        yield int(quota) / int(period)


def _memory(file: Path) -> Iterator[float]:
    value = _text(file)
    if value.isdecimal() and int(value) < NO_LIMIT_BYTES:
        yield int(value) / MIB


def _left_v2(folder: Path) -> Iterator[float]:
    for limit_mb in _memory(folder / "memory.max"):
        cold_mb = _stat(folder / "memory.stat").get("inactive_file", 0) / MIB
        yield limit_mb - sum(_memory(folder / "memory.current")) + cold_mb


def _left_v1(folder: Path) -> Iterator[float]:
    for limit_mb in _memory(folder / "memory.limit_in_bytes"):
        cold_mb = _stat(folder / "memory.stat").get("total_inactive_file", 0) / MIB
        yield limit_mb - sum(_memory(folder / "memory.usage_in_bytes")) + cold_mb


def _stat(file: Path) -> dict[str, int]:
    """A file of a name and an integer per line."""
    pairs = (line.split() for line in _text(file).splitlines())
    return {name: int(value) for name, value in pairs}


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
