"""What two looks at a proxy's /metrics say about the time between them. Pure.

Field names are those of the CSV. A value that could not be measured is None.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Key = tuple[str, frozenset[tuple[str, str]]]

MS_PER_S = 1e3
BYTES_PER_MB = 1e6
OK = "200"


@dataclass(frozen=True)
class Scrape:
    """All samples of one look, and when it was taken, in seconds of any steady clock."""

    at_s: float
    samples: Mapping[Key, float]

    def of(self, name: str, **labels: str) -> float:
        """A sample's value; 0 where there is none."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def labels_of(self, name: str) -> list[dict[str, str]]:
        """The labels of every sample of that name, in their order."""
        return [dict(labels) for found, labels in self.samples if found == name]


@dataclass(frozen=True)
class WorkerRow:
    """One worker; `cpu` is in cores kept busy, `outstanding` waits for it or runs on it now."""

    name: str
    up: bool
    outstanding: int
    throughput_rps: float
    restarts: int
    cpu: float
    rss_mb: float


@dataclass(frozen=True)
class ModelRow:
    """One version of a model; latencies are of the requests that were answered with 200."""

    model: str
    version: str
    throughput_rps: float
    p50_ms: float | None
    p99_ms: float | None
    mean_ms: float | None
    queue_mean_ms: float | None
    error_rate: float | None
    errors: Mapping[str, int]
    queue_length: int
    in_flight: int
    mean_batch_size: float | None
    cache_hit_ratio: float | None
    workers: Sequence[WorkerRow]


@dataclass(frozen=True)
class GpuRow:
    """One GPU as it is now; `gpu_util` from 0 to 1."""

    gpu: str
    gpu_util: float | None
    gpu_mem_mb: float


@dataclass(frozen=True)
class View:
    """A proxy over `duration_s`; `server_cpu` is in cores, front and workers together."""

    duration_s: float
    connections: int
    server_cpu: float
    server_rss_mb: float
    models: Sequence[ModelRow]
    gpus: Sequence[GpuRow] = field(default=())


def parse(text: str, at_s: float) -> Scrape:
    """The samples of a text exposition.

    Raises:
        ValueError: it is none.
    """
    return Scrape(
        at_s,
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        },
    )


def between(before: Scrape, after: Scrape) -> View:
    """The change between two scrapes. A counter that fell was reset and counts from 0."""
    window = _Window(before, after)
    processes = after.labels_of("dlbench_process_cpu_seconds_total")
    rss = after.labels_of("dlbench_process_resident_memory_bytes")
    return View(
        duration_s=window.duration_s,
        connections=int(after.of("dlbench_connections")),
        server_cpu=sum(window.rate("dlbench_process_cpu_seconds_total", **p) for p in processes),
        server_rss_mb=sum(after.of("dlbench_process_resident_memory_bytes", **p) for p in rss)
        / BYTES_PER_MB,
        models=[_model(window, **labels) for labels in after.labels_of("dlbench_queue_length")],
        gpus=[_gpu(after, **gpu) for gpu in after.labels_of("dlbench_gpu_memory_used_bytes")],
    )


def quantile(q: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """The q-quantile from (upper bound, count up to it), straight inside a bucket.

    What lies above the last finite bound is given as that bound, as Prometheus'
    histogram_quantile does. None where nothing was counted.
    """
    total = buckets[-1][1] if buckets else 0
    if not total:
        return None
    rank = q * total
    for (low, below), (high, upto) in pairwise([(0.0, 0.0), *buckets]):
        if upto >= rank and upto > below:
            return (
                low
                if high == float("inf")
                else low + (high - low) * (rank - below) / (upto - below)
            )
    return None


class _Window:
    """Differences of two looks."""

    def __init__(self, before: Scrape, after: Scrape) -> None:
        self.before, self.after = before, after
        self.duration_s = after.at_s - before.at_s

    def rose(self, name: str, **labels: str) -> float:
        was, now = self.before.of(name, **labels), self.after.of(name, **labels)
        return now - was if now >= was else now

    def rate(self, name: str, **labels: str) -> float:
        return self.rose(name, **labels) / self.duration_s

    def mean(self, name: str, **labels: str) -> float | None:
        return _ratio(self.rose(f"{name}_sum", **labels), self.rose(f"{name}_count", **labels))

    def quantile(self, q: float, name: str, **labels: str) -> float | None:
        """Of a histogram's observations between the looks."""
        after, total = self.after, f"{name}_count"
        began_anew = after.of(total, **labels) < self.before.of(total, **labels)
        before = Scrape(self.before.at_s, {}) if began_anew else self.before
        name = f"{name}_bucket"
        found = [key for key in after.labels_of(name) if labels.items() <= key.items()]
        buckets = [
            (float(key["le"]), after.of(name, **key) - before.of(name, **key)) for key in found
        ]
        return quantile(q, sorted(buckets))


def _model(window: _Window, model: str, version: str) -> ModelRow:
    key = {"model": model, "version": version}
    statuses = {
        found["status"]: int(window.rose("dlbench_requests_total", **found))
        for found in window.after.labels_of("dlbench_requests_total")
        if key.items() <= found.items()
    }
    errors = {status: count for status, count in sorted(statuses.items()) if count and status != OK}
    found = window.rose("dlbench_cache_hits_total", **key)
    found += window.rose("dlbench_cache_joined_total", **key)
    looked_for = found + window.rose("dlbench_cache_misses_total", **key)
    return ModelRow(
        model,
        version,
        throughput_rps=statuses.get(OK, 0) / window.duration_s,
        p50_ms=_ms(window.quantile(0.5, "dlbench_request_seconds", **key)),
        p99_ms=_ms(window.quantile(0.99, "dlbench_request_seconds", **key)),
        mean_ms=_ms(window.mean("dlbench_request_seconds", **key)),
        queue_mean_ms=_ms(window.mean("dlbench_queue_seconds", **key)),
        error_rate=_ratio(sum(errors.values()), sum(statuses.values())),
        errors=errors,
        queue_length=int(window.after.of("dlbench_queue_length", **key)),
        in_flight=int(window.after.of("dlbench_in_flight_requests", **key)),
        mean_batch_size=window.mean("dlbench_batch_rows", **key),
        cache_hit_ratio=_ratio(found, looked_for),
        workers=[
            _worker(window, **labels)
            for labels in window.after.labels_of("dlbench_worker_up")
            if key.items() <= labels.items()
        ],
    )


def _worker(window: _Window, **key: str) -> WorkerRow:
    after, process = window.after, {"role": "worker", **key}
    return WorkerRow(
        key["worker"],
        up=bool(after.of("dlbench_worker_up", **key)),
        outstanding=int(after.of("dlbench_worker_outstanding", **key)),
        throughput_rps=window.rate("dlbench_worker_requests_total", **key),
        restarts=int(after.of("dlbench_worker_restarts_total", **key)),
        cpu=window.rate("dlbench_process_cpu_seconds_total", **process),
        rss_mb=after.of("dlbench_process_resident_memory_bytes", **process) / BYTES_PER_MB,
    )


def _gpu(after: Scrape, gpu: str) -> GpuRow:
    known = {"gpu": gpu} in after.labels_of("dlbench_gpu_utilization_ratio")
    return GpuRow(
        gpu,
        gpu_util=after.of("dlbench_gpu_utilization_ratio", gpu=gpu) if known else None,
        gpu_mem_mb=after.of("dlbench_gpu_memory_used_bytes", gpu=gpu) / BYTES_PER_MB,
    )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * MS_PER_S
