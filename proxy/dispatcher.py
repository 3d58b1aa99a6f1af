"""The middle of the proxy: cache, admission, policy, batcher, workers, and back to who asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlbench.proxy.admission import Admission
from dlbench.proxy.batcher import Batcher
from dlbench.proxy.cache import make_cache
from dlbench.proxy.errors import BadRequest, Overloaded, ProxyError, RequestError, WorkerFailed
from dlbench.proxy.frames import Result, encode_batch
from dlbench.proxy.policy import POLICIES, SHARED
from dlbench.proxy.pool import WorkerLink, now_ns
from dlbench.proxy.tensors import Signature, Tensor
from dlbench.proxy.timer import make_timer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.wire import InferRequest

    Outputs = tuple[Tensor, ...]
    Reply = Callable[[Outputs | RequestError], None]

# A second batch is committed to a busy worker only while batches are shorter than this: it hides
# the way there and back (+32 % with a sub-millisecond model), but a longer one would wait behind
# its predecessor when another worker may be free sooner.
PREFETCH_BELOW_NS = 5_000_000
# A request that was there when two workers died is suspected of killing them.
MOST_DEATHS = 2


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way, with whom to answer."""

    request: InferRequest
    reply: Reply
    since_ns: int
    cache_key: bytes | None = None
    deaths: int = 0


@dataclass(slots=True, eq=False)
class Worker:
    """A worker as the dispatcher sees it: its link, the queue it takes from, what it has to do."""

    link: WorkerLink
    queue: Batcher[Job]
    batches: dict[int, list[Job]] = field(default_factory=dict)
    running: int = 0

    @property
    def outstanding(self) -> int:
        """Requests that wait for this worker or run on it."""
        return len(self.queue) + self.running


@dataclass(slots=True)
class Counters:
    """Cumulative counts since the start; times in nanoseconds."""

    requests: int = 0
    errors: int = 0
    batches: int = 0
    rows: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    queue_ns: int = 0
    compute_ns: int = 0


class Dispatcher:
    """Takes requests and answers each exactly once, through a callback."""

    def __init__(
        self,
        signature: Signature,
        identity: bytes,
        config: ServingConfig,
        links: Sequence[WorkerLink],
        replace: Callable[[], Awaitable[WorkerLink]],
        on_fatal: Callable[[ProxyError], None],
    ) -> None:
        """`replace` starts a worker in place of a dead one; `on_fatal` hears when that fails."""
        self.counters = Counters()
        self.in_flight = 0
        self._signature = signature
        self._identity = identity
        self._item_sizes = [spec.item_size for spec in signature.outputs]
        self._replace, self._on_fatal = replace, on_fatal
        self._joined: dict[bytes, list[Reply]] = {}
        self._number = 0
        self._replacing: set[asyncio.Task[None]] = set()
        self._timer = make_timer(asyncio.get_running_loop(), self._pump_all)
        self._shared = self._new_queue(config)
        self.workers = [Worker(self._adopted(link), self._shared) for link in links]
        self.configure(config)
        self._check_alive(links)

    def configure(self, config: ServingConfig) -> None:
        """Change every knob that needs no restart; what waits is queued again, the cache is empty."""
        self.config = config
        self._cache = make_cache(config.cache_size, self._identity)
        self._admission = Admission(config.max_queue_size)
        self._policy = POLICIES[config.scheduling_policy]()
        waiting = self._drain_queues()
        self._shared = self._new_queue(config)
        self._shares = config.scheduling_policy == "shared_queue"
        for worker in self.workers:
            worker.queue = self._shared if self._shares else self._new_queue(config)
        for job in waiting:
            self._enqueue(job, job.request.batch_key)

    def submit(self, request: InferRequest, reply: Reply) -> None:
        """Take a request; `reply` is called once, perhaps before this returns."""
        self.counters.requests += 1
        key = self._cache.key(request)
        if key is not None and self._answered_elsewhere(key, reply):
            return
        try:
            self._admission.check(self._waiting())
        except Overloaded as error:
            self._refuse(reply, error)
            return
        if key is not None:
            self._joined[key] = []
        self.in_flight += 1
        self._enqueue(Job(request, reply, now_ns(), key), request.batch_key)

    async def shutdown(self) -> None:
        """Stop all workers; what is still unanswered is answered 503."""
        running = [job for w in self.workers for jobs in w.batches.values() for job in jobs]
        self._timer.close()
        for task in self._replacing:
            task.cancel()
        for job in [*running, *self._drain_queues()]:
            self._finish(job, Overloaded("the proxy is stopping"))
        await asyncio.gather(*(worker.link.shutdown() for worker in self.workers))

    def _answered_elsewhere(self, key: bytes, reply: Reply) -> bool:
        """Answer from the cache, or join the identical request in flight."""
        found = self._cache.get(key)
        if found is not None:
            self.counters.cache_hits += 1
            reply(found)
            return True
        followers = self._joined.get(key)
        if followers is None:
            self.counters.cache_misses += 1
            return False
        self.counters.cache_hits += 1
        followers.append(reply)
        return True

    def _refuse(self, reply: Reply, error: RequestError) -> None:
        self.counters.errors += 1
        reply(error)

    def _waiting(self) -> int:
        waiting = len(self._shared)  # without sharing: what came while no worker was alive
        if not self._shares:
            waiting += sum(len(worker.queue) for worker in self.workers)
        return waiting

    def _enqueue(self, job: Job, key: Hashable) -> None:
        """Queue a job where the policy says, and see whether a worker takes it at once."""
        live = [worker for worker in self.workers if worker.link.alive]
        loads = [] if self._shares else [worker.outstanding for worker in live]
        choice = self._policy.choose(loads) if live else SHARED
        if choice == SHARED:
            self._shared.add(key, job.request.rows, job, job.since_ns)
            self._pump_shared(live)
            return
        worker = live[choice]
        worker.queue.add(key, job.request.rows, job, job.since_ns)
        self._pump(worker)

    def _pump_shared(self, live: list[Worker]) -> None:
        """Offer the shared queue to idle workers first, then to one that may take a second batch."""
        for worker in live:
            if not worker.batches:
                self._pump(worker)
                return
        if self._shared.is_full():
            for worker in live:
                self._pump(worker)

    def _pump_all(self) -> None:
        for worker in self.workers:
            self._pump(worker)

    def _pump(self, worker: Worker) -> None:
        """Give a worker what is due, up to one batch running and one committed."""
        while worker.link.alive and self._can_take(worker):
            now = now_ns()
            jobs = worker.queue.cut(now)
            if not jobs:
                due = worker.queue.due_ns()
                if due is not None:
                    self._timer.at(due)
                return
            self._send(worker, jobs, now)

    def _can_take(self, worker: Worker) -> bool:
        if not worker.batches:
            return True
        short = 0 < worker.link.service_ns < PREFETCH_BELOW_NS
        return len(worker.batches) == 1 and short and worker.queue.is_full()

    def _send(self, worker: Worker, jobs: list[Job], now: int) -> None:
        rows = [job.request.rows for job in jobs]
        self._number = (self._number + 1) & 0xFFFFFFFF
        worker.batches[self._number] = jobs
        worker.running += len(jobs)
        self.counters.batches += 1
        self.counters.rows += sum(rows)
        self.counters.queue_ns += sum(now - job.since_ns for job in jobs)
        worker.link.send(encode_batch(self._number, rows, *self._gathered(jobs, sum(rows))))

    def _gathered(self, jobs: list[Job], rows: int) -> tuple[list[Sequence[int]], list[Any]]:
        """Per tensor the whole batch's shape, and all pieces in order."""
        shapes: list[Sequence[int]] = []
        pieces: list[Any] = []
        for index, spec in enumerate(self._signature.inputs):
            first = jobs[0].request.tensors[index]
            if spec.batch_axis < 0:
                shapes.append(first.shape)
                pieces.append(first.data)
                continue
            axis = spec.batch_axis
            shapes.append((*first.shape[:axis], rows, *first.shape[axis + 1 :]))
            pieces += [job.request.tensors[index].data for job in jobs]
        return shapes, pieces

    def _on_result(self, link: WorkerLink, number: int, result: Result | str) -> None:
        worker = self._worker_of(link)
        jobs = worker.batches.pop(number)
        worker.running -= len(jobs)
        if isinstance(result, str):
            self._on_refused(jobs, result)
        else:
            link.took(result.compute_ns)
            self.counters.compute_ns += result.compute_ns
            self._answer(jobs, result.tensors)
        self._pump(worker)

    def _on_refused(self, jobs: list[Job], text: str) -> None:
        """The model refused a batch: each request is run alone, so that only the guilty one fails."""
        if len(jobs) == 1:
            self._finish(jobs[0], BadRequest(f"the model refused the request: {text}"))
        else:
            self._run_alone(jobs)

    def _run_alone(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._enqueue(job, ("alone", id(job)))

    def _answer(self, jobs: list[Job], tensors: Outputs) -> None:
        if len(jobs) == 1:
            self._finish(jobs[0], tensors)
            return
        total = sum(job.request.rows for job in jobs)
        pairs = zip(self._signature.outputs, tensors, strict=True)
        if any(tensor.shape[spec.batch_axis] != total for spec, tensor in pairs):
            # It grew with the batch when it was tried, but its size depends on the data.
            self._run_alone(jobs)
            return
        start = 0
        for job in jobs:
            stop = start + job.request.rows
            self._finish(job, self._cut(tensors, start, stop, total))
            start = stop

    def _cut(self, tensors: Outputs, start: int, stop: int, total: int) -> Outputs:
        """Rows start to stop of every output."""
        found = []
        for spec, tensor in zip(self._signature.outputs, tensors, strict=True):
            axis, row_bytes = spec.batch_axis, len(tensor.data) // total
            shape = (*tensor.shape[:axis], stop - start, *tensor.shape[axis + 1 :])
            found.append(Tensor(shape, tensor.data[start * row_bytes : stop * row_bytes]))
        return tuple(found)

    def _finish(self, job: Job, outcome: Outputs | RequestError) -> None:
        """Answer a job and all that joined it, and keep the result."""
        self.in_flight -= 1
        followers: list[Reply] = []
        if job.cache_key is not None:
            followers = self._joined.pop(job.cache_key, [])
            if not isinstance(outcome, RequestError):
                self._cache.put(job.cache_key, outcome)
        if isinstance(outcome, RequestError):
            self.counters.errors += 1 + len(followers)
        for reply in (job.reply, *followers):
            reply(outcome)

    def _on_lost(self, link: WorkerLink) -> None:
        """A worker died: its requests run again elsewhere, one by one, and it is replaced."""
        worker = self._worker_of(link)
        lost = [job for jobs in worker.batches.values() for job in jobs]
        waiting = [] if worker.queue is self._shared else worker.queue.drain()
        worker.batches.clear()
        worker.running = 0
        task = asyncio.ensure_future(self._revive(worker))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)
        for job in lost:
            job.deaths += 1
            if job.deaths >= MOST_DEATHS:
                self._finish(job, WorkerFailed("two workers died while they ran this request"))
            else:
                self._run_alone([job])
        for job in waiting:
            self._enqueue(job, job.request.batch_key)

    async def _revive(self, worker: Worker) -> None:
        await worker.link.shutdown()  # reaps the process
        try:
            worker.link = self._adopted(await self._replace())
        except ProxyError as error:
            self._on_fatal(error)
            return
        stranded = [] if self._shares else self._shared.drain()
        for job in stranded:  # they came while no worker was alive
            self._enqueue(job, job.request.batch_key)
        self._pump(worker)
        self._check_alive([worker.link])

    def _check_alive(self, links: Sequence[WorkerLink]) -> None:
        """Replace those that died between their hello and now, when nobody listened."""
        for link in links:
            if not link.alive:
                self._on_lost(link)

    def _adopted(self, link: WorkerLink) -> WorkerLink:
        link.item_sizes = self._item_sizes
        link.on_result = self._on_result
        link.on_lost = self._on_lost
        return link

    def _worker_of(self, link: WorkerLink) -> Worker:
        return next(worker for worker in self.workers if worker.link is link)

    def _drain_queues(self) -> list[Job]:
        """Everything that waits, oldest first."""
        queues = {id(q): q for q in (self._shared, *(worker.queue for worker in self.workers))}
        jobs = [job for queue in queues.values() for job in queue.drain()]
        return sorted(jobs, key=lambda job: job.since_ns)

    def _new_queue(self, config: ServingConfig) -> Batcher[Job]:
        rows = config.max_batch_size if self._signature.batchable else 1
        return Batcher(rows, int(config.max_queue_delay_ms * 1e6))
