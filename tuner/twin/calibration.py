"""What this machine takes for the parts of a request: the twin's parameters, measured. Pure.

Times are means in seconds. What was not measured is derived from what was: between batch sizes and
numbers of busy workers linearly, beyond the largest batch along its last slope, beyond the most
busy workers in proportion to what the cores have to share.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# A closed-loop probe may not ask more than this share of what the client can do.
CLIENT_SHARE = 0.8


class ServiceTime(BaseModel):
    """Seconds that a worker took for a batch while `busy` workers, itself included, computed."""

    model_config = ConfigDict(frozen=True)

    batch: int = Field(ge=1)
    threads: int = Field(default=1, ge=1)
    busy: int = Field(default=1, ge=1)
    seconds: float = Field(gt=0)


class Calibration(BaseModel):
    """The parameters of a model on a machine, stored with the study.

    Front and client pay per request and, since a process that sleeps has to be woken, per wake-up:
    `front_s` (or `hit_s`) and `wake_s`. `way_s` is what a batch takes from the front to a worker that
    has nothing to do, and its result on the way back: one way, without the computing. `client_s` is
    the processor time of the load generator per request of a closed loop where it shares the cores,
    `client_open_s` of an open one; 0 where it has its own. A user of a closed loop asks again after
    `turn_s`. `beside_ms` are evenly spaced quantiles, the first 0, of what comes to a latency beside
    the proxy's own: client, network, waiting for a core. `guessed` are the shapes of inputs that
    nobody stated, a row of each.
    """

    model_config = ConfigDict(frozen=True)

    services: tuple[ServiceTime, ...]
    service_cv: float = Field(default=0.0, ge=0)
    front_s: float = Field(default=0.0, ge=0)
    wake_s: float = Field(default=0.0, ge=0)
    hit_s: float = Field(default=0.0, ge=0)
    way_s: float = Field(default=0.0, ge=0)
    turn_s: float = Field(default=0.0, ge=0)
    client_rps: float | None = Field(default=None, gt=0)
    client_s: float = Field(default=0.0, ge=0)
    client_open_s: float = Field(default=0.0, ge=0)
    beside_ms: tuple[float, ...] = ()
    cores: int = Field(default=1, ge=1)
    worker_rss_mb: float | None = None
    memory_mb: float | None = None
    result_bytes: int = Field(default=0, ge=0)
    guessed: dict[str, tuple[int, ...]] = {}

    @field_validator("services")
    @classmethod
    def _some(cls, services: tuple[ServiceTime, ...]) -> tuple[ServiceTime, ...]:
        if not services:
            raise ValueError("at least one service time has to be measured")
        return services

    def within(self, most_mb: float) -> Calibration:
        """The same on a machine that has no more than so many MiB."""
        here_mb = math.inf if self.memory_mb is None else self.memory_mb
        return self.model_copy(update={"memory_mb": min(here_mb, most_mb)})

    def service_s(self, batch: int, threads: int = 1, busy: int = 1) -> float:
        """Mean seconds for one batch, while `busy` workers compute; never less for more of both."""
        return float(self.services_s(batch, threads, busy)[busy - 1, batch - 1])

    def services_s(self, most_batch: int, threads: int, most_busy: int) -> NDArray[np.float64]:
        """Mean seconds of every batch size and number of busy workers: shape (busy, batch)."""
        return self.services_among(most_batch, threads, np.arange(1.0, most_busy + 1))

    def services_among(
        self, most_batch: int, threads: int, busy: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The same among so many busy workers, which need not be whole: shape (len(busy), batch)."""
        known = min(self._grids, key=lambda measured: (abs(measured - threads), -measured))
        grid = self._grids[known]
        rows = grid.rows(most_batch)
        measured = np.clip(busy, grid.busy[0], grid.busy[-1])
        beyond = crowding(busy, known, self.cores) / crowding(measured, known, self.cores)
        place = np.interp(measured, grid.busy, np.arange(len(grid.busy)))
        below, above = np.floor(place).astype(int), np.ceil(place).astype(int)
        weight = (place - below)[:, None]
        found: NDArray[np.float64] = (1 - weight) * rows[below] + weight * rows[above]
        return found * np.maximum(1.0, beyond)[:, None]

    def slowdown(self, busy: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much longer anything takes among so many busy processes of one thread than alone.

        As the largest batches do, which nobody feeds meanwhile: cores that share caches, memory or
        execution units are not twice one core.
        """
        levels, factors = self._slowdowns
        measured = np.clip(busy, levels[0], levels[-1])
        beyond = crowding(busy, 1, self.cores) / crowding(measured, 1, self.cores)
        slower: NDArray[np.float64] = np.interp(measured, levels, factors) * np.maximum(1.0, beyond)
        return slower

    @property
    def drivable_rps(self) -> float:
        """What the client may be asked for, endless where it was not measured."""
        return math.inf if self.client_rps is None else CLIENT_SHARE * self.client_rps

    @cached_property
    def _slowdowns(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Numbers of busy workers, and how much slower than alone the largest batch was then."""
        grid = self._grids[min(self._grids)]
        levels = np.array([1.0, *grid.busy])
        return levels, np.concatenate([[1.0], grid.seconds[:, -1] / grid.seconds[0, -1]])

    @cached_property
    def _grids(self) -> dict[int, Grid]:
        """By the number of threads."""
        threads = sorted({service.threads for service in self.services})
        return {n: Grid([s for s in self.services if s.threads == n]) for n in threads}


class Grid:
    """Service times of one number of threads, with the gaps filled: shape (busy, batch).

    A batch size that was not measured with so many busy workers has the slow-down of its
    neighbours. Noise never makes a larger batch or a busier machine quicker.
    """

    def __init__(self, services: Sequence[ServiceTime]) -> None:
        self.batches = sorted({service.batch for service in services})
        self.busy = sorted({service.busy for service in services})
        found = [self._measured(services, busy) for busy in self.busy]
        base = along(np.array(self.batches), *found[0])
        rows = [base * self._slowdown(measured, base) for measured in found]
        monotone = np.maximum.accumulate(np.array(rows), axis=1)
        self.seconds: NDArray[np.float64] = np.maximum.accumulate(monotone, axis=0)
        self._rows: dict[int, NDArray[np.float64]] = {}

    def rows(self, most_batch: int) -> NDArray[np.float64]:
        """Seconds of every batch size: shape (busy, batch); worked out once."""
        if most_batch not in self._rows:
            batches = np.arange(1, most_batch + 1)
            found = np.array([along(batches, self.batches, row) for row in self.seconds])
            # Beyond what was measured slopes differ by noise, and rows would cross.
            self._rows[most_batch] = np.maximum.accumulate(found, axis=0)
        return self._rows[most_batch]

    def _measured(
        self, services: Sequence[ServiceTime], busy: int
    ) -> tuple[list[int], NDArray[np.float64]]:
        """Batch sizes measured with so many busy workers, and their mean seconds."""
        found: dict[int, list[float]] = {}
        for service in services:
            if service.busy == busy:
                found.setdefault(service.batch, []).append(service.seconds)
        return sorted(found), np.array([np.mean(found[batch]) for batch in sorted(found)])

    def _slowdown(
        self, measured: tuple[list[int], NDArray[np.float64]], base: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        batches, seconds = measured
        factors = seconds / np.interp(batches, self.batches, base)
        return np.interp(self.batches, batches, factors)


def along(
    batches: NDArray[np.int64], known: Sequence[int], seconds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Seconds of each batch size: linear between the known ones, along the last slope beyond.

    Below the smallest it is that one's time; one known size alone is taken for a fixed cost per
    row, which is the worst that batching can be.
    """
    if len(known) == 1:
        slope = seconds[0] / known[0]
    else:
        slope = max(0.0, float(seconds[-1] - seconds[-2]) / (known[-1] - known[-2]))
    inside: NDArray[np.float64] = np.interp(batches, known, seconds)
    beyond: NDArray[np.float64] = slope * np.maximum(0, batches - known[-1])
    return np.add(inside, beyond)


def crowding(
    busy: NDArray[np.float64] | NDArray[np.int64], threads: int, cores: int, others: float = 0.0
) -> NDArray[np.float64]:
    """How much longer computing takes where more threads want to run than there are cores.

    `others` is the number of cores that front and client keep busy beside the workers.
    """
    wanted: NDArray[np.float64] = (busy * threads + others) / cores
    slower: NDArray[np.float64] = np.maximum(1.0, wanted)
    return slower
