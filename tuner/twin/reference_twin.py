"""The twin as the proxy is written: its own queues, policies, cache and admission, over a fake clock.

What has no pure counterpart in the proxy is said again here: who is offered work when (`Runner`),
who joins whom (`Results`) and what the front, one thread, has time for (`Front`). Three things are
simpler than they are. What takes time takes what the number of busy workers at its beginning says.
All requests have one row and one priority. No autoscaler changes the workers.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dlbench.proxy.cache.cache import make_cache
from dlbench.proxy.dispatch.admission import Admission
from dlbench.proxy.dispatch.batch_limit import BATCH_LIMITS
from dlbench.proxy.dispatch.job import Job, WorkerSlot
from dlbench.proxy.dispatch.queues import NS_PER_MS, Queues
from dlbench.proxy.dispatch.runner import PREFETCH_BELOW_NS
from dlbench.proxy.errors import Overloaded
from dlbench.proxy.request import InferRequest, Layout
from dlbench.proxy.tensors import Tensor
from dlbench.proxy.workers.link import SMOOTHING
from dlbench.tuner.twin.scenario import SimulatedRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.cache.cache import Cache
    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.twin.scenario import Costs, Scenario

NEVER = int(np.iinfo(np.int64).max)
REFUSED = -1
LAYOUT = Layout((), 1, (), ())


class Worker:
    """Stands where a slot has its link: when the worker is free, and how long it takes."""

    def __init__(self) -> None:
        self.service_ns = 0.0
        self.free_ns = 0
        self.results: list[tuple[int, int, int]] = []  # (when it is back, batch, time to compute)

    @property
    def next_ns(self) -> int:
        """When the next result comes."""
        return self.results[0][0] if self.results else NEVER

    def took(self, compute_ns: int) -> None:
        before = self.service_ns or compute_ns
        self.service_ns = before + SMOOTHING * (compute_ns - before)


def simulate(config: ServingConfig, scenario: Scenario) -> SimulatedRun:
    """Run a scenario; of all twins this one knows every knob that Queues, Batcher and Cache know."""
    proxy = Proxy(config, scenario)
    number, front = 0, proxy.front
    while True:
        slot = min(proxy.slots, key=lambda slot: worker_of(slot).next_ns)
        result = max(worker_of(slot).next_ns, front.free_ns)
        delay = max(proxy.next_timer(), front.free_ns)
        arrival = proxy.next_arrival(number)
        if result >= NEVER and delay >= NEVER and arrival >= NEVER:
            return proxy.summed()
        front.begin(min(result, delay, arrival), proxy.busy)
        if result <= min(delay, arrival):
            proxy.on_result(slot)
        elif delay <= arrival:
            proxy.on_time()
        else:
            proxy.arrive(number)
            number += 1


class Front:
    """The one thread that takes requests and results, one after the other."""

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        self.free_ns = self.wakes = self._busy = 0

    def begin(self, now: int, busy: int) -> None:
        """Something happens, while so many workers are busy: asleep, it has to be woken."""
        self._busy = busy
        if now > self.free_ns:
            self.free_ns = now
            self.wakes += 1
            self.spend(self.costs.wake_ns)

    def spend(self, cost_ns: NDArray[np.int64]) -> int:
        """Take the time for something; returns when it is done."""
        self.free_ns += int(cost_ns[self._busy])
        return self.free_ns


class Proxy:
    """What stands between front and workers; every method is told the time."""

    def __init__(self, config: ServingConfig, scenario: Scenario) -> None:
        self._scenario, self._config = scenario, config
        self._limit = BATCH_LIMITS[config.batching](
            config.max_batch_size, int(config.slo_ms * NS_PER_MS)
        )
        self._queues = Queues(config, self._limit.limit)
        self._admission = Admission(config.max_queue_size)
        self._commits = config.queue_order == "fifo"
        self._timeout_ns = int(config.default_timeout_ms * NS_PER_MS)
        self._results = Results(config, scenario)
        self.front = Front(scenario.costs)
        self._answered_ns: list[int] = []
        self._done_ns = np.full(len(scenario.arrivals_ns), REFUSED, np.int64)
        self._batches = self._rows = self._busy_ns = 0
        self.slots = self._filled_slots(config)

    @property
    def busy(self) -> int:
        """Workers that have something to do."""
        return sum(bool(slot.batches) for slot in self.slots)

    def summed(self) -> SimulatedRun:
        """What came of it."""
        results, front = self._results, self.front
        return SimulatedRun(
            self._done_ns, self._batches, self._rows, self._busy_ns, front.wakes, results.hits, results.joined
        )  # fmt: skip

    def next_arrival(self, number: int) -> int:
        """When the front can take a request: it came, its user had the last answer, and there is time."""
        if number == len(self._scenario.arrivals_ns):
            return NEVER
        earliest = int(self._scenario.arrivals_ns[number])
        if number >= self._scenario.users:
            before = number - self._scenario.users
            if before >= len(self._answered_ns):
                return NEVER
            earliest = self._answered_ns[before] + self._scenario.turn_ns
        return max(earliest, self.front.free_ns)

    def next_timer(self) -> int:
        """When a delay is over or a deadline passes."""
        idle = [self._queues.queue_of(slot).due_ns() for slot in self.slots if not slot.batches]
        deadlines = [queue.next_deadline_ns() for queue in self._queues.all()]
        return min((when for when in (*idle, *deadlines) if when), default=NEVER)

    def arrive(self, number: int) -> None:
        """The front takes a request."""
        self._take(self._job(number, self.front.free_ns))

    def on_result(self, slot: WorkerSlot) -> None:
        """A batch is done: the worker goes on, then its requests are answered."""
        worker, now = worker_of(slot), self.front.free_ns
        _, number, compute_ns = worker.results.pop(0)
        jobs = slot.batches.pop(number)
        worker.took(compute_ns)
        self._queues.ended(slot, len(jobs), len(jobs), compute_ns)
        self._pump(slot, now)
        self._adapt(len(jobs), now - jobs[0].since_ns, compute_ns)
        for job in jobs:
            self._answer(job, now)
        self._pump(slot, now)

    def on_time(self) -> None:
        """A delay is over or a deadline has passed."""
        now = self.front.free_ns
        for queue in self._queues.all():
            for job in queue.expire(now):
                self._queues.taken_back(job)
                self._expired(job, now)
        for slot in self.slots:
            self._pump(slot, now)

    def _filled_slots(self, config: ServingConfig) -> Sequence[WorkerSlot]:
        weights = config.worker_weights or (1.0,)
        for number in range(config.workers):
            link: Any = Worker()
            self._queues.join(WorkerSlot(number, weights[number % len(weights)], link))
        return self._queues.live

    def _job(self, number: int, now: int) -> Job:
        job = Job(InferRequest(LAYOUT, (), ()), lambda _: None, now)
        job.part = number
        job.cache_key = self._results.key(number)
        return job

    def _take(self, job: Job) -> None:
        """From the look-up to a queue."""
        front = self.front
        if self._results.hit(job, front.free_ns):
            self._done(job, front.spend(front.costs.hit_ns))
        elif self._results.joins(job):
            front.spend(front.costs.hit_ns)
        else:
            now = front.spend(front.costs.in_ns)
            try:
                self._admission.check(self._queues.waiting)
            except Overloaded:
                self._results.kept(job, None, now)
                self._answered_ns.append(now)
            else:
                self._queue(job, now)

    def _done(self, job: Job, now: int) -> None:
        self._done_ns[job.part] = now
        self._answered_ns.append(now)

    def _queue(self, job: Job, now: int) -> None:
        if self._timeout_ns:
            job.deadline_ns = job.since_ns + self._timeout_ns
        slot = self._queues.choose(job.cache_key)
        self._queues.add(job, (), slot)
        if slot is None:
            self._pump_shared(now)
        else:
            self._pump(slot, now)

    def _answer(self, job: Job, now: int) -> None:
        for answered in [job, *self._results.kept(job, self._results.outputs, now)]:
            self._done(answered, self.front.spend(self.front.costs.out_ns))

    def _expired(self, job: Job, now: int) -> None:
        """Its deadline has passed; that was not the deadline of those that joined it."""
        self._answered_ns.append(now)
        for follower in self._results.kept(job, None, now):
            self._take(follower)

    def _adapt(self, rows: int, latency_ns: int, compute_ns: int) -> None:
        before = self._limit.limit
        self._limit.observe(rows, max(0, latency_ns - compute_ns), compute_ns)
        if self._limit.limit != before:
            self._queues.limit_batches(self._limit.limit)

    def _pump_shared(self, now: int) -> None:
        for slot in self.slots:
            if not slot.batches:
                self._pump(slot, now)
                return
        if self._queues.shared.is_full():
            for slot in self.slots:
                self._pump(slot, now)

    def _pump(self, slot: WorkerSlot, now: int) -> None:
        queue = self._queues.queue_of(slot)
        while self._can_take(slot):
            jobs = queue.cut(now)
            if not jobs:
                return
            self._send(slot, jobs, now)

    def _can_take(self, slot: WorkerSlot) -> bool:
        if not slot.batches:
            return True
        short = 0 < worker_of(slot).service_ns < PREFETCH_BELOW_NS
        full = self._queues.queue_of(slot).is_full()
        return len(slot.batches) == 1 and self._commits and short and full

    def _send(self, slot: WorkerSlot, jobs: list[Job], now: int) -> None:
        worker, way_ns = worker_of(slot), self._scenario.way_ns
        slot.batches[self._batches] = jobs
        self._queues.waiting -= len(jobs)
        mean_ns = self._scenario.service_ns[self.busy - 1, len(jobs) - 1]
        took = int(mean_ns * self._scenario.factors[self._batches])
        worker.free_ns = max(now + way_ns, worker.free_ns) + took
        worker.results.append((worker.free_ns + way_ns, self._batches, took))
        self._batches += 1
        self._rows += len(jobs)
        self._busy_ns += took


class Results:
    """Answers that need no worker: from the cache, or with an identical request in flight."""

    def __init__(self, config: ServingConfig, scenario: Scenario) -> None:
        self._keys = [digest(key) for key in scenario.inputs.keys.tolist()]
        self._active = bool(config.cache_size and config.cache_policy != "none" and self._keys)
        self.outputs = (Tensor((scenario.result_bytes,), bytes(scenario.result_bytes)),)
        self._cache: Cache = make_cache(config)
        self._waiting: dict[bytes, list[Job]] = {}
        self.hits = self.joined = 0
        for key in map(digest, scenario.inputs.warm.tolist() if self._active else ()):
            if self._cache.get(key, 0) is None:
                self._cache.put(key, self.outputs, 0)

    def key(self, number: int) -> bytes:
        """Of a request: its input, or itself where none repeats."""
        return self._keys[number] if self._keys else digest(number)

    def hit(self, job: Job, now: int) -> bool:
        """Whether the answer is cached."""
        found = self._active and self._cache.get(job.cache_key, now) is not None
        self.hits += found
        return found

    def joins(self, job: Job) -> bool:
        """Whether an identical request is in flight; the job stands for the next ones if not."""
        if not self._active:
            return False
        if job.cache_key not in self._waiting:
            self._waiting[job.cache_key] = []
            return False
        self._waiting[job.cache_key].append(job)
        self.joined += 1
        return True

    def kept(self, job: Job, outputs: tuple[Tensor, ...] | None, now: int) -> list[Job]:
        """Keep what came of a job, if anything; returns those that joined it."""
        if self._active and outputs is not None:
            self._cache.put(job.cache_key, outputs, now)
        return self._waiting.pop(job.cache_key, [])


def worker_of(slot: WorkerSlot) -> Worker:
    """The simulated worker behind a slot."""
    return cast("Worker", slot.link)


def digest(number: int) -> bytes:
    """A cache key as the proxy makes them: the hash ring counts on bytes that are spread evenly."""
    return blake2b(number.to_bytes(8, "little"), digest_size=16).digest()
