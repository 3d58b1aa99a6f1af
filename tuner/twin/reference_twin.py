"""The twin that runs the proxy's own core, over a clock that jumps from one event to the next.

Every rule of dispatching is the core's (`proxy/dispatch/core.py`). What is said here is what stands
around it: how long workers take, and what the front, one thread, has time for. Three things are
simpler than they are. What takes time takes what the number of busy workers at its beginning says.
All requests have one row and one priority. No autoscaler changes the workers.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from dlbench.proxy.cache.backend import NoBackend
from dlbench.proxy.dispatch.core import Core
from dlbench.proxy.dispatch.job import Job, Slot
from dlbench.proxy.errors import RequestError
from dlbench.proxy.request import InferRequest, Layout
from dlbench.proxy.telemetry.stats import ModelStats
from dlbench.proxy.tensors import Signature, Tensor, TensorSpec
from dlbench.proxy.workers.frames import Result
from dlbench.tuner.twin.scenario import SimulatedRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.request import Outputs
    from dlbench.proxy.tensors import Buffer
    from dlbench.tuner.twin.scenario import Costs, Scenario

NEVER = int(np.iinfo(np.int64).max)
REFUSED = -1
LAYOUT = Layout((), 1, (), ())


def simulate(config: ServingConfig, scenario: Scenario) -> SimulatedRun:
    """Run a scenario; of all twins this one knows every knob that the core knows."""
    run = Run(config, scenario)
    while run.step():
        pass
    return run.summary()


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


class Worker(Slot):
    """Computes one batch after the other, each for as long as was drawn."""

    def __init__(self, number: int, weight: float, run: Run) -> None:
        super().__init__(number, weight)
        self._run = run
        self._free_ns = 0
        self.results: list[tuple[int, int, int]] = []  # (when it is back, batch, time to compute)

    @property
    def next_ns(self) -> int:
        """When the next result comes."""
        return self.results[0][0] if self.results else NEVER

    def send(
        self,
        number: int,
        rows: list[int],
        shapes: list[Sequence[int]],  # noqa: ARG002 - nothing is computed
        pieces: list[Buffer],  # noqa: ARG002
    ) -> None:
        took_ns = self._run.draw(len(rows))
        way_ns = self._run.scenario.way_ns
        self._free_ns = max(self._run.now + way_ns, self._free_ns) + took_ns
        self.results.append((self._free_ns + way_ns, number, took_ns))

    def release(self) -> None:
        """Nobody waits for it."""


class Run:
    """One simulated run: the next event, and what the core has done to whom."""

    def __init__(self, config: ServingConfig, scenario: Scenario) -> None:
        self.scenario = scenario
        self.now = 0
        self._front = Front(scenario.costs)
        self._stats = ModelStats(lambda: 0.0)
        item = TensorSpec("y", "UINT8", ("n", scenario.result_bytes), 0)
        signature = Signature((), (item,), batchable=True)
        self._core = Core(signature, config, NoBackend(), self._stats, self)
        self._arrived = self._busy_ns = 0
        self._finished: list[
            tuple[int, bool]
        ] = []  # in this event: which request, and was it served
        self._answered_ns: list[int] = []
        self._done_ns = np.full(len(scenario.arrivals_ns), REFUSED, np.int64)
        self._keys = scenario.inputs.keys.tolist() or range(len(scenario.arrivals_ns))
        weights = config.worker_weights or (1.0,)
        self.workers = [Worker(n, weights[n % len(weights)], self) for n in range(config.workers)]
        for worker in self.workers:
            self._core.join(worker, 0)
        self._warm()

    def step(self) -> bool:
        """Let the next thing happen; False if there is none."""
        front = self._front
        worker = min(self.workers, key=lambda worker: worker.next_ns)
        result = max(worker.next_ns, front.free_ns)
        tick = max(self._core.next_ns() or NEVER, front.free_ns)
        arrival = self._next_arrival()
        first = min(result, tick, arrival)
        if first >= NEVER:
            return False
        front.begin(first, self._busy)
        if result == first:
            self._on_result(worker)
        elif tick == first:
            self._on_time()
        else:
            self._arrive()
        return True

    def summary(self) -> SimulatedRun:
        """The sums over all that has happened."""
        stats = self._stats
        return SimulatedRun(
            self._done_ns, stats.batches, stats.rows, self._busy_ns, self._front.wakes,
            stats.cache_hits, stats.joins,
        )  # fmt: skip

    def draw(self, rows: int) -> int:
        """How long the batch takes that begins now, in ns."""
        mean_ns = self.scenario.service_ns[self._busy - 1, rows - 1]
        took_ns = int(mean_ns * self.scenario.factors[self._stats.batches - 1])
        self._busy_ns += took_ns
        return took_ns

    # What the core asks for

    def finish(self, job: Job, outcome: Outputs | RequestError) -> None:
        """Its reply is written when the event is over."""
        job.tell(outcome)

    def fetch(self, job: Job) -> None:
        """There is no backend."""

    def wake_at(self, when_ns: int) -> None:
        """The core is asked before each step."""

    def limit_batches(self, rows: int, why: str) -> None:
        """This model takes any batch."""

    # Events

    @property
    def _busy(self) -> int:
        """Workers that have something to do."""
        return sum(bool(worker.batches) for worker in self.workers)

    def _next_arrival(self) -> int:
        """When the front can take a request: it came, its user had the last answer, and there is time."""
        number, scenario = self._arrived, self.scenario
        if number == len(scenario.arrivals_ns):
            return NEVER
        earliest = int(scenario.arrivals_ns[number])
        if number >= scenario.users:
            before = number - scenario.users
            if before >= len(self._answered_ns):
                return NEVER
            earliest = self._answered_ns[before] + scenario.turn_ns
        return max(earliest, self._front.free_ns)

    def _arrive(self) -> None:
        """A request is read; one that needs no worker costs the front less."""
        front, stats, costs = self._front, self._stats, self._front.costs
        start_ns, hits, joins = front.free_ns, stats.cache_hits, stats.joins
        self.now = front.spend(costs.in_ns)
        self._core.submit(self._job(start_ns), self.now)
        if (stats.cache_hits, stats.joins) != (hits, joins):
            front.free_ns = start_ns
        if stats.joins != joins:
            front.spend(costs.hit_ns)
        self._answer(costs.hit_ns)

    def _job(self, since_ns: int) -> Job:
        number = self._arrived
        job = Job(InferRequest(LAYOUT, (), ()), partial(self._reply, number), since_ns)
        job.cache_key = digest(self._keys[number])
        self._arrived += 1
        return job

    def _reply(self, number: int, outcome: Outputs | RequestError) -> None:
        self._finished.append((number, not isinstance(outcome, RequestError)))

    def _on_result(self, worker: Worker) -> None:
        """A batch is done: the worker goes on, then its requests are answered."""
        self.now = self._front.free_ns
        _, number, took_ns = worker.results.pop(0)
        rows = len(worker.batches[number])
        self._core.result(worker, number, Result(0, took_ns, 0, self._outputs(rows)), self.now)
        self._answer(self._front.costs.out_ns)

    def _on_time(self) -> None:
        """A delay is over or a deadline has passed."""
        self.now = self._front.free_ns
        self._core.tick(self.now)
        self._answer(self._front.costs.out_ns)

    def _answer(self, cost_ns: NDArray[np.int64]) -> None:
        """Write what the event has finished, each answer after the other."""
        for number, served in self._finished:
            if served:
                self._done_ns[number] = self._front.spend(cost_ns)
            self._answered_ns.append(self._front.free_ns)
        self._finished.clear()

    def _warm(self) -> None:
        """Fill the caches as the warm-up's look-ups do."""
        if not self._core.looks_up:
            return
        for key in map(digest, self.scenario.inputs.warm.tolist()):
            home = self._core.home(key)
            cache = self._core.caches[0] if home is None else home.cache
            if cache.get(key, 0) is None:
                cache.put(key, self._outputs(1), 0)

    def _outputs(self, rows: int) -> Outputs:
        size = self.scenario.result_bytes
        return (Tensor((rows, size), bytes(rows * size)),)


def digest(number: int) -> bytes:
    """A cache key as the proxy makes them: the hash ring counts on bytes that are spread evenly."""
    return blake2b(number.to_bytes(8, "little"), digest_size=16).digest()
