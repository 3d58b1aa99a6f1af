"""Feeds Locust's statistics in bulk, so that its page and its master show a load at no cost per request.

Its response times stay as coarse as Locust keeps them (whole milliseconds, two digits): no figure
of ours comes from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from locust import stats as locust_stats
from locust.stats import StatsEntry, StatsError

if TYPE_CHECKING:
    from locust.stats import RequestStats

    from dlbench.loadgen.engine.progress import EndedRequests

METHOD = "POST"
NS_PER_MS = 1e6


def feed(stats: RequestStats, name: str, batch: EndedRequests, now_s: float) -> None:
    """Log what ended since the last call, errors by kind among it."""
    if len(batch.latencies_ns) or batch.errors:
        part = entry_of(stats, name, batch, now_s)
        for entry in (stats.total, stats.get(name, METHOD)):
            entry.extend(part)
        for kind, count in batch.errors.items():
            _log_error(stats, name, kind, count, now_s)


def entry_of(stats: RequestStats, name: str, batch: EndedRequests, now_s: float) -> StatsEntry:
    """A batch in Locust's own words. As with Locust, a failure is a request too; it has no time."""
    entry = StatsEntry(stats, name, METHOD)
    times, counts = np.unique(np.rint(batch.latencies_ns / NS_PER_MS), return_counts=True)
    failures = sum(batch.errors.values())
    entry.start_time = entry.last_request_timestamp = now_s
    entry.num_requests = len(batch.latencies_ns) + failures
    entry.num_none_requests = entry.num_failures = failures
    entry.num_reqs_per_sec[int(now_s)] = entry.num_requests
    entry.num_fail_per_sec[int(now_s)] = failures
    for time_ms, count in zip(times.astype(int).tolist(), counts.tolist(), strict=True):
        # Looked up each time, since Locust documents it as replaceable.
        entry.response_times[locust_stats.bucket_response_time(time_ms)] += count
    if len(times):
        entry.total_response_time = int(times @ counts)
        entry.min_response_time, entry.max_response_time = int(times[0]), int(times[-1])
    return entry


def _log_error(stats: RequestStats, name: str, kind: str, count: int, now_s: float) -> None:
    key = StatsError.create_key(METHOD, name, kind)
    error = stats.errors.setdefault(key, StatsError(METHOD, name, kind))
    error.occurrences += count
    error.first_seen = error.first_seen or now_s
    error.last_seen = now_s
