"""What GET /metrics answers: everything that is counted, in Prometheus' words.

Nothing here is on the way of a request: the counts are read when somebody asks. Names follow
https://prometheus.io/docs/practices/naming/: base units, counters end in `_total`.
"""

from __future__ import annotations

import os
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from dlbench.proxy.telemetry.resources import find_gpus, process_usage
from dlbench.proxy.telemetry.stats import BUCKETS, EXACT_ROWS, lower_bound_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dlbench.proxy.telemetry.resources import Gpus, GpuUsage, ProcessUsage
    from dlbench.proxy.telemetry.stats import Histogram, ModelStats

    Rows = Iterable[tuple[Sequence[str], float]]

NS_PER_S = 1e9
# Every second bucket from 4 us, less than a cache hit takes, to 69 s: steps of 1.5 and 1.33.
LATENCY_BUCKETS = [b for b in range(BUCKETS) if 1 << 12 <= lower_bound_ns(b) <= 1 << 36][::2]
TIME_BOUNDS = [(str(lower_bound_ns(bucket) / NS_PER_S), bucket) for bucket in LATENCY_BUCKETS]
ROW_BOUNDS = [1 << bits for bits in range(EXACT_ROWS.bit_length())]
OK = "200"


class WorkerSeen(NamedTuple):
    """A model's worker now; `requests` and `restarts` are counted since the start."""

    name: str
    alive: bool
    outstanding: int
    requests: int
    pid: int | None  # None: on another machine
    restarts: int = 0


class ModelFigures(Protocol):
    """The figures of a model."""

    @property
    def name(self) -> str:
        """What clients call it."""

    @property
    def version(self) -> str:
        """The version in its paths."""

    @property
    def stats(self) -> ModelStats:
        """Everything that was counted."""

    @property
    def waiting(self) -> int:
        """Requests in queues."""

    @property
    def in_flight(self) -> int:
        """Requests taken and not answered yet."""

    @property
    def cache_entries(self) -> int:
        """Results in the cache."""

    @property
    def cache_bytes(self) -> int:
        """Bytes of results in the cache."""

    def workers_seen(self) -> Sequence[WorkerSeen]:
        """Its workers, those that are being replaced included."""


MODEL_COUNTERS: tuple[tuple[str, str, Callable[[ModelFigures], float]], ...] = (
    ("dlbench_inferences", "Rows computed", lambda m: m.stats.inferences),
    ("dlbench_cache_hits", "Requests answered from the cache", lambda m: m.stats.cache_hits),
    ("dlbench_cache_misses", "Requests not found in the cache", lambda m: m.stats.cache_misses),
    (
        "dlbench_cache_joined",
        "Requests answered with an identical one in flight",
        lambda m: m.stats.joins,
    ),
)
MODEL_GAUGES: tuple[tuple[str, str, Callable[[ModelFigures], float]], ...] = (
    ("dlbench_queue_length", "Requests that wait for a worker", lambda m: m.waiting),
    ("dlbench_in_flight_requests", "Requests accepted, not answered yet", lambda m: m.in_flight),
    ("dlbench_cache_entries", "Results in the cache", lambda m: m.cache_entries),
    ("dlbench_cache_bytes", "Bytes of results in the cache", lambda m: m.cache_bytes),
)
MODEL_HISTOGRAMS: tuple[tuple[str, str, Callable[[ModelFigures], Histogram]], ...] = (
    ("dlbench_queue_seconds", "Wait of a request for its batch", lambda m: m.stats.queue),
    ("dlbench_service_seconds", "Run of the model on one batch", lambda m: m.stats.service),
    (
        "dlbench_request_seconds",
        "Latency of requests that were answered with status 200",
        lambda m: m.stats.latency,
    ),
)
WORKER_COUNTERS: tuple[tuple[str, str, Callable[[WorkerSeen], float]], ...] = (
    ("dlbench_worker_requests", "Requests sent to the worker", lambda w: w.requests),
    ("dlbench_worker_restarts", "Times the worker was replaced", lambda w: w.restarts),
)
WORKER_GAUGES: tuple[tuple[str, str, Callable[[WorkerSeen], float]], ...] = (
    ("dlbench_worker_up", "1 while the worker takes requests", lambda w: w.alive),
    (
        "dlbench_worker_outstanding",
        "Requests that wait for the worker or run on it",
        lambda w: w.outstanding,
    ),
)
GPU_GAUGES: tuple[tuple[str, str, Callable[[GpuUsage], float | None]], ...] = (
    ("dlbench_gpu_utilization_ratio", "Share of time a kernel ran", lambda g: g.utilization),
    ("dlbench_gpu_memory_used_bytes", "Memory in use by all processes", lambda g: g.used_bytes),
    ("dlbench_gpu_memory_total_bytes", "Memory of the GPU", lambda g: g.total_bytes),
)
MODEL_LABELS = ("model", "version")
WORKER_LABELS = (*MODEL_LABELS, "worker")
PROCESS_LABELS = ("role", *WORKER_LABELS)


class Exposition:
    """The metrics of a proxy as text."""

    def __init__(
        self,
        models: Callable[[], Sequence[ModelFigures]],
        connections: Callable[[], int],
        gpus: Gpus | None = None,
    ) -> None:
        """`models` tells what is served now, `connections` how many clients are connected."""
        self._registry = CollectorRegistry()
        self._registry.register(_Proxy(models, connections, gpus or find_gpus()))

    def render(self, accept: bytes = b"") -> tuple[bytes, bytes]:
        """Content type and body; OpenMetrics where the Accept header names it."""
        if b"application/openmetrics-text" in accept.lower():
            body: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return openmetrics.CONTENT_TYPE_LATEST.encode(), body
        return CONTENT_TYPE_PLAIN_0_0_4.encode(), generate_latest(self._registry)


class _Proxy(Collector):
    """Reads what is counted, at the moment that it is asked for."""

    def __init__(
        self,
        models: Callable[[], Sequence[ModelFigures]],
        connections: Callable[[], int],
        gpus: Gpus,
    ) -> None:
        self._models, self._connections, self._gpus = models, connections, gpus

    def collect(self) -> Iterator[Metric]:
        models = [((model.name, model.version), model) for model in self._models()]
        workers = [
            ((*labels, worker.name), worker)
            for labels, model in models
            for worker in model.workers_seen()
        ]
        yield GaugeMetricFamily("dlbench_connections", "Open connections", self._connections())
        yield from _of_models(models)
        for name, text, worker_value in WORKER_COUNTERS:
            yield _counter(name, text, WORKER_LABELS, [(k, worker_value(w)) for k, w in workers])
        for name, text, worker_value in WORKER_GAUGES:
            yield _gauge(name, text, WORKER_LABELS, [(k, worker_value(w)) for k, w in workers])
        yield from _of_processes(
            {("worker", *k): w.pid for k, w in workers if w.alive and w.pid is not None}
        )
        gpus = [((str(gpu.number),), gpu) for gpu in self._gpus.usage()]
        for name, text, gpu_value in GPU_GAUGES:
            known = [(k, value) for k, g in gpus if (value := gpu_value(g)) is not None]
            yield _gauge(name, text, ("gpu",), known)


def _of_models(models: Sequence[tuple[Sequence[str], ModelFigures]]) -> Iterator[Metric]:
    statuses = [((*k, status), n) for k, m in models for status, n in _statuses(m.stats)]
    yield _counter(
        "dlbench_requests", "Requests answered, by status", (*MODEL_LABELS, "status"), statuses
    )
    for name, text, value in MODEL_COUNTERS:
        yield _counter(name, text, MODEL_LABELS, [(k, value(m)) for k, m in models])
    for name, text, value in MODEL_GAUGES:
        yield _gauge(name, text, MODEL_LABELS, [(k, value(m)) for k, m in models])
    for name, text, histogram in MODEL_HISTOGRAMS:
        family = HistogramMetricFamily(name, text, labels=MODEL_LABELS)
        for labels, model in models:
            found = histogram(model)
            family.add_metric(labels, _time_buckets(found), found.total_ns / NS_PER_S)
        yield family
    family = HistogramMetricFamily("dlbench_batch_rows", "Rows in a batch", labels=MODEL_LABELS)
    for labels, model in models:
        family.add_metric(labels, _row_buckets(model.stats), model.stats.inferences)
    yield family


def _of_processes(workers: Mapping[Sequence[str], int]) -> Iterator[Metric]:
    """One CPU counter per process: a sum over workers would fall when one is replaced."""
    pids = {("front", "", "", ""): os.getpid(), **workers}
    used = process_usage(pids.values())
    seen: list[tuple[Sequence[str], ProcessUsage]] = [
        (labels, used[pid]) for labels, pid in pids.items() if pid in used
    ]
    yield _counter(
        "dlbench_process_cpu_seconds",
        "User and system CPU time",
        PROCESS_LABELS,
        [(k, u.cpu_s) for k, u in seen],
    )
    yield _gauge(
        "dlbench_process_resident_memory_bytes",
        "Resident memory",
        PROCESS_LABELS,
        [(k, u.rss_bytes) for k, u in seen],
    )


def _statuses(stats: ModelStats) -> Iterator[tuple[str, int]]:
    yield OK, stats.successes
    for status, count in sorted(stats.statuses.items()):
        yield str(status), count


def _time_buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts; a bound counts what is below it, by a nanosecond less than `le` promises."""
    below = [0, *accumulate(histogram.counts)]
    return [*((bound, below[bucket]) for bound, bucket in TIME_BOUNDS), ("+Inf", below[-1])]


def _row_buckets(stats: ModelStats) -> list[tuple[str, float]]:
    table = stats.batch_table
    buckets: list[tuple[str, float]] = [
        (str(float(bound)), sum(row[0] for rows, row in table.items() if rows <= bound))
        for bound in ROW_BOUNDS
    ]
    return [*buckets, ("+Inf", stats.executions)]


def _counter(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _gauge(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family
