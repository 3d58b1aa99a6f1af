"""What a model has done since it was loaded: counts, times and histograms. Pure.

Every call is on the way of a request: no locks (one thread), no objects made, a few additions.
"""

from __future__ import annotations

import time
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# A power of two is cut into four buckets of equal width, as HDR histograms do it: a quantile is
# off by at most an eighth, where whole powers would leave it off by half.
SUB_BITS = 2
SUB_BUCKETS = 1 << SUB_BITS
# Times up to 2^40 ns (18 minutes) have buckets; what takes longer goes into the last.
MOST_BITS = 40
BUCKETS = (MOST_BITS - SUB_BITS + 1) * SUB_BUCKETS
# Batches of up to so many rows are told apart; larger ones count for the next power of two, so
# that the table stays bounded, whatever clients send.
EXACT_ROWS = 4096


class Histogram:
    """Counts of times in nanoseconds, in buckets of a quarter of a power of two."""

    __slots__ = ("counts", "total_ns")

    def __init__(self) -> None:
        self.counts = [0] * (BUCKETS + 1)
        self.total_ns = 0

    def add(self, ns: int) -> None:
        self.total_ns += ns
        shift = ns.bit_length() - SUB_BITS - 1
        try:
            self.counts[(shift << SUB_BITS) + (ns >> shift) if shift > 0 else ns] += 1
        except IndexError:
            self.counts[BUCKETS] += 1

    def snapshot(self) -> tuple[int, ...]:
        """The current counts; the difference of two is what happened in between."""
        return tuple(self.counts)


class ModelStats:
    """Everything counted for one version of a model; times are integers in nanoseconds.

    Each request is `received` once and ends exactly once: `refused`, `succeeded` or `failed`.
    Before that it is a `cache_hit`, or it `joined` an identical request in flight, or it goes into
    batches, with a cache after a `cache_miss`.
    """

    __slots__ = (
        "_wall_s",
        "batch_table",
        "batches",
        "cache_hit_ns",
        "cache_hits",
        "cache_miss_ns",
        "cache_misses",
        "compute_ns",
        "computed",
        "executions",
        "failed_ns",
        "inferences",
        "input_ns",
        "joins",
        "last_inference_s",
        "latency",
        "output_ns",
        "queue",
        "requests",
        "rows",
        "service",
        "statuses",
        "successes",
    )

    def __init__(self, wall_s: Callable[[], float] = time.time) -> None:
        """`wall_s` tells the seconds since the epoch."""
        self._wall_s = wall_s
        self.requests = self.successes = self.failed_ns = 0
        self.statuses: dict[int, int] = {}
        """HTTP status -> requests refused or failed with it"""
        self.cache_hits = self.cache_hit_ns = self.cache_misses = self.cache_miss_ns = 0
        self.joins = 0
        self.batches = self.rows = 0
        self.executions = self.inferences = self.computed = 0
        self.input_ns = self.compute_ns = self.output_ns = 0
        self.last_inference_s = 0.0
        self.batch_table: dict[int, list[int]] = {}
        """rows of a batch -> count and nanoseconds of input, compute and output"""
        self.queue, self.service, self.latency = Histogram(), Histogram(), Histogram()

    def received(self) -> None:
        self.requests += 1

    def refused(self, status: int) -> None:
        """It was never queued."""
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def cache_hit(self, ns: int) -> None:
        """The answer was in the cache; `ns` is the time of the look-up."""
        self.cache_hits += 1
        self.cache_hit_ns += ns
        self.last_inference_s = self._wall_s()

    def cache_miss(self, ns: int) -> None:
        """The answer was not in the cache; `ns` is the time of the look-up."""
        self.cache_misses += 1
        self.cache_miss_ns += ns

    def joined(self) -> None:
        """It is answered together with an identical request in flight."""
        self.joins += 1

    def batch_sent(self, rows: int, waits_ns: Sequence[int]) -> None:
        """A batch went to a worker; `waits_ns` says how long each of its requests had waited."""
        self.batches += 1
        self.rows += rows
        for ns in waits_ns:
            self.queue.add(ns)

    def batch_done(
        self, requests: int, rows: int, input_ns: int, compute_ns: int, output_ns: int
    ) -> None:
        """A batch was computed: so long to read its tensors, to run the model, to write the results."""
        self.executions += 1
        self.inferences += rows
        self.computed += requests
        self.input_ns += requests * input_ns
        self.compute_ns += requests * compute_ns
        self.output_ns += requests * output_ns
        self.service.add(compute_ns)
        self.last_inference_s = self._wall_s()
        size = rows if rows <= EXACT_ROWS else 1 << (rows - 1).bit_length()
        try:
            entry = self.batch_table[size]
        except KeyError:
            entry = self.batch_table[size] = [0, 0, 0, 0]
        entry[0] += 1
        entry[1] += input_ns
        entry[2] += compute_ns
        entry[3] += output_ns

    def succeeded(self, latency_ns: int) -> None:
        """It was answered, `latency_ns` after it came."""
        self.successes += 1
        self.latency.add(latency_ns)

    def failed(self, latency_ns: int, status: int) -> None:
        """It was taken, and answered with an error `latency_ns` after it came."""
        self.failed_ns += latency_ns
        self.statuses[status] = self.statuses.get(status, 0) + 1

    @property
    def errors(self) -> int:
        """Requests that were refused or failed."""
        return sum(self.statuses.values())

    def latency_quantile(self, q: float, since: Sequence[int] = ()) -> float | None:
        """The q-quantile of the latency of what succeeded since that `latency.snapshot()`, in ns."""
        return quantile(q, self.latency.counts, since)

    def counters(self) -> dict[str, int]:
        """Sums since the start; a request that joined another one counts as a hit."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "successes": self.successes,
            "latency_ns": self.latency.total_ns,
            "batches": self.batches,
            "rows": self.rows,
            "cache_hits": self.cache_hits + self.joins,
            "cache_misses": self.cache_misses,
            "queue_ns": self.queue.total_ns,
            "compute_ns": self.service.total_ns,
        }

    def triton(self, name: str, version: str) -> dict[str, Any]:
        """One entry of `model_stats` of the V2 statistics extension.

        Follows Triton's docs/protocol/extension_statistics.md and, where that is silent, its
        infer_stats.cc:

        - `inference_count`: rows computed successfully, `execution_count`: batches computed
          successfully; both without cache hits. `last_inference`: milliseconds since the epoch.
        - `success`: requests answered, cache hits and joined requests included, and their latency.
        - `fail`: requests refused or failed, and the latency of those that failed.
        - `queue`: requests that waited for a batch, that were cache hits or that joined (these
          two wait for nothing), and the time waited.
        - `compute_*`: requests computed; each counts the whole time of its batch, so that
          ns / count is what a request saw. One spread over workers counts once per part.
        - `cache_hit`: hits and joined requests (Triton has no word for these), and the look-ups'
          time; `cache_miss`: look-ups that found nothing, and their time.
        - `batch_stats`: by rows in the batch; count and ns are of batches, not of requests.
        """
        hits = self.cache_hits + self.joins
        queued = sum(self.queue.counts) + hits
        return {
            "name": name,
            "version": version,
            "last_inference": int(self.last_inference_s * 1000),
            "inference_count": self.inferences,
            "execution_count": self.executions,
            "inference_stats": {
                "success": _duration(self.successes, self.latency.total_ns),
                "fail": _duration(self.errors, self.failed_ns),
                "queue": _duration(queued, self.queue.total_ns),
                "compute_input": _duration(self.computed, self.input_ns),
                "compute_infer": _duration(self.computed, self.compute_ns),
                "compute_output": _duration(self.computed, self.output_ns),
                "cache_hit": _duration(hits, self.cache_hit_ns),
                "cache_miss": _duration(self.cache_misses, self.cache_miss_ns),
            },
            "batch_stats": [_batch(size, *row) for size, row in sorted(self.batch_table.items())],
        }


def lower_bound_ns(bucket: int) -> int:
    """The smallest time that a `Histogram` counts in this bucket."""
    shift = (bucket >> SUB_BITS) - 1
    return bucket if shift <= 0 else (SUB_BUCKETS + bucket % SUB_BUCKETS) << shift


def quantile(q: float, counts: Sequence[int], since: Sequence[int] = ()) -> float | None:
    """The q-quantile in ns of what was counted after `since`; None where nothing was.

    Straight between a bucket's bounds; the last bucket has none above and gives its lower one.
    """
    fresh = [a - b for a, b in zip(counts, since, strict=True)] if since else counts
    sums = list(accumulate(fresh))
    if not sums[-1]:
        return None
    rank = q * sums[-1]
    bucket = next(i for i, below in enumerate(sums) if below >= rank and fresh[i])
    low = lower_bound_ns(bucket)
    width = lower_bound_ns(bucket + 1) - low if bucket < BUCKETS else 0
    return low + width * (rank - sums[bucket] + fresh[bucket]) / fresh[bucket]


def _batch(size: int, count: int, input_ns: int, compute_ns: int, output_ns: int) -> dict[str, Any]:
    return {
        "batch_size": size,
        "compute_input": _duration(count, input_ns),
        "compute_infer": _duration(count, compute_ns),
        "compute_output": _duration(count, output_ns),
    }


def _duration(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}
