"""Which service times are measured next, and what comes of them: within a budget of time. Pure.

A *cell* is a batch size, a number of threads and of workers that compute at the same time. Cells
are visited again and again, so that whatever drifts drifts for all; the median of a cell's visits
counts, and how far they differ is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlbench.proxy.config import THREADS_PER_CORE
from dlbench.tuner.twin.calibration import ServiceTime, crowding

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

# A visit lasts so long, and longer if so many batches take longer.
VISIT_S = 0.08
FEWEST_BATCHES = 2
# After so many visits a cell is known, or sooner if they agree so well.
MOST_VISITS, FEW_VISITS, AGREEING = 7, 3, 0.02
# A cell that would take more of what is left of the time is not begun: slow models have fewer.
MOST_SHARE = 0.2
# Beyond so many workers the slow-down is taken from what the cores have to share.
MOST_WORKERS = 16


class Cell(NamedTuple):
    """What is measured: workers that compute at the same time, all with batches of this size."""

    batch: int
    threads: int
    busy: int


class Visit(NamedTuple):
    """Seconds that one worker spent per batch, their coefficient of variation.

    `driver_share` is the share of a core that feeding the workers took meanwhile.
    """

    seconds: float
    cv: float
    driver_share: float = 0.0


def cells(batches: Sequence[int], threads: int, cores: int) -> list[Cell]:
    """Every batch size (rising) with one worker; few of them with more workers."""
    few = sorted({batches[0], batches[len(batches) // 2], batches[-1]})
    first, *more = busy_levels(threads, cores)
    alone = [Cell(batch, threads, first) for batch in batches]
    return alone + [Cell(batch, threads, busy) for busy in more for batch in few]


def busy_levels(threads: int, cores: int) -> list[int]:
    """Powers of two up to a thread per core, then as many workers as anybody would run."""
    full = max(1, cores // threads)
    most = min(MOST_WORKERS, max(1, THREADS_PER_CORE * cores // threads))
    powers = (1 << n for n in range(full.bit_length()))
    return sorted({min(level, most) for level in (*powers, full, most)})


@dataclass
class Visits:
    """What has been seen of the cells of one number of threads, on so many cores."""

    wanted: Collection[Cell]
    cores: int
    seen: dict[Cell, list[Visit]] = field(default_factory=dict)

    def add(self, cell: Cell, visit: Visit) -> None:
        """One more visit; what the feeding took from the workers is given back."""
        crowded = self._crowding(cell, visit.driver_share) / self._crowding(cell)
        fair = visit._replace(seconds=visit.seconds / crowded)
        self.seen.setdefault(cell, []).append(fair)

    def next_cell(self, left_s: float) -> Cell | None:
        """The one that was visited least among those that there is time for; None: be done.

        The first cell is seen once however little time there is: nothing works without it.
        """
        if not self.seen:
            return next(iter(self.wanted))
        open_cells = [c for c in self.wanted if not self.knows(c) and self._fits(c, left_s)]
        return min(open_cells, key=lambda cell: len(self.seen.get(cell, ())), default=None)

    def knows(self, cell: Cell) -> bool:
        """Whether more visits would teach little."""
        count = len(self.seen.get(cell, ()))
        return count >= MOST_VISITS or (count >= FEW_VISITS and self.spread(cell) <= AGREEING)

    def expected_s(self, cell: Cell) -> float:
        """Seconds per batch as seen, or at most in proportion to a smaller cell; 0: no idea."""
        if cell in self.seen:
            return self.seconds(cell)
        below = [c for c in self.seen if c.batch <= cell.batch]
        known = max(below, default=None)
        if known is None:
            return 0.0
        slower = self._crowding(cell) / self._crowding(known)
        return self.seconds(known) * cell.batch / known.batch * max(1.0, slower)

    def visit_s(self, cell: Cell) -> float:
        """Seconds that a visit is expected to take."""
        return max(VISIT_S, FEWEST_BATCHES * self.expected_s(cell))

    def seconds(self, cell: Cell) -> float:
        """Median of the visits."""
        return median(visit.seconds for visit in self.seen[cell])

    def spread(self, cell: Cell) -> float:
        """Median distance of a visit from the median, as a share of it."""
        middle = self.seconds(cell)
        return median(abs(visit.seconds - middle) for visit in self.seen[cell]) / middle

    def service_times(self) -> list[ServiceTime]:
        """The medians, by cell."""
        return [ServiceTime(**c._asdict(), seconds=self.seconds(c)) for c in sorted(self.seen)]

    def cv(self) -> float:
        """Coefficient of variation of a batch's time, the median over all visits."""
        return median(visit.cv for visits in self.seen.values() for visit in visits)

    def remarks(self) -> list[str]:
        """What a person should know: what was left out, and how far the visits differ."""
        left_out = sorted(set(self.wanted) - set(self.seen))
        found = [f"no time to calibrate {_listed(left_out)}"] if left_out else []
        worst = max(self.seen, key=self.spread)
        if self.spread(worst) > 5 * AGREEING:
            found.append(f"service times differ by {self.spread(worst):.0%}: {_named(worst)}")
        return found

    def _fits(self, cell: Cell, left_s: float) -> bool:
        most = left_s if cell in self.seen else max(VISIT_S, MOST_SHARE * left_s)
        return self.visit_s(cell) <= min(most, left_s)

    def _crowding(self, cell: Cell, others: float = 0.0) -> float:
        return float(crowding(np.array([cell.busy]), cell.threads, self.cores, others)[0])


def _named(cell: Cell) -> str:
    workers, threads = _counted(cell.busy, "worker"), _counted(cell.threads, "thread")
    return f"batches of {cell.batch} on {workers} of {threads}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _listed(left_out: Sequence[Cell]) -> str:
    """Batch sizes, each once with all the numbers of workers that it was left out for."""
    workers: dict[int, list[str]] = {}
    for cell in left_out:
        workers.setdefault(cell.batch, []).append(str(cell.busy))
    return "; ".join(
        f"batches of {batch} on {', '.join(busy)} worker{'' if busy == ['1'] else 's'}"
        for batch, busy in workers.items()
    )
