"""A request on its way through the proxy, and the worker that it is on its way to. Pure."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from dlbench.proxy.dispatch.rows import spread
from dlbench.proxy.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.proxy.cache.cache import Cache
    from dlbench.proxy.dispatch.batcher import Batcher, Waiting
    from dlbench.proxy.request import InferRequest, Outputs, Reply
    from dlbench.proxy.tensors import Buffer, Signature


LOG = logging.getLogger(__name__)

# How fast the smoothed service time follows: about the last ten batches.
SMOOTHING: Final = 0.1


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
        self.home: Slot | None = None
        self.slot: Slot | None = None
        self.place: Waiting[Job] | None = None
        self.whole: Whole | None = None
        self.part = 0
        self.refused: Refused | None = None
        self.parts: tuple[Job, ...] = ()
        self.leader: Job | None = None
        self.wanted = 1
        self.gone = False  # whoever asked does not wait any more
        self.done = False

    def tell(self, outcome: Outputs | RequestError) -> None:
        """Tell whoever asked, who is then let go of: a client may hold on to its job."""
        reply, self.reply, self.done = self.reply, _told, True
        try:
            reply(outcome)
        except Exception:  # whoever else is answered in the same breath must not pay for it
            LOG.exception("an answer broke the proxy")

    def spread(self, signature: Signature, parts: int) -> None:
        """Cut it into so many parts, each a job."""
        whole = Whole(self, parts)
        requests = enumerate(spread(signature, self.request, parts))
        self.parts = tuple(self._part(whole, number, request) for number, request in requests)

    def _part(self, whole: Whole, number: int, request: InferRequest) -> Job:
        part = Job(request, self.reply, self.since_ns)
        part.deadline_ns, part.whole, part.part = self.deadline_ns, whole, number
        part.cache_key = b"%b%d" % (self.cache_key, number)
        request.trace = self.request.trace
        return part


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


class Slot(ABC):
    """A worker as the core sees it: the queue it takes from, what it has to do, and how to send it more.

    A slot outlives its process: a replacement takes the place, the name and the weight.
    """

    def __init__(self, number: int, weight: float) -> None:
        self.number = number
        self.name = f"worker-{number}"
        self.weight = weight
        self.index = -1  # among the live ones, -1 while it is not one of them
        self.requests = 0
        self.batches: dict[int, list[Job]] = {}
        self.queue: Batcher[Job]
        self.cache: Cache
        self.service_ns = 0.0  # of a batch, smoothed; 0 before the first
        # Since when the oldest batch has been running; None while it has nothing to do.
        self.running_since_ns: int | None = None

    @abstractmethod
    def send(
        self, number: int, rows: list[int], shapes: list[Sequence[int]], pieces: list[Buffer]
    ) -> None:
        """Hand a batch to the worker: the rows of each request, and per input its shape and bytes."""

    @abstractmethod
    def release(self) -> None:
        """It gets nothing any more, and all that it had to do is done."""

    @property
    def running(self) -> list[Job]:
        """The batch that it is at; one that was committed ahead waits behind it."""
        return next(iter(self.batches.values()), [])

    @property
    def outstanding(self) -> int:
        """Requests that run on it, or wait for it alone."""
        return sum(map(len, self.batches.values())) + len(self.queue)

    def begin(self, number: int, jobs: list[Job], now: int) -> None:
        """A batch is on its way there."""
        if not self.batches:
            self.running_since_ns = now
        self.batches[number] = jobs
        self.requests += len(jobs)

    def end(self, number: int, now: int) -> list[Job]:
        """A batch is back."""
        jobs = self.batches.pop(number)
        self.running_since_ns = now if self.batches else None
        return jobs

    def lose(self) -> list[Job]:
        """The process is gone; what ran on it is not done there."""
        jobs = [job for batch in self.batches.values() for job in batch]
        self.batches.clear()
        self.running_since_ns = None
        self.service_ns = 0.0
        return jobs

    def took(self, compute_ns: int) -> None:
        """Remember how long a batch took, smoothed."""
        before = self.service_ns or compute_ns
        self.service_ns = before + SMOOTHING * (compute_ns - before)
