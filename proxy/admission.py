"""Whether another request may wait. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from dlbench.proxy.errors import Overloaded


@dataclass(frozen=True)
class Admission:
    """A bound on the queue: waiting longer than the queue is worth helps nobody."""

    max_queue_size: int

    def check(self, waiting: int) -> None:
        """Raise Overloaded if `waiting` requests already fill the queue."""
        if waiting >= self.max_queue_size:
            raise Overloaded(f"the queue is full ({self.max_queue_size} requests wait)")
