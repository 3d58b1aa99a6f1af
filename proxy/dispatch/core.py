"""The heart of the proxy: what becomes of a request between being read and being answered. Pure.

Events come in, each with its time, and effects go out: to a `Sink`, and batches to the `Slot` of a
worker. The proxy runs this before links, a timer and a clock (`dispatcher.py`), the reference twin
under a clock of its own; both run the same rules.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final, Protocol

from dlbench.proxy.dispatch.admission import HELD_OFF, Admission, Closed
from dlbench.proxy.dispatch.batch_size import BatchSize, depends, unlike
from dlbench.proxy.dispatch.job import Refused
from dlbench.proxy.dispatch.queues import NS_PER_MS, Queues
from dlbench.proxy.dispatch.results import Results
from dlbench.proxy.dispatch.rows import gather, merge, scatter
from dlbench.proxy.dispatch.suspicion import FIRST_RUN_NS, FLOOR_NS, UsualTimes
from dlbench.proxy.errors import (
    BadRequest,
    ClientGone,
    DeadlineExceeded,
    Overloaded,
    RequestError,
    WorkerFailed,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from dlbench.proxy.cache.backend import Backend
    from dlbench.proxy.cache.cache import Cache
    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.dispatch.batcher import Batcher
    from dlbench.proxy.dispatch.job import Job, Slot, Whole
    from dlbench.proxy.request import Outputs
    from dlbench.proxy.telemetry.stats import ModelStats
    from dlbench.proxy.tensors import Signature
    from dlbench.proxy.workers.frames import Result

LOG = logging.getLogger(__name__)

NS_PER_S: Final = 1e9
# A second batch is committed to a busy worker only while batches are shorter than this: it hides
# the way there and back (+32 % with a sub-millisecond model), but a longer one would wait behind
# its predecessor when another worker may be free sooner.
PREFETCH_BELOW_NS: Final = 5_000_000
# A request that was there when two workers died is suspected of killing them.
MOST_DEATHS: Final = 2


class Sink(Protocol):
    """What the core has done to the world outside."""

    def finish(self, job: Job, outcome: Outputs | RequestError) -> None:
        """Answer a job that was taken; this may come back with the next event before it returns."""
        ...

    def fetch(self, job: Job) -> None:
        """Ask the cache's backend for a job's answer, and tell it to `fetched`."""
        ...

    def wake_at(self, when_ns: int) -> None:
        """Call `tick` then; what was asked for before stays asked for."""
        ...

    def limit_batches(self, rows: int, why: str) -> None:
        """The model gets no more rows than so many in a batch any more."""
        ...


class Core:
    """Answers each job exactly once; `now` is in nanoseconds, and never less than before."""

    def __init__(
        self,
        signature: Signature,
        config: ServingConfig,
        backend: Backend,
        stats: ModelStats,
        sink: Sink,
    ) -> None:
        self.in_flight = 0
        self.served_per_s = math.inf  # what the workers can do, as whoever watches over us says
        self.over = False
        self._signature, self._backend, self._stats, self._sink = signature, backend, stats, sink
        self._now = self._number = 0
        self._admission: Admission | Closed
        self._results = Results(backend, signature)
        self._size = BatchSize(signature, sink.limit_batches)
        self._usual = UsualTimes()
        self._leaving: set[Slot] = set()  # what they run is not done yet
        self._suspects: set[Slot] = set()  # they get nothing until they have answered
        self.queues = Queues(config, 1)
        self.configure(config, 0)

    @property
    def live(self) -> Sequence[Slot]:
        """The workers that get work."""
        return self.queues.live

    @property
    def waiting(self) -> int:
        """Requests in queues."""
        return self.queues.waiting

    @property
    def looks_up(self) -> bool:
        """Whether requests are looked up before they are queued."""
        return self._results.active

    @property
    def caches(self) -> list[Cache]:
        """The result caches: one, or one per live worker."""
        return (
            [s.cache for s in self._slots] if self._results.per_worker else [self._results.shared]
        )

    def home(self, key: bytes) -> Slot | None:
        """The worker in whose cache a result belongs; None where all share one."""
        return self.queues.home(key) if self._results.per_worker else None

    @property
    def _slots(self) -> list[Slot]:
        """The workers that get work, or will when they have answered."""
        return [*self.queues.live, *self._suspects]

    # Events

    def configure(self, config: ServingConfig, now: int) -> None:
        """Change every knob that needs no restart; what waits is queued again, the cache is empty."""
        self._now = now
        self._forget()
        self.config = config
        self._open()
        self._timeout_ns = int(config.default_timeout_ms * NS_PER_MS)
        self._commits = config.queue_order == "fifo"
        self._size.configure(config)
        waiting = self.queues.configure(config, self._size.limit)
        self._results.configure(config, shares=self.queues.shares)
        self.needs_key = self._results.active or self.queues.needs_key
        for slot in self._slots:
            slot.cache = self._results.new_cache()
        self._run_again(waiting)

    def submit(self, job: Job, now: int) -> None:
        """A job is there; with `needs_key` it has its cache key."""
        self._now = now
        if self._results.active:
            self._look_up(job)
        else:
            self._admit(job)

    def fetched(self, job: Job, found: Outputs | None, now: int) -> None:
        """The cache's backend has answered."""
        self._now = now
        outputs = self._results.fetched(job, found, now)
        if outputs is None:
            self._missed(job)
            return
        followers = self._results.land(job)
        self._hit(job, outputs)
        for follower in followers:
            self._sink.finish(follower, outputs)

    def abandon(self, job: Job, now: int) -> None:
        """Whoever asked has gone; what nobody waits for and has not begun is not computed."""
        self._now = now
        if job.done:
            return
        job.gone = True
        leader = job.leader or job
        leader.wanted -= 1
        if leader.wanted:
            return
        for part in leader.parts or (leader,):
            if self.queues.withdraw(part):
                self._finish(part, ClientGone())

    def join(self, slot: Slot, now: int) -> None:
        """A worker that is ready gets work from now on."""
        self._now = now
        slot.cache = self._results.new_cache()
        self._open()
        self._run_again(self.queues.join(slot))
        self._pump(slot)
        self._suspect()

    def leave(self, slot: Slot, now: int) -> None:
        """A worker gets nothing more; it leaves once what it runs is done."""
        self._now = now
        if slot.index >= 0:
            self._leaving.add(slot)
            self._run_again(self.queues.leave(slot))
        elif slot in self._suspects:
            self._suspects.discard(slot)
            self._leaving.add(slot)
        self._let_go(slot)

    def result(self, slot: Slot, number: int, result: Result | str, now: int) -> None:
        """A batch is back, or why the model refused it."""
        self._now = now
        jobs = slot.end(number, now)
        if jobs:
            self._take(slot, jobs, result)
        else:  # it was taken back, and answered elsewhere
            self._clear(slot)
        self._pump(slot)
        self._let_go(slot)

    def lost(self, slot: Slot, now: int, *, blame: bool) -> None:
        """A worker died: its requests run again elsewhere, one by one.

        `blame` says that what it ran may have killed it.
        """
        self._now = now
        # A second batch, committed ahead, has not been looked at.
        suspects = slot.running if blame else []
        jobs = slot.lose()
        self.leave(slot, now)
        for job in jobs:
            job.deaths += job in suspects
            if job.deaths >= MOST_DEATHS:
                self._finish(job, WorkerFailed("two workers died while they ran this request"))
            else:
                self._run_alone([job])

    def tick(self, now: int) -> None:
        """It is as late as `wake_at` or `next_ns` said."""
        self._now = now
        for queue in self.queues.all():
            self._expire(queue)
        self._suspect()
        for slot in list(self.queues.live):
            self._pump(slot)

    def hold_off(self, pause_s: float) -> None:
        """Until a worker joins, whoever comes is answered 503; who waits already goes on waiting."""
        if not self.over:
            self._admission = Closed(HELD_OFF, math.ceil(pause_s))

    def shutdown(self, why: str, now: int) -> None:
        """What is still unanswered is answered 503, and so is whatever comes from now on."""
        self._now = now
        self.over = True
        self._admission = Closed(why)
        self._forget()
        left = self.queues.drain()
        for slot in [*self._slots, *self._leaving]:
            left += slot.lose()
            self.leave(slot, now)
        for job in left:
            self._finish(job, Overloaded(why))

    def next_ns(self) -> int | None:
        """When `tick` has something to do next, if nothing else happens until then."""
        live = self.queues.live
        dues = [self.queues.queue_of(slot).due_ns() for slot in live if not slot.batches]
        dues += [queue.next_deadline_ns() for queue in self.queues.all()]
        if len(live) > 1:
            dues += [self._suspected_ns(slot) for slot in live]
        return min(filter(None, dues), default=None)

    # On the way in

    def _look_up(self, job: Job) -> None:
        results = self._results
        job.home = self.home(job.cache_key)
        found = results.find(job, self._now)
        if found is not None:
            self._hit(job, found)
        elif results.join(job):
            self._stats.joined()
        elif self._backend:
            self._sink.fetch(job)
        else:
            self._missed(job)

    def _hit(self, job: Job, outputs: Outputs) -> None:
        self._stats.cache_hit(self._now - job.since_ns)
        self._sink.finish(job, outputs)

    def _missed(self, job: Job) -> None:
        self._stats.cache_miss(self._now - job.since_ns)
        self._admit(job)

    def _admit(self, job: Job) -> None:
        try:
            if not job.wanted:  # all went while it was looked up
                raise ClientGone
            self._admission.check(self.queues.waiting, self.served_per_s)
        except RequestError as error:
            self._stats.refused(error.status)
            followers = self._results.land(job)
            job.tell(error)
            self._tell_joined(followers, error)
            return
        timeout_ns = job.request.layout.timeout_ns or self._timeout_ns
        if timeout_ns:
            job.deadline_ns = job.since_ns + timeout_ns
        self.in_flight += 1
        parts = self._parts(job.request.rows)
        if parts > 1:
            job.spread(self._signature, parts)
            for part in job.parts:
                self._run(part, part.request.batch_key)
        else:
            self._run(job, job.request.batch_key)

    def _parts(self, rows: int) -> int:
        """Over how many workers a request is spread: none of them gets less than half a batch."""
        most = self.config.split_batch_over
        if most == 1 or rows <= self.config.max_batch_size or not self._size.shared:
            return 1
        return min(most, -(-rows // self.config.max_batch_size), max(1, len(self.live)))

    def _run(self, job: Job, batch_key: Hashable) -> None:
        """Queue a job where the policy says, and see whether a worker takes it at once."""
        slot = self.queues.choose(job.cache_key, job.home)
        self.queues.add(job, batch_key, slot)
        if job.deadline_ns:
            self._sink.wake_at(job.deadline_ns)
        if slot is None:
            self._pump_shared()
        else:
            self._pump(slot)

    def _run_again(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._again(job, job.request.batch_key)

    def _run_alone(self, jobs: Iterable[Job]) -> None:
        """Run each again, in a batch of its own."""
        for job in jobs:
            self._again(job, ("alone", id(job)))

    def _again(self, job: Job, batch_key: Hashable) -> None:
        whole = job if job.whole is None else job.whole.job
        if whole.wanted:
            job.home = None
            self._run(job, batch_key)
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

    def _pump(self, slot: Slot) -> None:
        """Give a worker what is due, up to one batch running and one committed."""
        queue = self.queues.queue_of(slot)
        while self._can_take(slot, queue):
            if self._expire(queue):
                continue  # whoever heard of it may have asked for something else
            jobs = queue.cut(self._now)
            if jobs:
                self._send(slot, jobs)
                continue
            if (due_ns := queue.due_ns()) is not None:
                self._sink.wake_at(due_ns)
            return

    def _can_take(self, slot: Slot, queue: Batcher[Job]) -> bool:
        if slot.index < 0:
            return False
        if not slot.batches:
            return True
        short = 0 < slot.service_ns < PREFETCH_BELOW_NS
        return len(slot.batches) == 1 and self._commits and short and queue.is_full()

    def _expire(self, queue: Batcher[Job]) -> bool:
        """Answer what has waited for too long; whether there was anything."""
        expired = queue.expire(self._now)
        for job in expired:
            self.queues.taken_back(job)
            self._finish(job, DeadlineExceeded("the deadline passed before the request could run"))
        return bool(expired)

    def _send(self, slot: Slot, jobs: list[Job]) -> None:
        now = self._now
        requests = [job.request for job in jobs]
        rows = [request.rows for request in requests]
        total = sum(rows)
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        slot.begin(number, jobs, now)
        self.queues.waiting -= len(jobs)
        waits = [now - job.since_ns for job in jobs]
        self._stats.batch_sent(total, waits)
        for request, wait_ns in zip(requests, waits, strict=True):
            if request.trace is not None:
                request.trace.queue_ns, request.trace.batch_rows = wait_ns, total
        slot.send(number, rows, *gather(self._signature, requests, total))
        self._sink.wake_at(now + FLOOR_NS)  # time to look whether it is back

    # And back

    def _take(self, slot: Slot, jobs: list[Job], result: Result | str) -> None:
        """A batch's jobs are answered, or run again."""
        rows = sum([job.request.rows for job in jobs])
        compute_ns = 0
        if not isinstance(result, str):
            compute_ns = result.compute_ns
            slot.took(compute_ns)
            self._usual.took(jobs[0].request.layout.row_shapes, rows, compute_ns)
            self._stats.batch_done(len(jobs), rows, result.input_ns, compute_ns, result.output_ns)
        self.queues.ended(slot, len(jobs), rows, compute_ns)
        self._clear(slot)
        self._pump(slot)  # the worker first: it can go on while the answers are written
        if isinstance(result, str):
            self._refused(jobs, result)
            return
        self._size.adapt(rows, self._now - jobs[0].since_ns, compute_ns)
        self._size.learn(jobs, result.tensors, rows)
        self._limit_batches()
        for job in jobs:
            if job.request.trace is not None:
                job.request.trace.compute_ns = compute_ns
        self._answer(jobs, result.tensors)

    def _limit_batches(self) -> None:
        if self._size.limit != self.queues.rows:
            self.queues.limit_batches(self._size.limit)

    def _refused(self, jobs: list[Job], text: str) -> None:
        """The model refused a batch: each request is run alone, so that only the guilty one fails."""
        if len(jobs) == 1:
            self._finish(jobs[0], BadRequest(f"the model refused the request: {text}"))
            return
        refused = Refused(jobs, text)
        for job in jobs:
            job.refused = refused
        self._run_alone(jobs)

    def _answer(self, jobs: list[Job], tensors: Outputs) -> None:
        if len(jobs) == 1:
            self._finish(jobs[0], tensors)
        elif not self._size.shared:  # what fits may fit by chance
            self._run_alone(jobs)
        else:
            found = scatter(self._signature, tensors, [job.request.rows for job in jobs])
            for job, outputs in zip(jobs, found, strict=True):
                self._finish(job, outputs)

    def _finish(self, job: Job, outcome: Outputs | RequestError) -> None:
        """Answer a job and all that joined it, and keep the result."""
        if job.whole is not None:
            self._collect(job, job.whole, outcome)
            return
        self.in_flight -= 1
        job.parts = ()  # they hold on to it
        followers: list[Job] = []
        if job.cache_key:
            self._results.keep(job, outcome, self._now)
            followers = self._results.land(job)
        self._sink.finish(job, outcome)
        self._tell_joined(followers, outcome)

    def _tell_joined(self, followers: Iterable[Job], outcome: Outputs | RequestError) -> None:
        for follower in followers:
            if isinstance(outcome, DeadlineExceeded) and not follower.gone:  # that was not theirs
                self._look_up(follower)
            else:
                self._sink.finish(follower, outcome)

    def _collect(self, part: Job, whole: Whole, outcome: Outputs | RequestError) -> None:
        found = whole.collect(part.part, outcome)
        if isinstance(found, RequestError):
            self._finish(whole.job, found)
        elif found is not None:
            self._merge(whole.job, found)

    def _merge(self, job: Job, parts: list[Outputs]) -> None:
        """Answer a job from its parts, if these show that a part is answered as the whole would be."""
        if name := unlike(self._signature, parts):
            self._size.shrink(1, depends(name))
            self._limit_batches()
        if self._size.shared:
            self._finish(job, merge(self._signature, parts))
        else:
            self._run_alone([job])

    # Workers that seem to hang

    def _suspect(self) -> None:
        """Set aside whoever runs one batch for far longer than usual, but for the last one."""
        for slot in list(self.queues.live):
            due_ns = self._suspected_ns(slot)
            if due_ns is None:
                continue
            if due_ns > self._now:
                self._sink.wake_at(due_ns)
            elif len(self.queues.live) > 1:
                self._set_aside(slot)

    def _suspected_ns(self, slot: Slot) -> int | None:
        """When to look whether a worker hangs; None while it has nothing to do."""
        since_ns, jobs = slot.running_since_ns, slot.running
        if since_ns is None:
            return None
        if since_ns + FLOOR_NS > self._now:  # nobody is suspected sooner
            return since_ns + FLOOR_NS
        if not jobs:  # the batch was taken back before it began
            return since_ns + FIRST_RUN_NS
        rows = sum([job.request.rows for job in jobs])
        return since_ns + self._usual.patience_ns(jobs[0].request.layout.row_shapes, rows)

    def _set_aside(self, slot: Slot) -> None:
        """Nothing new for a worker that seems to hang; what it has not begun is run elsewhere."""
        ran_s = (self._now - (slot.running_since_ns or 0)) / NS_PER_S
        LOG.warning("%s seems to hang: one batch runs for %.1f s", slot.name, ran_s)
        self._suspects.add(slot)
        waiting = self.queues.leave(slot)
        for number in list(slot.batches)[1:]:
            waiting += slot.batches[number]
            slot.batches[number] = []  # when it is answered, nobody is told
        self._run_again(waiting)

    def _clear(self, slot: Slot) -> None:
        """It has answered: it is a worker like any other."""
        if slot in self._suspects:
            LOG.warning("%s answers again", slot.name)
            self._suspects.discard(slot)
            self._run_again(self.queues.join(slot))
            self._suspect()  # one that hangs too may no longer be the last

    # At the end

    def _let_go(self, slot: Slot) -> None:
        """Whoever waits for a worker that is to leave hears that it does."""
        if slot.index < 0 and not slot.batches:
            self._leaving.discard(slot)
            slot.cache.clear(self._now)
            slot.release()

    def _open(self) -> None:
        if not self.over:
            self._admission = Admission(self.config.max_queue_size)

    def _forget(self) -> None:
        """Empty the caches; what only they know goes to the backend."""
        for cache in self.caches:
            cache.clear(self._now)
