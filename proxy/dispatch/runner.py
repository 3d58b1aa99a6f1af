"""Batches to the workers of a model, and their results back: what runs where, and what when one dies."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from dlbench.proxy.clock import now_ns
from dlbench.proxy.dispatch.batch_limit import BATCH_LIMITS
from dlbench.proxy.dispatch.job import Refused
from dlbench.proxy.dispatch.output_shapes import OutputShapes
from dlbench.proxy.dispatch.queues import NS_PER_MS, Queues
from dlbench.proxy.dispatch.rows import gather, scatter
from dlbench.proxy.dispatch.suspicion import FIRST_RUN_NS, FLOOR_NS, UsualTimes
from dlbench.proxy.dispatch.timer import make_timer
from dlbench.proxy.errors import (
    BadRequest,
    BrokenFrame,
    ClientGone,
    DeadlineExceeded,
    RequestError,
    WorkerFailed,
)
from dlbench.proxy.workers.frames import Result, encode_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.dispatch.batch_limit import BatchLimit
    from dlbench.proxy.dispatch.batcher import Batcher
    from dlbench.proxy.dispatch.job import Job, WorkerSlot
    from dlbench.proxy.request import Outputs
    from dlbench.proxy.telemetry.stats import ModelStats
    from dlbench.proxy.tensors import Signature
    from dlbench.proxy.workers.link import WorkerLink

LOG = logging.getLogger(__name__)

NS_PER_S = 1e9
# A second batch is committed to a busy worker only while batches are shorter than this: it hides
# the way there and back (+32 % with a sub-millisecond model), but a longer one would wait behind
# its predecessor when another worker may be free sooner.
PREFETCH_BELOW_NS = 5_000_000
# A request that was there when two workers died is suspected of killing them.
MOST_DEATHS = 2
# As many as the knob takes, and more.
MOST_ROWS = 1 << 16


class Runner:
    """Runs jobs; `finish` is called once with each and what came of it, `on_lost` with dead workers."""

    def __init__(
        self,
        signature: Signature,
        config: ServingConfig,
        stats: ModelStats,
        finish: Callable[[Job, Outputs | RequestError], None],
        on_lost: Callable[[WorkerSlot], None],
        on_less: Callable[[int, str], None],
    ) -> None:
        """`on_less` hears of smaller batches from now on: the most rows, and why."""
        self._signature, self._stats = signature, stats
        self._finish, self._tell_lost, self._tell_less = finish, on_lost, on_less
        self._shapes = OutputShapes(signature)
        # More rows than this the model has shown not to take together; a new knob changes nothing.
        self._most_rows = MOST_ROWS if signature.batchable else 1
        self._number = 0
        self._timer = make_timer(asyncio.get_running_loop(), self._on_time)
        self._leaving: set[WorkerSlot] = set()  # what they run is not done yet
        self._suspects: set[WorkerSlot] = set()  # they get nothing until they have answered
        self._usual = UsualTimes()
        self.queues = Queues(config, 1)
        self.configure(config)

    @property
    def slots(self) -> list[WorkerSlot]:
        """The workers that get work, or will when they have answered."""
        return [*self.queues.live, *self._suspects]

    def configure(self, config: ServingConfig) -> list[Job]:
        """Take other knobs; what waited comes back, to be run again."""
        self._config = config
        self._limit = self._new_limit()
        self._commits = config.queue_order == "fifo"
        return self.queues.configure(config, self._limit.limit)

    @property
    def batches(self) -> bool:
        """Whether rows may share a batch."""
        return self._most_rows > 1

    def _new_limit(self) -> BatchLimit:
        most = min(self._config.max_batch_size, self._most_rows)
        return BATCH_LIMITS[self._config.batching](most, int(self._config.slo_ms * NS_PER_MS))

    def batch_less(self, rows: int, why: str) -> None:
        """Never again more rows than so many in one batch, and one line that says why."""
        if rows < self._most_rows:
            self._most_rows = rows
            self._limit = self._new_limit()
            self.queues.limit_batches(self._limit.limit)
            self._tell_less(rows, why)

    def join(self, slot: WorkerSlot) -> None:
        """A worker that is ready gets work from now on."""
        link = slot.link
        link.on_result = partial(self._on_result, slot)
        link.on_lost = partial(self._on_lost, slot)
        self.run_again(self.queues.join(slot))
        self._pump(slot)
        self._suspect(now_ns())
        if not link.alive:  # it died between its hello and now, when nobody listened
            self._on_lost(slot, link)

    def leave(self, slot: WorkerSlot) -> None:
        """A worker gets nothing more; it is idle once what it runs is done."""
        if slot.index >= 0:
            self._leaving.add(slot)
            self.run_again(self.queues.leave(slot))
            self._let_go(slot)
        elif slot in self._suspects:
            self._suspects.discard(slot)
            self._leaving.add(slot)

    def shutdown(self) -> list[Job]:
        """Run nothing any more; returns all that was not finished."""
        self._timer.close()
        left = self.queues.drain()
        for slot in [*self.slots, *self._leaving]:
            left += self._taken_from(slot)
            slot.link.on_result = lambda *_: None
            slot.link.on_lost = lambda _: None
            self.leave(slot)
            self._let_go(slot)
        return left

    def wake_at(self, when_ns: int) -> None:
        """Look for what has expired at that time."""
        self._timer.at(when_ns)

    def run(self, job: Job, batch_key: Hashable) -> None:
        """Queue a job where the policy says, and see whether a worker takes it at once."""
        slot = self.queues.choose(job.cache_key, job.home)
        self.queues.add(job, batch_key, slot)
        if slot is None:
            self._pump_shared()
        else:
            self._pump(slot)

    def withdraw(self, job: Job) -> bool:
        """Take a job out of its queue; False if it has begun, or is done."""
        return self.queues.withdraw(job)

    def run_again(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._again(job, job.request.batch_key)

    def run_alone(self, jobs: Iterable[Job]) -> None:
        """Run each again, in a batch of its own."""
        for job in jobs:
            self._again(job, ("alone", id(job)))

    def _again(self, job: Job, batch_key: Hashable) -> None:
        whole = job if job.whole is None else job.whole.job
        if whole.wanted:
            job.home = None
            self.run(job, batch_key)
        else:
            self._finish(job, ClientGone())

    # To the workers

    def _pump_shared(self) -> None:
        """Offer the shared queue to idle workers first, then to one that may take a second batch."""
        live = self.queues.live
        for slot in live:
            if not slot.batches:
                self._pump(slot)
                return
        if self.queues.shared.is_full():
            for slot in live:
                self._pump(slot)

    def _on_time(self) -> None:
        """A delay is over or a deadline has passed."""
        now = now_ns()
        for queue in self.queues.all():
            self._expire(queue, now)
        self._suspect(now)
        for slot in list(self.queues.live):
            self._pump(slot)

    def _suspect(self, now: int) -> None:
        """Set aside whoever runs one batch for far longer than usual, but for the last one."""
        for slot in list(self.queues.live):
            since_ns = slot.link.running_since_ns
            if since_ns is None or not slot.batches:
                continue
            due = since_ns + FLOOR_NS
            if due <= now:
                due = since_ns + self._patience_ns(slot.running)
            if due > now:
                self._timer.at(due)
            elif len(self.queues.live) > 1:
                self._set_aside(slot, now - since_ns)

    def _patience_ns(self, jobs: list[Job]) -> int:
        if not jobs:  # the batch was taken back before it began
            return FIRST_RUN_NS
        rows = sum([job.request.rows for job in jobs])
        return self._usual.patience_ns(jobs[0].request.layout.row_shapes, rows)

    def _set_aside(self, slot: WorkerSlot, ran_ns: int) -> None:
        """Nothing new for a worker that seems to hang; what it has not begun is run elsewhere."""
        LOG.warning("%s seems to hang: one batch runs for %.1f s", slot.name, ran_ns / NS_PER_S)
        self._suspects.add(slot)
        waiting = self.queues.leave(slot)
        for number in list(slot.batches)[1:]:
            waiting += slot.batches[number]
            slot.batches[number] = []  # when it is answered, nobody is told
        self.run_again(waiting)

    def _clear(self, slot: WorkerSlot) -> None:
        """It has answered: it is a worker like any other."""
        if slot in self._suspects:
            LOG.warning("%s answers again", slot.name)
            self._suspects.discard(slot)
            self.run_again(self.queues.join(slot))
            self._suspect(now_ns())  # one that hangs too may no longer be the last

    def _expire(self, queue: Batcher[Job], now: int) -> bool:
        """Answer what has waited for too long; whether there was anything."""
        expired = queue.expire(now)
        for job in expired:
            self.queues.taken_back(job)
            self._finish(job, DeadlineExceeded("the deadline passed before the request could run"))
        if (due := queue.next_deadline_ns()) is not None:
            self._timer.at(due)
        return bool(expired)

    def _pump(self, slot: WorkerSlot) -> None:
        """Give a worker what is due, up to one batch running and one committed."""
        queue = self.queues.queue_of(slot)
        while self._can_take(slot, queue):
            now = now_ns()
            if self._expire(queue, now):
                continue  # whoever heard of it may have asked for something else
            jobs = queue.cut(now)
            if not jobs:
                due = queue.due_ns()
                if due is not None:
                    self._timer.at(due)
                return
            self._send(slot, jobs, now)

    def _can_take(self, slot: WorkerSlot, queue: Batcher[Job]) -> bool:
        if slot.index < 0:
            return False
        if not slot.batches:
            return True
        short = 0 < slot.link.service_ns < PREFETCH_BELOW_NS
        return len(slot.batches) == 1 and self._commits and short and queue.is_full()

    def _send(self, slot: WorkerSlot, jobs: list[Job], now: int) -> None:
        requests = [job.request for job in jobs]
        rows = [request.rows for request in requests]
        total = sum(rows)
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        slot.batches[number] = jobs
        slot.requests += len(jobs)
        self.queues.waiting -= len(jobs)
        waits = [now - job.since_ns for job in jobs]
        self._stats.batch_sent(total, waits)
        for request, wait_ns in zip(requests, waits, strict=True):
            if request.trace is not None:
                request.trace.queue_ns, request.trace.batch_rows = wait_ns, total
        slot.link.send(encode_batch(number, rows, *gather(self._signature, requests, total)))
        self._timer.at(now + FLOOR_NS)  # time to look whether it is back

    # And back

    def _on_result(
        self, slot: WorkerSlot, link: WorkerLink, number: int, result: Result | str
    ) -> None:
        if number not in slot.batches:
            raise BrokenFrame("an answer to nothing that was asked")
        rows = sum([job.request.rows for job in slot.batches[number]])
        if rows and not isinstance(result, str):
            link.check(self._signature, result, rows)
        jobs = slot.batches.pop(number)
        compute_ns = 0
        if not rows:  # taken back: it was answered elsewhere
            self._clear(slot)
            self._pump(slot)
            self._let_go(slot)
            return
        if not isinstance(result, str):
            compute_ns = result.compute_ns
            link.took(compute_ns)
            self._usual.took(jobs[0].request.layout.row_shapes, rows, compute_ns)
            self._stats.batch_done(len(jobs), rows, result.input_ns, compute_ns, result.output_ns)
        self.queues.ended(slot, len(jobs), rows, compute_ns)
        self._clear(slot)
        self._pump(slot)  # the worker first: it can go on while the answers are written
        if isinstance(result, str):
            self._on_refused(jobs, result)
        else:
            self._adapt(rows, now_ns() - jobs[0].since_ns, compute_ns)
            for job in jobs:
                if job.request.trace is not None:
                    job.request.trace.compute_ns = compute_ns
            self._answer(jobs, result.tensors, rows)
        self._pump(slot)
        self._let_go(slot)

    def _on_refused(self, jobs: list[Job], text: str) -> None:
        """The model refused a batch: each request is run alone, so that only the guilty one fails."""
        if len(jobs) == 1:
            self._finish(jobs[0], BadRequest(f"the model refused the request: {text}"))
            return
        refused = Refused(jobs, text)
        for job in jobs:
            job.refused = refused
        self.run_alone(jobs)

    def _answer(self, jobs: list[Job], tensors: Outputs, rows: int) -> None:
        if self.batches:
            self._look_at(jobs, tensors, rows)
        if len(jobs) == 1:
            self._finish(jobs[0], tensors)
            return
        if not self.batches:  # what fits may fit by chance
            self.run_alone(jobs)
            return
        found = scatter(self._signature, tensors, [job.request.rows for job in jobs])
        for job, outputs in zip(jobs, found, strict=True):
            self._finish(job, outputs)

    def _look_at(self, jobs: list[Job], tensors: Outputs, rows: int) -> None:
        """Learn from a result whether the model should get smaller batches."""
        job = jobs[0]
        if name := self._shapes.misfit(job.request.layout.row_shapes, tensors, rows):
            self.batch_less(1, f"the shape of output {name!r} depends on the data")
        elif job.refused is not None and job.refused.cleared(job):
            self.batch_less(job.refused.rows // 2, f"it refused more: {job.refused.text}")

    def _adapt(self, rows: int, latency_ns: int, compute_ns: int) -> None:
        before = self._limit.limit
        self._limit.observe(rows, max(0, latency_ns - compute_ns), compute_ns)
        if self._limit.limit != before:
            self.queues.limit_batches(self._limit.limit)

    def _on_lost(self, slot: WorkerSlot, link: WorkerLink) -> None:
        """A worker died: its requests run again elsewhere, one by one."""
        # A second batch, committed ahead, has not been looked at; and nonsense is no request's fault.
        suspects = [] if link.broken else slot.running
        lost = self._taken_from(slot)
        self.leave(slot)
        self._let_go(slot)
        self._tell_lost(slot)
        for job in lost:
            job.deaths += job in suspects
            if job.deaths >= MOST_DEATHS:
                self._finish(job, WorkerFailed("two workers died while they ran this request"))
            else:
                self.run_alone([job])

    def _taken_from(self, slot: WorkerSlot) -> list[Job]:
        """What runs on a worker, and will not be done there."""
        jobs = [job for batch in slot.batches.values() for job in batch]
        slot.batches.clear()
        return jobs

    def _let_go(self, slot: WorkerSlot) -> None:
        """Whoever waits for a worker that left to be idle hears that it is."""
        if slot.index < 0 and not slot.batches:
            self._leaving.discard(slot)
            slot.cache.clear(now_ns())
            slot.idle.set()
