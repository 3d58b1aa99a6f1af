"""The core before real workers: links, a timer, a clock and the cache's backend."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from dlbench.proxy.cache.cache_key import KeyMaker
from dlbench.proxy.clock import now_ns
from dlbench.proxy.dispatch.admission import STOPPING
from dlbench.proxy.dispatch.core import Core
from dlbench.proxy.dispatch.job import Job, Slot
from dlbench.proxy.dispatch.timer import make_timer
from dlbench.proxy.errors import BrokenFrame, RequestError
from dlbench.proxy.workers.frames import encode_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlbench.proxy.cache.backend import Backend
    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.request import InferRequest, Outputs, Reply
    from dlbench.proxy.telemetry.stats import ModelStats
    from dlbench.proxy.tensors import Buffer, Signature
    from dlbench.proxy.workers.frames import Result
    from dlbench.proxy.workers.link import WorkerLink


class WorkerSlot(Slot):
    """A slot with the link to the process that fills it now."""

    def __init__(self, number: int, weight: float, link: WorkerLink) -> None:
        super().__init__(number, weight)
        self.link = link
        self.restarts = 0
        self.idle = asyncio.Event()  # set while it is not live and nothing runs on it

    def send(
        self, number: int, rows: list[int], shapes: list[Sequence[int]], pieces: list[Buffer]
    ) -> None:
        self.link.send(encode_batch(number, rows, shapes, pieces))

    def release(self) -> None:
        self.idle.set()


class Dispatcher:
    """Takes requests and answers each exactly once, through a callback."""

    def __init__(
        self,
        signature: Signature,
        identity: bytes,
        config: ServingConfig,
        backend: Backend,
        stats: ModelStats,
    ) -> None:
        """`identity` is what all cache keys share: the model's name, version and file."""
        self.stats = stats
        self.on_lost: Callable[[WorkerSlot], None] = lambda _: None  # a worker that died
        # Batches are smaller from now on: the most rows, and why.
        self.on_less: Callable[[int, str], None] = lambda _, __: None
        self._signature, self._backend = signature, backend
        self._keys = KeyMaker(identity)
        self._timer = make_timer(asyncio.get_running_loop(), self._on_time)
        self.core = Core(signature, config, backend, stats, self)

    def configure(self, config: ServingConfig) -> None:
        """Change every knob that needs no restart; what waits is queued again, the cache is empty."""
        self.core.configure(config, now_ns())

    def submit(self, request: InferRequest, reply: Reply) -> Job:
        """Take a request; `reply` is called once, perhaps before this returns.

        Returns what `abandon` takes.
        """
        self.stats.received()
        job = Job(request, reply, now_ns())
        if self.core.needs_key:
            job.cache_key = self._keys.key(request)
        self.core.submit(job, now_ns())
        return job

    def abandon(self, job: Job) -> None:
        """Whoever asked has gone."""
        self.core.abandon(job, now_ns())

    def join(self, slot: WorkerSlot) -> None:
        """A worker that is ready gets work from now on."""
        link = slot.link
        link.on_result = partial(self._on_result, slot)
        link.on_lost = partial(self._on_lost, slot)
        slot.idle.clear()
        self.core.join(slot, now_ns())
        if not link.alive:  # it died between its hello and now, when nobody listened
            self._on_lost(slot, link)

    def leave(self, slot: WorkerSlot) -> None:
        """A worker gets nothing more; it is idle once what it runs is done."""
        self.core.leave(slot, now_ns())

    def shutdown(self, why: str = STOPPING) -> None:
        """What is still unanswered is answered 503, and so is whatever comes from now on."""
        self._timer.close()
        self.core.shutdown(why, now_ns())

    # What the core asks for

    def finish(self, job: Job, outcome: Outputs | RequestError) -> None:
        """Count how a job ended, and tell whoever asked."""
        latency_ns = now_ns() - job.since_ns
        if isinstance(outcome, RequestError):
            self.stats.failed(latency_ns, outcome.status)
        else:
            self.stats.succeeded(latency_ns)
        job.tell(outcome)

    def fetch(self, job: Job) -> None:
        """Ask the backend."""
        self._backend.fetch(job.cache_key, partial(self._fetched, job))

    def wake_at(self, when_ns: int) -> None:
        """Set the timer."""
        self._timer.at(when_ns)

    def limit_batches(self, rows: int, why: str) -> None:
        """Tell the owner."""
        self.on_less(rows, why)

    # What the world tells the core

    def _fetched(self, job: Job, outputs: Outputs | None) -> None:
        self.core.fetched(job, outputs, now_ns())

    def _on_time(self) -> None:
        self.core.tick(now_ns())
        if (next_ns := self.core.next_ns()) is not None:
            self._timer.at(next_ns)

    def _on_result(
        self, slot: WorkerSlot, link: WorkerLink, number: int, result: Result | str
    ) -> None:
        if self.core.over:
            return
        if number not in slot.batches:
            raise BrokenFrame("an answer to nothing that was asked")
        rows = sum([job.request.rows for job in slot.batches[number]])
        if rows and not isinstance(result, str):
            link.check(self._signature, result, rows)
        self.core.result(slot, number, result, now_ns())

    def _on_lost(self, slot: WorkerSlot, link: WorkerLink) -> None:
        if self.core.over:
            return
        # Nonsense is no request's fault.
        self.core.lost(slot, now_ns(), blame=not link.broken)
        self.on_lost(slot)
