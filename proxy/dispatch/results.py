"""Answers that need no worker: from the cache, its backend, or an identical request in flight."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from dlbench.proxy.cache.cache import make_cache
from dlbench.proxy.cache.cache_value import fits
from dlbench.proxy.cache.cache_write import make_writer
from dlbench.proxy.clock import now_ns
from dlbench.proxy.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.cache.backend import Backend
    from dlbench.proxy.cache.cache import Cache
    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.dispatch.job import Job
    from dlbench.proxy.request import Outputs
    from dlbench.proxy.telemetry.stats import ModelStats
    from dlbench.proxy.tensors import Signature

LOG = logging.getLogger(__name__)


class Results:
    """Looks a job up before it is queued, and keeps what came of it.

    A job in flight stands for every identical one: they are answered together.
    """

    def __init__(self, backend: Backend, stats: ModelStats, signature: Signature) -> None:
        self._backend, self._stats, self._signature = backend, stats, signature
        self._told_unfit = False
        self._joined: dict[bytes, list[Job]] = {}  # the job in flight first

    def configure(self, config: ServingConfig) -> None:
        """Keep results as `config` says from now on."""
        self._config = config
        self.active = bool(config.cache_size and config.cache_policy != "none") or bool(
            self._backend
        )
        self._writer = make_writer(config, self._backend)

    def new_cache(self, share: int = 1) -> Cache:
        """An empty cache, or one of `share` parts of it."""
        cache = make_cache(self._config, share)
        cache.on_evicted = self._writer.evicted
        return cache

    def find(self, job: Job, cache: Cache, missed: Callable[[Job], None]) -> None:
        """Answer the job, let it join another, or hand it to `missed`, perhaps later."""
        found = cache.get(job.cache_key, job.since_ns)
        if found is not None:
            self._hit(job, found)
            return
        flight = self._joined.get(job.cache_key)
        if flight is not None:
            self._stats.joined()
            flight.append(job)
            job.leader = flight[0]
            job.leader.wanted += 1
            return
        self._joined[job.cache_key] = [job]
        job.leader = None
        self._backend.fetch(job.cache_key, partial(self._fetched, job, cache, missed))

    def keep(self, job: Job, cache: Cache, outcome: Outputs | RequestError) -> list[Job]:
        """Remember a job's result; returns those that joined it."""
        if not isinstance(outcome, RequestError):
            cache.put(job.cache_key, outcome, now_ns(), dirty=True)
            self._writer.kept(job.cache_key, outcome)
        return self._joined.pop(job.cache_key, [])[1:]

    def _fetched(
        self, job: Job, cache: Cache, missed: Callable[[Job], None], found: Outputs | None
    ) -> None:
        """The backend has answered."""
        if found is not None and not fits(self._signature, found, job.request.rows):
            found = None
            self._tell_unfit()
        if found is None:
            self._stats.cache_miss(now_ns() - job.since_ns)
            missed(job)
            return
        cache.put(job.cache_key, found, now_ns())
        self._hit(job, found)
        for follower in self._joined.pop(job.cache_key, [])[1:]:
            follower.answer(found, self._stats)

    def _tell_unfit(self) -> None:
        """Whoever wrote that, it is not this model's answer."""
        if not self._told_unfit:
            self._told_unfit = True
            LOG.warning("the cache backend holds values that do not fit the model: they are misses")

    def _hit(self, job: Job, found: Outputs) -> None:
        self._stats.cache_hit(now_ns() - job.since_ns)
        job.answer(found, self._stats)
