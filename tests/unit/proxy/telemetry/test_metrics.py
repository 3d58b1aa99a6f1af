"""The exposition, read back by Prometheus' own parsers."""

import os
from dataclasses import dataclass, field

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from dlbench.proxy.telemetry.metrics import Exposition, WorkerSeen
from dlbench.proxy.telemetry.resources import GpuUsage, NoGpus, NvmlGpus, find_gpus
from dlbench.proxy.telemetry.stats import ModelStats

GONE = 2**22 + 1  # over the highest pid that Linux gives out


@dataclass
class Model:
    name: str = "mlp"
    version: str = "1"
    stats: ModelStats = field(default_factory=ModelStats)
    waiting: int = 3
    in_flight: int = 5
    cache_entries: int = 7
    cache_bytes: int = 700
    workers: tuple = ()

    def workers_seen(self):
        return self.workers


class OneGpu:
    def usage(self):
        return [GpuUsage(0, 0.25, 10, 100), GpuUsage(1, None, 20, 100)]


def busy_model(name="mlp"):
    stats = ModelStats()
    for rows, service_ns in ((1, 900_000), (3, 1_100_000), (8, 2_000_000)):
        for _ in range(rows):
            stats.received()
        stats.batch_sent(rows, [50_000] * rows)
        stats.batch_done(rows, rows, 100, service_ns, 100)
        for _ in range(rows):
            stats.succeeded(service_ns + 60_000)
    for _ in range(4):
        stats.received()
    stats.cache_hit(1000)
    stats.succeeded(3000)
    stats.joined()
    stats.succeeded(900_000)
    stats.refused(503)
    stats.failed(80_000, 504)
    workers = (
        WorkerSeen("worker-0", True, 2, 12, os.getpid(), 1),
        WorkerSeen("worker-1", False, 0, 0, GONE),
    )
    return Model(name, stats=stats, workers=workers)


def scraped(*models, accept=b"", gpus=None):
    kind, body = Exposition(lambda: models, lambda: 9, gpus or NoGpus()).render(accept)
    parse = parse_openmetrics if b"openmetrics" in kind else parse_text
    families = list(parse(body.decode()))
    samples = {
        (s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples
    }
    return families, samples


def value(samples, name, **labels):
    return samples[(name, *sorted(labels.items()))]


@pytest.mark.parametrize("accept", [b"", b"application/openmetrics-text; version=1.0.0, */*"])
def test_everything_counted_can_be_read_back(accept):
    _, samples = scraped(busy_model(), accept=accept, gpus=OneGpu())
    mlp = {"model": "mlp", "version": "1"}
    assert value(samples, "dlbench_connections") == 9
    assert value(samples, "dlbench_requests_total", status="200", **mlp) == 14
    assert value(samples, "dlbench_requests_total", status="503", **mlp) == 1
    assert value(samples, "dlbench_requests_total", status="504", **mlp) == 1
    assert value(samples, "dlbench_inferences_total", **mlp) == 12
    assert value(samples, "dlbench_cache_hits_total", **mlp) == 1
    assert value(samples, "dlbench_cache_joined_total", **mlp) == 1
    assert value(samples, "dlbench_queue_length", **mlp) == 3
    assert value(samples, "dlbench_in_flight_requests", **mlp) == 5
    assert value(samples, "dlbench_cache_entries", **mlp) == 7
    assert value(samples, "dlbench_cache_bytes", **mlp) == 700
    assert value(samples, "dlbench_worker_up", worker="worker-0", **mlp) == 1
    assert value(samples, "dlbench_worker_up", worker="worker-1", **mlp) == 0
    assert value(samples, "dlbench_worker_requests_total", worker="worker-0", **mlp) == 12
    assert value(samples, "dlbench_worker_restarts_total", worker="worker-0", **mlp) == 1
    assert value(samples, "dlbench_worker_outstanding", worker="worker-0", **mlp) == 2
    assert value(samples, "dlbench_gpu_utilization_ratio", gpu="0") == 0.25
    assert value(samples, "dlbench_gpu_memory_used_bytes", gpu="1") == 20
    assert ("dlbench_gpu_utilization_ratio", ("gpu", "1")) not in samples


def test_histograms_are_cumulative_and_add_up():
    _, samples = scraped(busy_model())
    mlp = {"model": "mlp", "version": "1"}
    for name, count, total in (
        ("dlbench_queue_seconds", 12, 12 * 50e-6),
        ("dlbench_service_seconds", 3, 4e-3),
        ("dlbench_request_seconds", 14, 1 * 960e-6 + 3 * 1160e-6 + 8 * 2060e-6 + 903e-6),
        ("dlbench_batch_rows", 3, 12),
    ):
        buckets = sorted(
            (float(dict(key[1:])["le"]), n)
            for key, n in samples.items()
            if key[0] == f"{name}_bucket"
        )
        assert [n for _, n in buckets] == sorted(n for _, n in buckets)
        assert buckets[-1] == (float("inf"), count)
        assert value(samples, f"{name}_count", **mlp) == count
        assert value(samples, f"{name}_sum", **mlp) == pytest.approx(total)
    assert value(samples, "dlbench_batch_rows_bucket", le="2.0", **mlp) == 1
    assert value(samples, "dlbench_batch_rows_bucket", le="4.0", **mlp) == 2
    assert value(samples, "dlbench_service_seconds_bucket", le="0.001048576", **mlp) == 1


def test_each_process_has_its_own_cpu_counter_and_one_that_is_gone_has_none():
    _, samples = scraped(busy_model())
    name = "dlbench_process_cpu_seconds_total"
    found = {dict(key[1:])["worker"] for key in samples if key[0] == name}
    assert found == {"", "worker-0"}
    assert value(samples, name, role="front", model="", version="", worker="") > 0


def test_two_models_and_none():
    families, samples = scraped(busy_model("a"), busy_model('b"\\\n'))
    assert len({family.name for family in families}) == len(families)
    assert value(samples, "dlbench_queue_length", model='b"\\\n', version="1") == 3
    families, _ = scraped()
    assert "dlbench_request_seconds" in {family.name for family in families}


def test_names_follow_the_rules():
    families, _ = scraped(busy_model(), accept=b"application/openmetrics-text", gpus=OneGpu())
    for family in families:
        assert family.name.startswith("dlbench_")
        assert family.documentation
        assert (family.type == "counter") == any(s.name.endswith("_total") for s in family.samples)
        assert not family.name.endswith(("_ms", "_ns", "_mb", "_percent"))


class FakeNvml:
    """A driver with a partitioned GPU and one that fell off the bus."""

    class NVMLError(Exception):
        pass

    class Memory:
        used, total = 30, 80

    def nvmlDeviceGetCount(self):  # noqa: N802 - the library's name
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        if handle == 1:
            raise self.NVMLError
        return self.Memory

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        raise self.NVMLError


def test_a_gpu_that_does_not_answer_is_left_out():
    assert NvmlGpus(FakeNvml()).usage() == [GpuUsage(0, None, 30, 80)]


def test_the_gpus_of_this_machine_can_be_asked_for_wherever_we_run():
    assert all(gpu.total_bytes >= gpu.used_bytes >= 0 for gpu in find_gpus().usage())
