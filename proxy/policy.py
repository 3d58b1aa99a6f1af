"""Scheduling policies: which worker's queue a request goes to. Pure.

A policy sees the outstanding requests of every live worker and names one of them. SHARED means
that it does not choose: the request waits where any idle worker takes it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHARED: Final = -1


class Policy(Protocol):
    """Chooses among live workers."""

    def choose(self, outstanding: Sequence[int]) -> int:
        """Index of the worker for the next request, or SHARED.

        `outstanding` holds, per live worker, the requests that wait for it or run on it; it is
        never empty.
        """
        ...


class SharedQueue:
    """One queue for all: an idle worker takes the next batch."""

    def choose(self, outstanding: Sequence[int]) -> int:  # noqa: ARG002 - it does not look
        return SHARED


class RoundRobin:
    """One after the other, whatever they have to do."""

    def __init__(self) -> None:
        self._turn = -1

    def choose(self, outstanding: Sequence[int]) -> int:
        self._turn = (self._turn + 1) % len(outstanding)
        return self._turn


class Random:
    """Any, with equal chance; seeded, so that two runs differ only in their load."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def choose(self, outstanding: Sequence[int]) -> int:
        return self._random.randrange(len(outstanding))


class LeastOutstanding:
    """The one with the fewest requests waiting or running; of equals the first."""

    def choose(self, outstanding: Sequence[int]) -> int:
        return outstanding.index(min(outstanding))


POLICIES: dict[str, Callable[[], Policy]] = {
    "shared_queue": SharedQueue,
    "round_robin": RoundRobin,
    "random": Random,
    "least_outstanding": LeastOutstanding,
}
