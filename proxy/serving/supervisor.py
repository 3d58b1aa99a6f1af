"""The workers of a model: started, replaced when they die or hang, added and sent home."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dlbench.proxy.dispatch.admission import GIVEN_UP
from dlbench.proxy.dispatch.dispatcher import WorkerSlot
from dlbench.proxy.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
    from typing import Any

    from dlbench.proxy.dispatch.dispatcher import Dispatcher
    from dlbench.proxy.workers.link import WorkerLink

    Start = Callable[[int], Awaitable[WorkerLink]]

LOG = logging.getLogger(__name__)

# A worker that does not start is tried again after so long, doubled each time.
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
# So many failed starts in a row, with no other worker alive, and there is nothing left to try.
MOST_FAILURES = 3


class Supervisor:
    """Keeps as many workers alive as are wanted."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        start: Start,
        weights: Sequence[float],
        on_fatal: Callable[[ProxyError], None],
        remote: Collection[int] = (),
    ) -> None:
        """`start` starts worker number N; `on_fatal` hears when none can be had any more.

        The numbers in `remote` are workers elsewhere: there or not, never scaled, waited for forever.
        """
        self._dispatcher = dispatcher
        self._start, self._weights = start, weights
        self._on_fatal = on_fatal
        self._remote = remote
        self._slots: dict[int, WorkerSlot] = {}
        self._leaving: set[WorkerSlot] = set()  # sent home, and not done yet
        self._starting: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted = 0
        self._given_up = False
        dispatcher.on_lost = self._lost

    @property
    def size(self) -> int:
        """Workers that are there or, if they are our own, on their way."""
        ours = {*self._slots, *self._starting}.difference(self._remote)
        return len(ours) + self._connected

    @property
    def slots(self) -> list[WorkerSlot]:
        """Those that have been ready once, by number."""
        return [self._slots[number] for number in sorted(self._slots)]

    @property
    def pids(self) -> list[int]:
        """Processes of the workers that are alive, those on their way home included."""
        pids = [slot.link.pid for slot in self._all() if slot.link.alive]
        return [pid for pid in pids if pid is not None]

    def adopt(self, links: Sequence[WorkerLink]) -> None:
        """Take over workers that are ready, as numbers 0 and up; the remote ones come later."""
        self._wanted = len(links)
        for number, link in enumerate(links):
            self._slot(number, link)
        self._add_all(self._remote)

    def scale(self, wanted: int) -> None:
        """Start workers, or let those with the highest numbers finish and go; one is always ours."""
        self._wanted = max(1, wanted - self._connected)
        free = (number for number in range(self._wanted) if number not in self._slots)
        self._add_all([n for n in free if n not in self._starting])
        for number in [n for n in self._slots if not self._wants(n)]:
            slot = self._slots.pop(number)
            self._leaving.add(slot)
            self._do(self._dismiss(slot))

    def check(self, now: int) -> None:
        """Kill workers whose batch runs for too long: their end is handled like any other."""
        timeout_s = self._dispatcher.core.config.worker_timeout_s
        for slot in self._all():
            since = slot.running_since_ns
            if since is not None and now - since > timeout_s * 1e9:
                LOG.warning("%s has run one batch for over %gs: killed", slot.name, timeout_s)
                slot.link.kill()

    async def shutdown(self) -> None:
        """Stop all workers."""
        slots = self._all()
        self._slots.clear()  # so that nobody replaces one that dies now
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(slot.link.shutdown() for slot in slots))

    def _all(self) -> list[WorkerSlot]:
        return [*self.slots, *self._leaving]

    @property
    def _connected(self) -> int:
        """Remote workers that are there."""
        return sum(n in self._remote and slot.link.alive for n, slot in self._slots.items())

    def _wants(self, number: int) -> bool:
        return number < self._wanted or number in self._remote

    def _add_all(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._starting.add(number)
            self._do(self._add(number))

    def _slot(self, number: int, link: WorkerLink) -> None:
        weight = self._weights[number] if number < len(self._weights) else 1.0
        slot = self._slots[number] = WorkerSlot(number, weight, link)
        self._dispatcher.join(slot)

    def _lost(self, slot: WorkerSlot) -> None:
        self._do(self._revive(slot))

    async def _revive(self, slot: WorkerSlot) -> None:
        await slot.link.shutdown()  # reaps the process
        LOG.warning("%s died (%s); its requests run elsewhere", slot.name, slot.link.death)

        def wanted() -> bool:  # if not, it was sent home
            return self._slots.get(slot.number) is slot

        if slot.link.broken:
            await asyncio.sleep(LONGEST_PAUSE_S)
        link = await self._started(slot.number, wanted)
        if link is None:
            return
        if not wanted():
            await link.shutdown()
            return
        slot.link = link
        slot.restarts += 1
        self._dispatcher.join(slot)

    async def _add(self, number: int) -> None:
        def wanted() -> bool:
            return self._wants(number)

        try:
            link = await self._started(number, wanted)
        finally:
            self._starting.discard(number)
        if link is None:
            return
        if wanted():
            self._slot(number, link)
        else:
            await link.shutdown()

    async def _started(self, number: int, wanted: Callable[[], bool]) -> WorkerLink | None:
        """Start a worker, retrying while it is wanted; None if it no longer is, or never can be."""
        pause_s, failures, said = FIRST_PAUSE_S, 0, ""
        while wanted() and not self._given_up:
            try:
                return await self._start(number)
            except ProxyError as error:
                failures += 1
                if str(error) != said:  # a node may be away for days
                    said = str(error)
                    LOG.warning("worker-%d failed to start: %s", number, error)
                if not self._any_alive() and number not in self._remote:
                    self._dispatcher.core.hold_off(pause_s)
                    if failures >= MOST_FAILURES:
                        self._give_up(error)
                        return None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return None

    def _any_alive(self) -> bool:
        """One that seems to hang counts: it may answer yet."""
        return any(slot.link.alive for slot in self._all())

    def _give_up(self, error: ProxyError) -> None:
        """Give up, once: fail those waiting and report the error."""
        if self._given_up:
            return
        self._given_up = True
        self._dispatcher.shutdown(GIVEN_UP)
        self._on_fatal(error)

    async def _dismiss(self, slot: WorkerSlot) -> None:
        self._dispatcher.leave(slot)
        await slot.idle.wait()
        await slot.link.shutdown()
        self._leaving.discard(slot)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
