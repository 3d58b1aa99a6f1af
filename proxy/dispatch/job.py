"""A request on its way through the proxy, and the worker that it is on its way to."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dlbench.proxy.clock import now_ns
from dlbench.proxy.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.proxy.cache.cache import Cache
    from dlbench.proxy.dispatch.batcher import Batcher, Waiting
    from dlbench.proxy.request import InferRequest, Outputs, Reply
    from dlbench.proxy.telemetry.stats import ModelStats
    from dlbench.proxy.workers.link import WorkerLink


LOG = logging.getLogger(__name__)


class Job:
    """A request, with whom to answer and how long that is worth waiting for.

    `deadline_ns` is 0 where there is none; `deaths` counts the workers that died with it. `home` is
    the worker in whose cache it was looked for, `slot` the one before which it waits, at `place`,
    `whole` the job that it is a part of, `parts` those that it was spread over. `leader` is the
    identical job that it joined, `wanted` how many wait for this one, itself included. `refused` is
    the batch that the model refused with it.
    """

    __slots__ = (
        "cache_key",
        "deadline_ns",
        "deaths",
        "done",
        "gone",
        "home",
        "leader",
        "part",
        "parts",
        "place",
        "refused",
        "reply",
        "request",
        "since_ns",
        "slot",
        "wanted",
        "whole",
    )

    def __init__(self, request: InferRequest, reply: Reply, since_ns: int) -> None:
        self.request = request
        self.reply = reply
        self.since_ns = since_ns
        self.deadline_ns = 0
        self.cache_key = b""
        self.deaths = 0
        self.home: WorkerSlot | None = None
        self.slot: WorkerSlot | None = None
        self.place: Waiting[Job] | None = None
        self.whole: Whole | None = None
        self.part = 0
        self.refused: Refused | None = None
        self.parts: tuple[Job, ...] = ()
        self.leader: Job | None = None
        self.wanted = 1
        self.gone = False  # whoever asked does not wait any more
        self.done = False

    def answer(self, outcome: Outputs | RequestError, stats: ModelStats) -> None:
        """Count how it ended, and tell whoever asked."""
        latency_ns = now_ns() - self.since_ns
        if isinstance(outcome, RequestError):
            stats.failed(latency_ns, outcome.status)
        else:
            stats.succeeded(latency_ns)
        self.tell(outcome)

    def tell(self, outcome: Outputs | RequestError) -> None:
        """Tell whoever asked, who is then let go of: a client may hold on to its job."""
        reply, self.reply, self.done = self.reply, _told, True
        try:
            reply(outcome)
        except Exception:  # whoever else is answered in the same breath must not pay for it
            LOG.exception("an answer broke the proxy")


class Refused:
    """A batch that the model refused: with one guilty request in it, or for being a batch."""

    def __init__(self, jobs: Sequence[Job], text: str) -> None:
        self.rows = sum(job.request.rows for job in jobs)
        self.text = text
        self._left = {*jobs}

    def cleared(self, job: Job) -> bool:
        """A job went well alone; whether they all have, and the batch itself was the trouble."""
        self._left.discard(job)
        return not self._left


def _told(_: Outputs | RequestError) -> None:
    """A job is answered once."""


class Whole:
    """A job that was spread over several workers, and what has come back of it."""

    def __init__(self, job: Job, parts: int) -> None:
        self.job = job
        self._outcomes: dict[int, Outputs] = {}
        self._parts = parts
        self._failed = False

    def collect(
        self, part: int, outcome: Outputs | RequestError
    ) -> list[Outputs] | RequestError | None:
        """All parts in order once the last one is there, the first error at once, else None."""
        if self._failed:
            return None
        if isinstance(outcome, RequestError):
            self._failed = True
            return outcome
        self._outcomes[part] = outcome
        if len(self._outcomes) < self._parts:
            return None
        return [self._outcomes[number] for number in range(self._parts)]


class WorkerSlot:
    """A worker as the dispatcher sees it: its link, the queue it takes from, what it has to do.

    A slot outlives its process: a replacement takes the place, the name and the weight.
    """

    def __init__(self, number: int, weight: float, link: WorkerLink) -> None:
        self.number = number
        self.name = f"worker-{number}"
        self.weight = weight
        self.link = link
        self.index = -1  # among the live ones, -1 while it is not one of them
        self.requests = 0
        self.restarts = 0
        self.batches: dict[int, list[Job]] = {}
        self.idle = asyncio.Event()  # set while it is not live and nothing runs on it
        self.queue: Batcher[Job]
        self.cache: Cache

    @property
    def running(self) -> list[Job]:
        """The batch that it is at; one that was committed ahead waits behind it."""
        return next(iter(self.batches.values()), [])

    @property
    def outstanding(self) -> int:
        """Requests that run on it, or wait for it alone."""
        return sum(map(len, self.batches.values())) + len(self.queue)
