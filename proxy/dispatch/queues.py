"""The live workers of a model, the queues before them, and the policy that chooses among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.proxy.dispatch.batcher import Batcher
from dlbench.proxy.dispatch.loads import Loads
from dlbench.proxy.dispatch.order import rank_by
from dlbench.proxy.dispatch.policy import POLICIES, SHARED, Member

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.dispatch.job import Job, Slot

NS_PER_MS = 1_000_000


class Queues:
    """Where a job waits. With no live worker, or under shared_queue, that is the shared queue."""

    def __init__(self, config: ServingConfig, max_batch_size: int) -> None:
        self.live: list[Slot] = []
        self.waiting = 0
        self._loads = Loads()
        self._settle(config, max_batch_size)

    def configure(self, config: ServingConfig, max_batch_size: int) -> list[Job]:
        """Take other knobs; what waited comes back, oldest first, to be added again."""
        jobs = sorted(self.drain(), key=lambda job: job.since_ns)
        self._settle(config, max_batch_size)
        for slot in self.live:
            slot.queue = self._new_queue()
        self._loads = Loads()
        self._fill_slots()
        self._count_running()
        return jobs

    def join(self, slot: Slot) -> list[Job]:
        """One more live worker; returns what waited for there to be one."""
        slot.queue = self._new_queue()
        self.live.append(slot)
        self._fill_slots()
        return [] if self.shares else self._drained(self.shared)

    def leave(self, slot: Slot) -> list[Job]:
        """A worker gets nothing any more; returns what waited for it alone."""
        self.live.remove(slot)
        slot.index = -1
        self._fill_slots()
        return [] if self.shares else self._drained(slot.queue)

    def home(self, key: bytes) -> Slot | None:
        """The worker in whose cache a result belongs; None if they have none, or none is live."""
        if self.shares or not self.live:
            return None
        return self.live[self._policy.home(self._loads, key)]

    def choose(self, key: bytes, home: Slot | None = None) -> Slot | None:
        """The worker for the next request; None: any that is idle, or none is live.

        That is where it was looked for, unless the policy has a reason to send it elsewhere.
        """
        if self.shares or not self.live:
            return None
        if home is not None and home.index >= 0 and not self.needs_key:
            return home
        choice = self._policy.choose(self._loads, key)
        return None if choice == SHARED else self.live[choice]

    def add(self, job: Job, batch_key: Hashable, slot: Slot | None) -> None:
        """Queue a job before the worker that was chosen for it, or where any idle one takes it."""
        request = job.request
        queue = self.shared
        job.slot = slot
        if slot is not None:
            queue = slot.queue
            self._loads.began(slot.index, 1, request.rows)
        self.waiting += 1
        job.place = queue.add(
            batch_key, request.rows, job, job.since_ns, request.layout.priority, job.deadline_ns
        )

    def ended(self, slot: Slot, requests: int, rows: int, compute_ns: int) -> None:
        """A worker is done with a batch; `compute_ns` is 0 for one that failed."""
        if self.shares or slot.index < 0:
            return
        self._loads.ended(slot.index, requests, rows)
        if compute_ns:
            self._loads.took(slot.index, rows, compute_ns)

    def taken_back(self, job: Job) -> None:
        """A job left its queue without having run."""
        self.waiting -= 1
        if job.slot is not None and job.slot.index >= 0:
            self._loads.ended(job.slot.index, 1, job.request.rows)

    def withdraw(self, job: Job) -> bool:
        """Take a job out of its queue; False if it waits in none."""
        queue = self.shared if job.slot is None else job.slot.queue
        if job.place is None or not queue.withdraw(job.place):
            return False
        self.taken_back(job)
        return True

    def queue_of(self, slot: Slot) -> Batcher[Job]:
        """The queue that a worker takes from."""
        return self.shared if self.shares else slot.queue

    def limit_batches(self, rows: int) -> None:
        """From now on batches are cut at so many rows."""
        self.rows = rows
        for queue in self.all():
            queue.max_batch_size = rows

    def all(self) -> Iterator[Batcher[Job]]:
        """Every queue, each once."""
        yield self.shared
        if not self.shares:
            for slot in self.live:
                yield slot.queue

    def drain(self) -> list[Job]:
        """Everything that waits."""
        return [job for queue in self.all() for job in self._drained(queue)]

    def _settle(self, config: ServingConfig, max_batch_size: int) -> None:
        self._config = config
        self.rows = max_batch_size
        self._policy = POLICIES[config.scheduling_policy]()
        self.shares = config.scheduling_policy == "shared_queue"
        self.needs_key = self._policy.needs_key
        self.shared = self._new_queue()

    def _fill_slots(self) -> None:
        """Tell the policy who is live now; who stays keeps its work and its estimate."""
        for index, slot in enumerate(self.live):
            slot.index = index
        self._loads.resize([slot.name for slot in self.live])
        if self.live:
            self._policy.join([Member(slot.name, slot.weight) for slot in self.live])

    def _count_running(self) -> None:
        """Under the shared queue nobody counted what runs; now somebody may want to know."""
        if self.shares:
            return
        for slot in self.live:
            for jobs in slot.batches.values():
                rows = sum(job.request.rows for job in jobs)
                self._loads.began(slot.index, len(jobs), rows)

    def _new_queue(self) -> Batcher[Job]:
        config = self._config
        return Batcher(
            self.rows,
            int(config.max_queue_delay_ms * NS_PER_MS),
            config.preferred_batch_sizes,
            rank_by(config.queue_order, int(config.priority_ageing_ms * NS_PER_MS)),
        )

    def _drained(self, queue: Batcher[Job]) -> list[Job]:
        jobs = queue.drain()
        for job in jobs:
            self.taken_back(job)
        return jobs
