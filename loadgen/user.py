"""The load as a Locust user: one `LoadUser` holds all the connections of its run.

Locust's statistics are fed in bulk, a few times a second, so that its web page, its distributed
mode and its counters show our load without costing a call per request. Its response times stay
as coarse as Locust keeps them (whole milliseconds, two digits): no figure of ours comes from them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from gevent.event import AsyncResult
from locust import User, task
from locust import stats as locust_stats
from locust.env import Environment
from locust.exception import StopUser

if TYPE_CHECKING:
    from locust.stats import RequestStats, StatsEntry
    from numpy.typing import NDArray

    from dlbench.loadgen.engine import Engine
    from dlbench.loadgen.messages import Facts
    from dlbench.loadgen.progress import Batch
    from dlbench.loadgen.samples import Samples

METHOD = "POST"
NS_PER_MS = 1e6


class LoadUser(User):
    """Runs the engine that its class was made for; `over` holds the result or the error."""

    abstract = True
    engine: Engine
    name: str
    over: AsyncResult

    @classmethod
    def of(cls, engine: Engine, name: str) -> type[LoadUser]:
        """A user class for one run."""
        members = {"engine": engine, "name": name, "abstract": False, "over": AsyncResult()}
        return type("ModelUser", (cls,), members)

    @task
    def load(self) -> None:
        """The only task: the whole run."""
        self.engine.on_batch = self._feed
        try:
            self.over.set(self.engine.run())
        except Exception as error:  # handed to whoever waits for `over`
            self.over.set_exception(error)
        raise StopUser

    def _feed(self, batch: Batch) -> None:
        feed(self.environment.stats, self.name, batch, time.time())


def feed(stats: RequestStats, name: str, batch: Batch, now_s: float) -> None:
    """Log many requests in Locust's statistics at once, errors by kind among them."""
    counts = np.bincount(np.rint(batch.latencies_ns / NS_PER_MS).astype(np.int64))
    failures = sum(batch.errors.values())
    for entry in (stats.total, stats.get(name, METHOD)):
        _log_times(entry, counts, now_s)
        entry.num_failures += failures
        entry.num_fail_per_sec[int(now_s)] += failures
    for kind, count in batch.errors.items():
        key = locust_stats.StatsError.create_key(METHOD, name, kind)
        error = stats.errors.setdefault(key, locust_stats.StatsError(METHOD, name, kind))
        error.occurrences += count


def _log_times(entry: StatsEntry, counts: NDArray[np.int64], now_s: float) -> None:
    """Log successes; `counts[t]` of them took t milliseconds."""
    times = np.flatnonzero(counts).tolist()
    if not times:
        return
    number = int(counts.sum())
    entry.num_requests += number
    entry.num_reqs_per_sec[int(now_s)] += number
    entry.last_request_timestamp = now_s
    entry.total_response_time += int(counts @ np.arange(len(counts)))
    shortest = entry.min_response_time
    entry.min_response_time = times[0] if shortest is None else min(shortest, times[0])
    entry.max_response_time = max(entry.max_response_time, times[-1])
    for time_ms in times:
        # Looked up each time, since Locust documents it as replaceable.
        entry.response_times[locust_stats.bucket_response_time(time_ms)] += int(counts[time_ms])


def run_user(engine: Engine, name: str) -> tuple[Samples, Facts]:
    """Run one job as Locust's only user. Raises what the engine raises."""
    user = LoadUser.of(engine, name)
    environment = Environment(user_classes=[user])
    runner = environment.create_local_runner()
    runner.start(1, spawn_rate=1)
    try:
        result: tuple[Samples, Facts] = user.over.get()
        return result
    finally:
        runner.quit()
