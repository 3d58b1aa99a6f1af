"""What a scheduling policy sees of the live workers. Pure.

Parallel lists of numbers, one place per live worker, changed where something happens: a decision
reads them with `min` and `index`, which run in C, and never walks objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of a new measurement: the last ten batches or so count, which smooths a noisy machine and still
# follows a change of load within a tenth of a second.
SMOOTHING: Final = 0.1
# What an idle worker's expected wait shrinks by with a result of another one: a worker that is
# twice as slow is tried once in some 70 results, one that was measured at a bad moment is not
# shunned for ever.
IDLE_DISCOUNT: Final = 0.99


class Loads:
    """Work and speed of every live worker; all lists have one place per worker."""

    __slots__ = (
        "_names",
        "_turn",
        "_typical_ns",
        "outstanding",
        "row_ns",
        "rows",
        "total",
        "wait_ns",
    )

    def __init__(self, names: Sequence[str] = ()) -> None:
        """`outstanding`: requests that wait for a worker or run on it, `total` their sum.

        `rows`: the rows of these requests. `row_ns`: smoothed service time per row, 0 if never
        measured. `wait_ns`: expected response time of one more row.
        """
        self.outstanding: list[int] = []
        self.rows: list[int] = []
        self.row_ns: list[float] = []
        self.wait_ns: list[float] = []
        self.total = 0
        self._names: list[str] = []
        self._typical_ns = 0.0  # per row, over all workers
        self._turn = 0
        self.resize(names)

    def resize(self, names: Sequence[str]) -> None:
        """The live workers are now these, in this order.

        Who stays keeps its work and its estimate. What a worker that left had is forgotten: it
        comes back with another process, perhaps elsewhere.
        """
        place = {name: index for index, name in enumerate(self._names)}
        before = [place.get(name) for name in names]
        self.outstanding = [0 if i is None else self.outstanding[i] for i in before]
        self.rows = [0 if i is None else self.rows[i] for i in before]
        self.row_ns = [0.0 if i is None else self.row_ns[i] for i in before]
        self.wait_ns = [0.0 if i is None else self.wait_ns[i] for i in before]
        self.total = sum(self.outstanding)
        self._names = list(names)

    def began(self, index: int, requests: int, rows: int) -> None:
        """Requests with so many rows were given to the worker at `index`."""
        self.outstanding[index] += requests
        self.total += requests
        self.rows[index] += rows
        self._expect(index)

    def ended(self, index: int, requests: int, rows: int) -> None:
        """They were answered, or taken away."""
        self.outstanding[index] -= requests
        self.total -= requests
        self.rows[index] -= rows
        self._expect(index)

    def took(self, index: int, rows: int, compute_ns: int) -> None:
        """The worker computed a batch of `rows` rows in `compute_ns`.

        Only of batches that succeeded: one that fails at once must not pass for a fast worker.
        """
        found = compute_ns / rows
        self.row_ns[index] = _smoothed(self.row_ns[index], found)
        self._typical_ns = _smoothed(self._typical_ns, found)
        self._expect(index)
        self._tempt()

    def _expect(self, index: int) -> None:
        row_ns, rows = self.row_ns[index], self.rows[index]
        # A worker never measured is free while it is idle, so that it is tried at once, and usual
        # from then on: a wait of 0 would send it everything until its first result.
        self.wait_ns[index] = row_ns * (rows + 1) if row_ns else (self._typical_ns or 1.0) * rows

    def _tempt(self) -> None:
        """Make the next worker look better if it is idle; its own estimate stays as it is."""
        self._turn = (self._turn + 1) % len(self.rows)
        if not self.outstanding[self._turn]:
            self.wait_ns[self._turn] *= IDLE_DISCOUNT


def _smoothed(before: float, found: float) -> float:
    return before + SMOOTHING * (found - before) if before else found
