"""The middle of the proxy: what becomes of a request, from cache and admission to its one answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dlbench.proxy.cache.cache import NoCache
from dlbench.proxy.cache.cache_key import KeyMaker
from dlbench.proxy.clock import now_ns
from dlbench.proxy.dispatch.admission import HELD_OFF, STOPPING, Admission, Closed
from dlbench.proxy.dispatch.job import Job, Whole, WorkerSlot
from dlbench.proxy.dispatch.output_shapes import unlike
from dlbench.proxy.dispatch.queues import NS_PER_MS
from dlbench.proxy.dispatch.results import Results
from dlbench.proxy.dispatch.rows import merge, spread
from dlbench.proxy.dispatch.runner import Runner
from dlbench.proxy.errors import ClientGone, DeadlineExceeded, Overloaded, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlbench.proxy.cache.backend import Backend
    from dlbench.proxy.cache.cache import Cache
    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.request import InferRequest, Outputs, Reply
    from dlbench.proxy.telemetry.stats import ModelStats
    from dlbench.proxy.tensors import Signature


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
        self.served_per_s = math.inf  # what the workers can do, as whoever watches over us says
        self._signature = signature
        self._results = Results(backend, stats, signature)
        self._keys = KeyMaker(identity)
        self._cache: Cache = NoCache()
        self._per_worker = False
        self._over = False
        self._admission: Admission | Closed
        self.on_lost: Callable[[WorkerSlot], None] = lambda _: None  # a worker that died
        # Batches are smaller from now on: the most rows, and why.
        self.on_less: Callable[[int, str], None] = lambda _, __: None
        self._runner = Runner(
            signature,
            config,
            stats,
            self._finish,
            lambda slot: self.on_lost(slot),
            lambda rows, why: self.on_less(rows, why),
        )
        self._queues = self._runner.queues
        self.configure(config)

    @property
    def live(self) -> Sequence[WorkerSlot]:
        """The workers that get work."""
        return self._queues.live

    @property
    def waiting(self) -> int:
        """Requests in queues."""
        return self._queues.waiting

    @property
    def looks_up(self) -> bool:
        """Whether requests are looked up before they are queued."""
        return self._results.active

    @property
    def caches(self) -> list[Cache]:
        """The result caches: one, or one per live worker."""
        return [slot.cache for slot in self._runner.slots] if self._per_worker else [self._cache]

    def configure(self, config: ServingConfig) -> None:
        """Change every knob that needs no restart; what waits is queued again, the cache is empty."""
        self._forget()
        self.config = config
        self._open()
        self._timeout_ns = int(config.default_timeout_ms * NS_PER_MS)
        waiting = self._runner.configure(config)
        self._per_worker = config.cache_scope == "worker" and not self._queues.shares
        self._results.configure(config)
        self._cache = self._results.new_cache()
        self._needs_key = self._results.active or self._queues.needs_key
        for slot in self._runner.slots:
            slot.cache = self._new_cache()
        self._runner.run_again(waiting)

    def submit(self, request: InferRequest, reply: Reply) -> Job:
        """Take a request; `reply` is called once, perhaps before this returns.

        Returns what `abandon` takes.
        """
        self.stats.received()
        job = Job(request, reply, now_ns())
        if self._needs_key:
            job.cache_key = self._keys.key(request)
        if self._results.active:
            self._look_up(job)
        else:
            self._admit(job)
        return job

    def abandon(self, job: Job) -> None:
        """Whoever asked has gone; what nobody waits for and has not begun is not computed."""
        if job.done:
            return
        job.gone = True
        leader = job.leader or job
        leader.wanted -= 1
        if leader.wanted:
            return
        for part in leader.parts or (leader,):
            if self._runner.withdraw(part):
                self._finish(part, ClientGone())

    def join(self, slot: WorkerSlot) -> None:
        """A worker that is ready gets work from now on."""
        slot.cache = self._new_cache()
        self._open()
        self._runner.join(slot)

    def leave(self, slot: WorkerSlot) -> None:
        """A worker gets nothing more; it is idle once what it runs is done."""
        self._runner.leave(slot)

    def hold_off(self, pause_s: float) -> None:
        """Until a worker joins, whoever comes is answered 503; who waits already goes on waiting."""
        if not self._over:
            self._admission = Closed(HELD_OFF, math.ceil(pause_s))

    def shutdown(self, why: str = STOPPING) -> None:
        """What is still unanswered is answered 503, and so is whatever comes from now on."""
        self._over = True
        self._admission = Closed(why)
        self._forget()
        for job in self._runner.shutdown():
            self._finish(job, Overloaded(why))

    def _open(self) -> None:
        if not self._over:
            self._admission = Admission(self.config.max_queue_size)

    # On the way in

    def _look_up(self, job: Job) -> None:
        job.home = self._queues.home(job.cache_key) if self._per_worker else None
        self._results.find(job, self._cache_of(job), self._admit)

    def _admit(self, job: Job) -> None:
        try:
            if not job.wanted:  # all went while it was looked up
                raise ClientGone
            self._admission.check(self._queues.waiting, self.served_per_s)
        except RequestError as error:
            self.stats.refused(error.status)
            self._tell_joined(job, error)
            job.tell(error)
            return
        timeout_ns = job.request.layout.timeout_ns or self._timeout_ns
        if timeout_ns:
            job.deadline_ns = job.since_ns + timeout_ns
            self._runner.wake_at(job.deadline_ns)
        self.in_flight += 1
        parts = self._parts(job.request.rows)
        if parts > 1:
            self._spread(job, parts)
        else:
            self._runner.run(job, job.request.batch_key)

    def _parts(self, rows: int) -> int:
        """Over how many workers a request is spread: none of them gets less than half a batch."""
        most = self.config.split_batch_over
        if most == 1 or rows <= self.config.max_batch_size or not self._runner.batches:
            return 1
        return min(most, -(-rows // self.config.max_batch_size), max(1, len(self.live)))

    def _spread(self, job: Job, parts: int) -> None:
        whole = Whole(job, parts)
        job.parts = tuple(
            self._part(whole, number, request)
            for number, request in enumerate(spread(self._signature, job.request, parts))
        )
        for part in job.parts:
            self._runner.run(part, part.request.batch_key)

    def _part(self, whole: Whole, number: int, request: InferRequest) -> Job:
        job = whole.job
        part = Job(request, job.reply, job.since_ns)
        part.deadline_ns, part.whole, part.part = job.deadline_ns, whole, number
        part.cache_key = b"%b%d" % (job.cache_key, number)
        request.trace = job.request.trace
        return part

    def _finish(self, job: Job, outcome: Outputs | RequestError) -> None:
        """Answer a job and all that joined it, and keep the result."""
        if job.whole is not None:
            self._collect(job, job.whole, outcome)
            return
        self.in_flight -= 1
        job.parts = ()  # they hold on to it
        self._tell_joined(job, outcome)
        job.answer(outcome, self.stats)

    def _tell_joined(self, job: Job, outcome: Outputs | RequestError) -> None:
        """Keep the result, and answer all that joined the job."""
        if not job.cache_key:
            return
        for follower in self._results.keep(job, self._cache_of(job), outcome):
            if isinstance(outcome, DeadlineExceeded) and not follower.gone:  # that was not theirs
                self._look_up(follower)
            else:
                follower.answer(outcome, self.stats)

    def _collect(self, part: Job, whole: Whole, outcome: Outputs | RequestError) -> None:
        found = whole.collect(part.part, outcome)
        if isinstance(found, RequestError):
            self._finish(whole.job, found)
        elif found is not None:
            self._join(whole.job, found)

    def _join(self, job: Job, parts: list[Outputs]) -> None:
        """Answer a job from its parts, if these show that a part is answered as the whole would be."""
        if name := unlike(self._signature, parts):
            self._runner.batch_less(1, f"the shape of output {name!r} depends on the data")
        if self._runner.batches:
            self._finish(job, merge(self._signature, parts))
        else:
            self._runner.run_alone([job])

    # When a worker is lost

    def _cache_of(self, job: Job) -> Cache:
        return self._cache if job.home is None else job.home.cache

    def _new_cache(self) -> Cache:
        return self._results.new_cache(max(1, self.config.workers) if self._per_worker else 1)

    def _forget(self) -> None:
        """Empty the caches; what only they know goes to the backend."""
        for cache in self.caches:
            cache.clear(now_ns())
