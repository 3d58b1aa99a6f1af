"""The processor's cores that this process may use, and which of them are one core's hyperthreads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cores() -> tuple[int, ...]:
    """Numbers of the logical cores that this thread may run on; () where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    return tuple(sorted(os.sched_getaffinity(0)))


def hyperthreads(cores: Iterable[int], topology: Path = TOPOLOGY) -> list[tuple[int, ...]]:
    """The logical cores in groups that share a physical one, in order; each alone if unknown."""
    groups: dict[frozenset[int], list[int]] = {}
    for core in sorted(cores):
        groups.setdefault(_siblings(core, topology), []).append(core)
    return [tuple(group) for group in groups.values()]


def core_list(text: str) -> tuple[int, ...]:
    """Numbers from a list as Linux writes it: `0-3,6`.

    Raises:
        ValueError: it is no such list.
    """
    cores: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        low, high = int(first), int(last or first)
        if not low <= high:
            raise ValueError(f"{part!r} is not a range of cores")
        cores.update(range(low, high + 1))
    return tuple(sorted(cores))


def _siblings(core: int, topology: Path) -> frozenset[int]:
    """All hyperthreads of a core's physical core, itself included."""
    try:
        text = (topology / f"cpu{core}" / "topology" / "thread_siblings_list").read_text()
        return frozenset({core, *core_list(text)})
    except (OSError, ValueError):
        return frozenset({core})
