"""Who is next: the queue orders as a table of ranks, the smallest first. Pure.

A rank is fixed when a request arrives, so that a heap can hold it, and lies at a finite distance
behind the arrival, so that nothing starves: whatever comes later than that ranks behind.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    # since_ns, priority (0: none named), deadline_ns (0: none) -> rank
    Rank = Callable[[int, int, int], int]

# Of the usual three levels (high, normal, low) a request that names none has the middle one.
DEFAULT_PRIORITY = 2
# A request without a deadline is ranked as if it had one this far off: behind those who are in a
# hurry, before most clients lose patience (30 or 60 s).
IMPLIED_TIMEOUT_NS = 10_000_000_000


def fifo(ageing_ns: int, since_ns: int, priority: int, deadline_ns: int) -> int:  # noqa: ARG001 - one signature for all
    """The earliest arrival."""
    return since_ns


def priority(ageing_ns: int, since_ns: int, priority: int, deadline_ns: int) -> int:  # noqa: ARG001 - one signature for all
    """The highest priority (1), where each `ageing_ns` of waiting is worth one level.

    All that wait grow older at the same pace, so their order never changes: comparing
    `level - waited / ageing` of two requests is comparing `since + level * ageing`.
    """
    return since_ns + (priority or DEFAULT_PRIORITY) * ageing_ns


def edf(ageing_ns: int, since_ns: int, priority: int, deadline_ns: int) -> int:  # noqa: ARG001 - one signature for all
    """The earliest deadline; IMPLIED_TIMEOUT_NS after its arrival for a request that has none."""
    return deadline_ns or since_ns + IMPLIED_TIMEOUT_NS


ORDERS: dict[str, Callable[[int, int, int, int], int]] = {
    "fifo": fifo,
    "priority": priority,
    "edf": edf,
}


def rank_by(order: str, ageing_ns: int) -> Rank:
    """The rank under one of ORDERS: of (since_ns, priority, deadline_ns), all in nanoseconds."""
    return partial(ORDERS[order], ageing_ns)
