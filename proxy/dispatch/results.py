"""Answers that need no worker: what is kept of results, and who waits for a result on its way. Pure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dlbench.proxy.cache.cache import NoCache, make_cache
from dlbench.proxy.cache.cache_value import fits
from dlbench.proxy.cache.cache_write import make_writer
from dlbench.proxy.errors import RequestError

if TYPE_CHECKING:
    from dlbench.proxy.cache.backend import Backend
    from dlbench.proxy.cache.cache import Cache
    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.dispatch.job import Job
    from dlbench.proxy.request import Outputs
    from dlbench.proxy.tensors import Signature

LOG = logging.getLogger(__name__)


class Results:
    """The caches, and the jobs in flight, each of which stands for every identical one."""

    def __init__(self, backend: Backend, signature: Signature) -> None:
        self._backend, self._signature = backend, signature
        self._told_unfit = False
        self._joined: dict[bytes, list[Job]] = {}  # the job in flight first
        self.active = self.per_worker = False
        self.shared: Cache = NoCache()

    def configure(self, config: ServingConfig, *, shares: bool) -> None:
        """Keep results as `config` says from now on; `shares`: all workers take from one queue."""
        self._config = config
        self.active = bool(config.cache_size and config.cache_policy != "none") or bool(
            self._backend
        )
        self.per_worker = config.cache_scope == "worker" and not shares
        self._writer = make_writer(config, self._backend)
        self.shared = self.new_cache()

    def new_cache(self) -> Cache:
        """An empty cache, or a worker's share of it."""
        cache = make_cache(self._config, max(1, self._config.workers) if self.per_worker else 1)
        cache.on_evicted = self._writer.evicted
        return cache

    def cache_of(self, job: Job) -> Cache:
        """Where the result of a job is kept."""
        return self.shared if job.home is None else job.home.cache

    def find(self, job: Job, now: int) -> Outputs | None:
        """The kept answer to a job."""
        return self.cache_of(job).get(job.cache_key, now)

    def join(self, job: Job) -> bool:
        """Whether an identical job is in flight; if not, this one is from now on."""
        flight = self._joined.setdefault(job.cache_key, [])
        flight.append(job)
        leader = flight[0]
        if leader is job:
            job.leader = None
            return False
        job.leader = leader
        leader.wanted += 1
        return True

    def fetched(self, job: Job, outputs: Outputs | None, now: int) -> Outputs | None:
        """Keep what the backend gave, if it is an answer to this job."""
        if outputs is None:
            return None
        if not fits(self._signature, outputs, job.request.rows):
            self._tell_unfit()
            return None
        self.cache_of(job).put(job.cache_key, outputs, now)
        return outputs

    def keep(self, job: Job, outcome: Outputs | RequestError, now: int) -> None:
        """Remember a job's result."""
        if not isinstance(outcome, RequestError):
            self.cache_of(job).put(job.cache_key, outcome, now, dirty=True)
            self._writer.kept(job.cache_key, outcome)

    def land(self, job: Job) -> list[Job]:
        """The job is in flight no longer; returns those that joined it."""
        return self._joined.pop(job.cache_key, [])[1:]

    def _tell_unfit(self) -> None:
        """Whoever wrote that, it is not this model's answer."""
        if not self._told_unfit:
            self._told_unfit = True
            LOG.warning("the cache backend holds values that do not fit the model: they are misses")
