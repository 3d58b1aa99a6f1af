"""Whether another request may wait, and when a refused one may come again. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dlbench.proxy.errors import Overloaded

# Longer than this nobody can tell how fast the queue will be.
MOST_RETRY_AFTER_S = 60
STOPPING = "the proxy is stopping"
GIVEN_UP = "the model's workers do not start"
HELD_OFF = "no worker is running: its start failed and will be tried again"


@dataclass(frozen=True)
class Admission:
    """A bound on the queue: waiting longer than the queue is worth helps nobody."""

    max_queue_size: int

    def check(self, waiting: int, served_per_s: float = math.inf) -> None:
        """Raise Overloaded if `waiting` requests already fill the queue.

        With the rate at which requests are served lately it says when there will be room.
        """
        if waiting >= self.max_queue_size:
            error = Overloaded(f"the queue is full ({self.max_queue_size} requests wait)")
            error.retry_after_s = retry_after_s(waiting, served_per_s)
            raise error


@dataclass(frozen=True)
class Closed:
    """Nobody is taken: after the end, or while there is nobody to do the work."""

    why: str
    retry_after_s: int = 1

    def check(self, waiting: int, served_per_s: float) -> None:  # noqa: ARG002 - as Admission has it
        """Raise Overloaded."""
        error = Overloaded(self.why)
        error.retry_after_s = self.retry_after_s
        raise error


def retry_after_s(waiting: int, served_per_s: float) -> int:
    """Whole seconds until the queue is worked off, from 1 to MOST_RETRY_AFTER_S."""
    if waiting > served_per_s * MOST_RETRY_AFTER_S:
        return MOST_RETRY_AFTER_S
    return max(1, math.ceil(waiting / served_per_s)) if waiting else 1
