"""When a batch has run for so long that its worker is probably hung. Pure: times in nanoseconds.

To suspect costs little: the worker gets no new work, what it has not begun goes elsewhere, and its
next answer clears it. So the rule need not be sure, as `worker_timeout_s` has to, which kills.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

# Of a batch's usual time. Two workers on one core take twice as long, a busy neighbour makes it four.
TIMES: Final = 10
# Nobody is suspected sooner: the scheduler of a busy machine takes hundreds of milliseconds.
FLOOR_NS: Final = 1_000_000_000
# The first run of a shape may allocate, compile or search for the fastest kernel, and less so that of
# another number of rows.
FIRST_RUN_NS: Final = 10_000_000_000
FIRST_SIZE_NS: Final = 3_000_000_000
# Of a new measurement: about the last ten batches count.
SMOOTHING: Final = 0.1
# Shapes remembered; above that all are forgotten, and are first runs again.
KEPT_SHAPES: Final = 1024


class UsualTimes:
    """How long batches take, by the shape of a row and the number of rows."""

    def __init__(self) -> None:
        self._usual_ns: dict[tuple[Hashable, int], float] = {}
        self._row_ns: dict[Hashable, float] = {}

    def took(self, shape: Hashable, rows: int, compute_ns: int) -> None:
        """A batch of so many rows took so long."""
        if len(self._usual_ns) >= KEPT_SHAPES:
            self._usual_ns.clear()
            self._row_ns.clear()
        _smooth(self._usual_ns, (shape, rows), compute_ns)
        _smooth(self._row_ns, shape, compute_ns / rows)

    def patience_ns(self, shape: Hashable, rows: int) -> int:
        """How long a batch may run before its worker is suspected."""
        usual_ns = self._usual_ns.get((shape, rows))
        if usual_ns is not None:
            return max(FLOOR_NS, int(TIMES * usual_ns))
        row_ns = self._row_ns.get(shape)
        if row_ns is not None:
            return max(FIRST_SIZE_NS, int(TIMES * rows * row_ns))
        return FIRST_RUN_NS


def _smooth(times: dict[Any, float], key: Hashable, found: float) -> None:
    before = times.get(key, found)
    times[key] = before + SMOOTHING * (found - before)
