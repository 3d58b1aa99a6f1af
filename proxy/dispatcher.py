"""The middle of the proxy: cache, admission, policy, batcher, workers, and back to who asked."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING

from dlbench.proxy.admission import Admission
from dlbench.proxy.batch_limit import BATCH_LIMITS
from dlbench.proxy.cache import NoCache
from dlbench.proxy.cache_key import KeyMaker
from dlbench.proxy.clock import now_ns
from dlbench.proxy.errors import (
    BadRequest,
    DeadlineExceeded,
    Overloaded,
    RequestError,
    WorkerFailed,
)
from dlbench.proxy.frames import Result, encode_batch
from dlbench.proxy.job import Job, Seat, Whole
from dlbench.proxy.lineup import NS_PER_MS, Lineup
from dlbench.proxy.results import Results
from dlbench.proxy.rows import gather, merge, scatter, spread
from dlbench.proxy.timer import make_timer

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from dlbench.proxy.backend import Backend
    from dlbench.proxy.batcher import Batcher
    from dlbench.proxy.cache import Cache
    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.link import WorkerLink
    from dlbench.proxy.request import InferRequest, Outputs, Reply
    from dlbench.proxy.stats import ModelStats
    from dlbench.proxy.tensors import Signature

# A second batch is committed to a busy worker only while batches are shorter than this: it hides
# the way there and back (+32 % with a sub-millisecond model), but a longer one would wait behind
# its predecessor when another worker may be free sooner.
PREFETCH_BELOW_NS = 5_000_000
# A request that was there when two workers died is suspected of killing them.
MOST_DEATHS = 2
STOPPING = "the proxy is stopping"


class Closed:
    """Admission after the end: nobody is taken."""

    def check(self, waiting: int, served_per_s: float) -> None:  # noqa: ARG002 - as Admission has it
        """Raise Overloaded."""
        raise Overloaded(STOPPING)


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
        self.in_flight = 0
        self.served_per_s = math.inf  # by all workers when busy, as whoever watches over us says
        self.on_lost: Callable[[Seat], None] = lambda _: None
        self._signature = signature
        self._results = Results(backend, stats)
        self._keys = KeyMaker(identity)
        self._number = 0
        self._timer = make_timer(asyncio.get_running_loop(), self._on_time)
        self._lineup = Lineup(config, 1)
        self._leaving: set[Seat] = set()  # what they run is not done yet
        self._cache: Cache = NoCache()
        self._per_worker = False
        self.configure(config)

    @property
    def live(self) -> Sequence[Seat]:
        """The workers that get work."""
        return self._lineup.live

    @property
    def waiting(self) -> int:
        """Requests in queues."""
        return self._lineup.waiting

    @property
    def looks_up(self) -> bool:
        """Whether requests are looked up before they are queued."""
        return self._results.active

    @property
    def caches(self) -> list[Cache]:
        """The result caches: one, or one per live worker."""
        return [seat.cache for seat in self.live] if self._per_worker else [self._cache]

    def configure(self, config: ServingConfig) -> None:
        """Change every knob that needs no restart; what waits is queued again, the cache is empty."""
        self._forget()
        self.config = config
        most = config.max_batch_size if self._signature.batchable else 1
        self._limit = BATCH_LIMITS[config.batching](most, int(config.slo_ms * NS_PER_MS))
        self._admission: Admission | Closed = Admission(config.max_queue_size)
        self._timeout_ns = int(config.default_timeout_ms * NS_PER_MS)
        self._commits = config.queue_order == "fifo"
        waiting = self._lineup.configure(config, self._limit.limit)
        self._per_worker = config.cache_scope == "worker" and not self._lineup.shares
        self._results.configure(config)
        self._cache = self._results.new_cache()
        self._needs_key = self._results.active or self._lineup.needs_key
        for seat in self.live:
            seat.cache = self._new_cache()
        self._requeue(waiting)

    def submit(self, request: InferRequest, reply: Reply) -> None:
        """Take a request; `reply` is called once, perhaps before this returns."""
        self.stats.received()
        job = Job(request, reply, now_ns())
        if self._needs_key:
            job.cache_key = self._keys.key(request)
        if self._results.active:
            self._look_up(job)
        else:
            self._admit(job)

    def join(self, seat: Seat) -> None:
        """A worker that is ready gets work from now on."""
        link = seat.link
        link.on_result = partial(self._on_result, seat)
        link.on_lost = partial(self._on_lost, seat)
        seat.cache = self._new_cache()
        self._requeue(self._lineup.join(seat))
        self._pump(seat)
        if not link.alive:  # it died between its hello and now, when nobody listened
            self._on_lost(seat, link)

    def leave(self, seat: Seat) -> None:
        """A worker gets nothing more; it is idle once what it runs is done."""
        if seat.index >= 0:
            self._leaving.add(seat)
            self._requeue(self._lineup.leave(seat))
            self._let_go(seat)

    def shutdown(self) -> None:
        """What is still unanswered is answered 503, and so is whatever comes from now on."""
        self._admission = Closed()
        self._timer.close()
        self._forget()
        left = self._lineup.drain()
        for seat in [*self.live, *self._leaving]:
            left += self._taken_from(seat)
            seat.link.on_result = lambda *_: None
            seat.link.on_lost = lambda _: None
            self.leave(seat)
            self._let_go(seat)
        for job in left:
            self._finish(job, Overloaded(STOPPING))

    # On the way in

    def _look_up(self, job: Job) -> None:
        job.home = self._lineup.home(job.cache_key) if self._per_worker else None
        self._results.find(job, self._cache_of(job), self._admit)

    def _admit(self, job: Job) -> None:
        try:
            self._admission.check(self._lineup.waiting, self.served_per_s)
        except Overloaded as error:
            self.stats.refused(error.status)
            self._tell_joined(job, error)
            job.reply(error)
            return
        timeout_ns = job.request.layout.timeout_ns or self._timeout_ns
        if timeout_ns:
            job.deadline_ns = job.since_ns + timeout_ns
            self._timer.at(job.deadline_ns)
        self.in_flight += 1
        parts = self._parts(job.request.rows)
        if parts > 1:
            self._spread(job, parts)
        else:
            self._enqueue(job, job.request.batch_key)

    def _parts(self, rows: int) -> int:
        """Over how many workers a request is spread: none of them gets less than half a batch."""
        most = self.config.split_batch_over
        if most == 1 or rows <= self.config.max_batch_size or not self._signature.batchable:
            return 1
        return min(most, -(-rows // self.config.max_batch_size), max(1, len(self.live)))

    def _spread(self, job: Job, parts: int) -> None:
        whole = Whole(job, parts)
        for number, request in enumerate(spread(self._signature, job.request, parts)):
            part = Job(request, job.reply, job.since_ns)
            part.deadline_ns, part.whole, part.part = job.deadline_ns, whole, number
            part.cache_key = b"%b%d" % (job.cache_key, number)
            request.trace = job.request.trace
            self._enqueue(part, request.batch_key)

    def _enqueue(self, job: Job, batch_key: Hashable) -> None:
        """Queue a job where the policy says, and see whether a worker takes it at once."""
        seat = self._lineup.choose(job.cache_key, job.home)
        self._lineup.add(job, batch_key, seat)
        if seat is None:
            self._pump_shared()
        else:
            self._pump(seat)

    def _requeue(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            job.home = None
            self._enqueue(job, job.request.batch_key)

    def _run_alone(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            job.home = None
            self._enqueue(job, ("alone", id(job)))

    # To the workers

    def _pump_shared(self) -> None:
        """Offer the shared queue to idle workers first, then to one that may take a second batch."""
        live = self._lineup.live
        for seat in live:
            if not seat.batches:
                self._pump(seat)
                return
        if self._lineup.shared.is_full():
            for seat in live:
                self._pump(seat)

    def _on_time(self) -> None:
        """A delay is over or a deadline has passed."""
        now = now_ns()
        for queue in self._lineup.queues():
            self._expire(queue, now)
        for seat in list(self._lineup.live):
            self._pump(seat)

    def _expire(self, queue: Batcher[Job], now: int) -> bool:
        """Answer what has waited for too long; whether there was anything."""
        expired = queue.expire(now)
        for job in expired:
            self._lineup.taken_back(job)
            self._finish(job, DeadlineExceeded("the deadline passed before the request could run"))
        if (due := queue.next_deadline_ns()) is not None:
            self._timer.at(due)
        return bool(expired)

    def _pump(self, seat: Seat) -> None:
        """Give a worker what is due, up to one batch running and one committed."""
        queue = self._lineup.queue_of(seat)
        while self._can_take(seat, queue):
            now = now_ns()
            if self._expire(queue, now):
                continue  # whoever heard of it may have asked for something else
            jobs = queue.cut(now)
            if not jobs:
                due = queue.due_ns()
                if due is not None:
                    self._timer.at(due)
                return
            self._send(seat, jobs, now)

    def _can_take(self, seat: Seat, queue: Batcher[Job]) -> bool:
        if seat.index < 0:
            return False
        if not seat.batches:
            return True
        short = 0 < seat.link.service_ns < PREFETCH_BELOW_NS
        return len(seat.batches) == 1 and self._commits and short and queue.is_full()

    def _send(self, seat: Seat, jobs: list[Job], now: int) -> None:
        requests = [job.request for job in jobs]
        rows = [request.rows for request in requests]
        total = sum(rows)
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        seat.batches[number] = jobs
        seat.requests += len(jobs)
        self._lineup.waiting -= len(jobs)
        waits = [now - job.since_ns for job in jobs]
        self.stats.batch_sent(total, waits)
        for request, wait_ns in zip(requests, waits, strict=True):
            if request.trace is not None:
                request.trace.queue_ns, request.trace.batch_rows = wait_ns, total
        seat.link.send(encode_batch(number, rows, *gather(self._signature, requests, total)))

    # And back

    def _on_result(self, seat: Seat, link: WorkerLink, number: int, result: Result | str) -> None:
        jobs = seat.batches.pop(number)
        rows = sum([job.request.rows for job in jobs])
        compute_ns = 0
        if not isinstance(result, str):
            compute_ns = result.compute_ns
            link.took(compute_ns)
            self.stats.batch_done(len(jobs), rows, result.input_ns, compute_ns, result.output_ns)
        self._lineup.ended(seat, len(jobs), rows, compute_ns)
        self._pump(seat)  # the worker first: it can go on while the answers are written
        if isinstance(result, str):
            self._on_refused(jobs, result)
        else:
            self._adapt(rows, now_ns() - jobs[0].since_ns, compute_ns)
            for job in jobs:
                if job.request.trace is not None:
                    job.request.trace.compute_ns = compute_ns
            self._answer(jobs, result.tensors, rows)
        self._pump(seat)
        self._let_go(seat)

    def _on_refused(self, jobs: list[Job], text: str) -> None:
        """The model refused a batch: each request is run alone, so that only the guilty one fails."""
        if len(jobs) == 1:
            self._finish(jobs[0], BadRequest(f"the model refused the request: {text}"))
        else:
            self._run_alone(jobs)

    def _answer(self, jobs: list[Job], tensors: Outputs, rows: int) -> None:
        if len(jobs) == 1:
            self._finish(jobs[0], tensors)
            return
        pairs = zip(self._signature.outputs, tensors, strict=True)
        if any(tensor.shape[spec.batch_axis] != rows for spec, tensor in pairs):
            # It grew with the batch when it was tried, but its size depends on the data.
            self._run_alone(jobs)
            return
        found = scatter(self._signature, tensors, [job.request.rows for job in jobs])
        for job, outputs in zip(jobs, found, strict=True):
            self._finish(job, outputs)

    def _adapt(self, rows: int, latency_ns: int, compute_ns: int) -> None:
        before = self._limit.limit
        self._limit.observe(rows, max(0, latency_ns - compute_ns), compute_ns)
        if self._limit.limit != before:
            self._lineup.limit_batches(self._limit.limit)

    def _finish(self, job: Job, outcome: Outputs | RequestError) -> None:
        """Answer a job and all that joined it, and keep the result."""
        if job.whole is not None:
            self._collect(job, job.whole, outcome)
            return
        self.in_flight -= 1
        self._tell_joined(job, outcome)
        job.answer(outcome, self.stats)

    def _tell_joined(self, job: Job, outcome: Outputs | RequestError) -> None:
        """Keep the result, and answer all that joined the job."""
        if not job.cache_key:
            return
        for follower in self._results.keep(job, self._cache_of(job), outcome):
            if isinstance(outcome, DeadlineExceeded):  # that was not theirs
                self._look_up(follower)
            else:
                follower.answer(outcome, self.stats)

    def _collect(self, part: Job, whole: Whole, outcome: Outputs | RequestError) -> None:
        found = whole.collect(part.part, outcome)
        if isinstance(found, RequestError):
            self._finish(whole.job, found)
        elif found is not None:
            self._finish(whole.job, merge(self._signature, found))

    # When a worker is lost

    def _on_lost(self, seat: Seat, link: WorkerLink) -> None:  # noqa: ARG002 - the seat's own
        """A worker died: its requests run again elsewhere, one by one."""
        suspects = seat.running  # a second batch, committed ahead, has not been looked at
        lost = self._taken_from(seat)
        self.leave(seat)
        self._let_go(seat)
        self.on_lost(seat)
        for job in lost:
            job.deaths += job in suspects
            if job.deaths >= MOST_DEATHS:
                self._finish(job, WorkerFailed("two workers died while they ran this request"))
            else:
                self._run_alone([job])

    def _taken_from(self, seat: Seat) -> list[Job]:
        """What runs on a worker, and will not be done there."""
        jobs = [job for batch in seat.batches.values() for job in batch]
        seat.batches.clear()
        return jobs

    def _let_go(self, seat: Seat) -> None:
        """Whoever waits for a worker that left to be idle hears that it is."""
        if seat.index < 0 and not seat.batches:
            self._leaving.discard(seat)
            seat.cache.clear(now_ns())
            seat.idle.set()

    def _cache_of(self, job: Job) -> Cache:
        return self._cache if job.home is None else job.home.cache

    def _new_cache(self) -> Cache:
        return self._results.new_cache(max(1, self.config.workers) if self._per_worker else 1)

    def _forget(self) -> None:
        """Empty the caches; what only they know goes to the backend."""
        for cache in self.caches:
            cache.clear(now_ns())
