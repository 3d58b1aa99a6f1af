"""One bound on what requests and their replies take in the front together."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from dlbench.proxy.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Smaller bodies and replies are not counted: many connections of them are less than the objects
# around them, and most requests are to pay one comparison and no more.
COUNTED_FROM = 4096
# Of the machine's memory, where nobody says more; the rest is for workers and what else runs.
SHARE = 4
# What a container may take: control groups as they are seen inside it, of both versions.
CONTAINER_FILES = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


class Memory:
    """Bytes of requests and replies that are held, of all connections and protocols.

    `make_room(size)` is asked to let go of what is merely kept, where there is no room otherwise.
    """

    __slots__ = ("_most", "held", "make_room")

    def __init__(self, most: int = sys.maxsize) -> None:
        self._most = most
        self.held = 0
        self.make_room: Callable[[int], None] = lambda _: None

    @property
    def left(self) -> int:
        """Bytes that may still be taken."""
        return self._most - self.held

    def take(self, size: int) -> None:
        """Count bytes that are held from now on.

        Raises:
            Overloaded: there is no room for them; nothing was counted.
        """
        if size > self.left:
            self.make_room(size)
        if size > self.left:
            raise Overloaded(
                f"requests and replies in progress use all {self._most >> 20} MiB of "
                "--max-memory-mb; try again"
            )
        self.held += size

    def give(self, size: int) -> None:
        """Count bytes that are held no longer."""
        self.held -= size

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count bytes for the length of the block.

        Raises:
            Overloaded: there is no room for them.
        """
        self.take(size)
        try:
            yield
        finally:
            self.give(size)


def most_bytes(max_memory_mb: int) -> int:
    """What the setting means: 0 is a share of what this machine or container has."""
    return max_memory_mb << 20 or _machine_bytes() // SHARE


def _machine_bytes() -> int:
    found: list[int] = [psutil.virtual_memory().total]
    for file in CONTAINER_FILES:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdecimal():  # "max": no limit
            found.append(int(text))
    return min(found)
