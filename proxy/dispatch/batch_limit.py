"""How many rows a batch may have now: fixed, or as many as the latency objective allows. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

# Additive increase, multiplicative decrease as in Clipper (Crankshaw et al., NSDI 2017, section
# 4.3.1): a fixed amount more while the objective holds, ten per cent less when it does not.
INCREASE_ROWS = 1
BACK_OFF_PERCENT = 90


class BatchLimit(Protocol):
    """Says how large a batch may be, and hears how long each took."""

    @property
    def limit(self) -> int:
        """Rows that a batch may have now."""
        ...

    def observe(self, rows: int, queue_ns: int, compute_ns: int) -> None:
        """A batch is done; `queue_ns` is the longest wait among its requests."""
        ...


class FixedLimit:
    """Always the same."""

    def __init__(self, most: int) -> None:
        self.limit = most

    def observe(self, rows: int, queue_ns: int, compute_ns: int) -> None:
        pass


class AdaptiveLimit:
    """The largest limit, from 1 to `most`, that holds a latency objective (AIMD).

    With L the first size that breaks the objective, it swings under load between 90 per cent of L,
    rounded down, and L plus one row for every further worker. It starts at 1, and grows only by
    batches of more than half of it: what nobody tried proves nothing (RFC 7661 treats TCP's window
    like this), and requests of several rows may never add up to it exactly.

    A batch answers for its own time and for at most as long a wait, that for the batch before it.
    The rest of the wait is a queue. Smaller batches would make that longer, since they serve fewer
    rows a second: an objective that counted it would, after one burst, hold the limit at 1 forever.
    """

    def __init__(self, most: int, slo_ns: int) -> None:
        self.limit = 1
        self._most = most
        self._slo_ns = slo_ns

    def observe(self, rows: int, queue_ns: int, compute_ns: int) -> None:
        holds = compute_ns + min(queue_ns, compute_ns) <= self._slo_ns
        if holds and 2 * rows > self.limit:
            self.limit = min(self._most, self.limit + INCREASE_ROWS)
        elif not holds and rows <= self.limit:  # a larger batch was cut under an earlier limit
            self.limit = max(1, self.limit * BACK_OFF_PERCENT // 100)


# By the knob `batching`; called with max_batch_size and the objective in nanoseconds.
BATCH_LIMITS: dict[str, Callable[[int, int], BatchLimit]] = {
    "greedy": lambda most, slo_ns: FixedLimit(most),  # noqa: ARG005 - one signature for all
    "adaptive": AdaptiveLimit,
}
