"""The workers of a model: started, replaced when they die or hang, added and sent home."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dlbench.proxy.errors import ProxyError
from dlbench.proxy.job import Seat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from typing import Any

    from dlbench.proxy.dispatcher import Dispatcher
    from dlbench.proxy.link import WorkerLink

    Start = Callable[[int], Awaitable[WorkerLink]]

LOG = logging.getLogger(__name__)

# A worker that does not start is tried again after so long, doubled each time.
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
# So many failed starts in a row, with no other worker alive, and there is nothing left to try.
MOST_FAILURES = 3


class Crew:
    """Keeps as many workers alive as are wanted."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        start: Start,
        weights: Sequence[float],
        on_fatal: Callable[[ProxyError], None],
    ) -> None:
        """`start` starts worker number N; `on_fatal` hears when none can be had any more."""
        self._dispatcher = dispatcher
        self._start, self._weights = start, weights
        self._on_fatal = on_fatal
        self._seats: dict[int, Seat] = {}
        self._starting: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted = 0
        dispatcher.on_lost = self._lost

    @property
    def size(self) -> int:
        """Workers that are there or on their way."""
        return len(self._seats) + len(self._starting)

    @property
    def seats(self) -> list[Seat]:
        """Those that have been ready once, by number."""
        return [self._seats[number] for number in sorted(self._seats)]

    @property
    def pids(self) -> list[int]:
        """Processes of the workers that are alive."""
        return [seat.link.pid for seat in self.seats if seat.link.alive]

    def adopt(self, links: Sequence[WorkerLink]) -> None:
        """Take over workers that are ready, as numbers 0 and up."""
        self._wanted = len(links)
        for number, link in enumerate(links):
            self._seat(number, link)

    def scale(self, wanted: int) -> None:
        """Start workers, or let those with the highest numbers finish and go."""
        self._wanted = wanted
        free = (number for number in range(wanted) if number not in self._seats)
        for number in [n for n in free if n not in self._starting]:
            self._starting.add(number)
            self._do(self._add(number))
        for number in [n for n in self._seats if n >= wanted]:
            self._do(self._dismiss(self._seats.pop(number)))

    def check(self, now: int) -> None:
        """Kill workers whose batch runs for too long: their end is handled like any other."""
        timeout_s = self._dispatcher.config.worker_timeout_s
        for seat in self.seats:
            since = seat.link.running_since_ns
            if since is not None and now - since > timeout_s * 1e9:
                LOG.warning("%s has run one batch for over %gs: killed", seat.name, timeout_s)
                seat.link.kill()

    async def shutdown(self) -> None:
        """Stop all workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(seat.link.shutdown() for seat in self._seats.values()))

    def _seat(self, number: int, link: WorkerLink) -> None:
        weight = self._weights[number] if number < len(self._weights) else 1.0
        seat = self._seats[number] = Seat(number, weight, link)
        self._dispatcher.join(seat)

    def _lost(self, seat: Seat) -> None:
        self._do(self._revive(seat))

    async def _revive(self, seat: Seat) -> None:
        await seat.link.shutdown()  # reaps the process
        LOG.warning("%s died (%s); its requests run elsewhere", seat.name, seat.link.death)
        if self._seats.get(seat.number) is not seat:
            return  # it was on its way home
        link = await self._started(seat.number)
        if link is None:
            return
        if self._seats.get(seat.number) is not seat:
            await link.shutdown()
            return
        seat.link = link
        seat.restarts += 1
        self._dispatcher.join(seat)

    async def _add(self, number: int) -> None:
        try:
            link = await self._started(number)
        finally:
            self._starting.discard(number)
        if link is None:
            return
        if number >= self._wanted:
            await link.shutdown()
        else:
            self._seat(number, link)

    async def _started(self, number: int) -> WorkerLink | None:
        """A new worker, tried for as long as it takes; None once that is hopeless."""
        pause_s, failures = FIRST_PAUSE_S, 0
        while True:
            try:
                return await self._start(number)
            except ProxyError as error:
                failures += 1
                LOG.warning("worker-%d does not start: %s", number, error)
                if failures >= MOST_FAILURES and not self._dispatcher.live:
                    self._on_fatal(error)
                    return None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _dismiss(self, seat: Seat) -> None:
        self._dispatcher.leave(seat)
        await seat.idle.wait()
        await seat.link.shutdown()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
