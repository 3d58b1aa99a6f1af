"""What a real proxy says that it has done, against what its clients saw."""

import os
import re
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

FORMATS = {"text/plain": parse_text, "application/openmetrics-text": parse_openmetrics}
NAME = "picky"
LABELS = {"model": NAME, "version": "1"}
# https://prometheus.io/docs/practices/naming/ and what promtool check metrics refuses.
BASE_UNITS = re.compile(r"_(?:milli|micro|nano)?(?:ms|us|ns|minutes|kilobytes|mb|mib|kb)(?:_|$)")
RESERVED = re.compile(r"_(?:count|sum|bucket|info)$|(?:^|_)(?:counter|gauge|histogram|summary)")


class Metrics:
    """One scrape."""

    def __init__(self, url, accept="text/plain"):
        reply = httpx.get(f"{url}/metrics", headers={"accept": accept})
        assert reply.headers["content-type"].startswith(accept)
        self.text = reply.text
        self.families = list(FORMATS[accept](reply.text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def rows(self, name, **labels):
        """Labels and value of each sample that has these labels."""
        return [
            (s.labels, s.value)
            for s in self.samples
            if s.name == name and labels.items() <= s.labels.items()
        ]

    def sum(self, name, **labels):
        rows = self.rows(name, **labels)
        assert rows, name
        return sum(value for _, value in rows)

    def by(self, label, name):
        return {labels[label]: value for labels, value in self.rows(name) if value}


class MixedLoad:
    """Requests of every fate; what their clients saw is counted by status."""

    def __init__(self, proxy):
        self.proxy, self.statuses = proxy, Counter()
        self.url = f"{proxy.url}/v2/models/{NAME}/infer"

    def send(self, *indices, **parameters):
        tensor = {"name": "i", "datatype": "INT64", "shape": [len(indices)], "data": indices}
        body = {"inputs": [tensor], "parameters": parameters}
        self.statuses[httpx.post(self.url, json=body, timeout=60).status_code] += 1

    def run(self):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self.send, [0, 1, 2, 3] * 10))  # computed, hit or joined
            list(pool.map(lambda rows: self.send(*[3] * rows), range(2, 12)))
            list(pool.map(self.send, range(4, 10)))  # which the model refuses
            workers = [psutil.Process(pid) for pid in self.proxy.workers()]
            for worker in workers:
                worker.suspend()
            try:
                sent = self._begun(pool, (0, 1), (0, 2))  # which hold both workers
                self.send(1, 2, timeout=20_000)  # too late
                sent += self._begun(pool, (2, 1), (2, 3))  # which fill the queue
                self.send(3, 1)  # one too many
            finally:
                for worker in workers:
                    worker.resume()
            for one in sent:
                one.result()
        return self

    def _begun(self, pool, *requests):
        """Requests under way, once the proxy has them all."""
        before = self.proxy.ask("counters")["requests"]
        found = [pool.submit(self.send, *request) for request in requests]
        while self.proxy.ask("counters")["requests"] < before + len(requests):
            pass
        return found


@pytest.fixture(scope="module")
def loaded(models, shared_proxies):
    """A proxy that has had every kind of request; nothing is under way any more."""
    config = {"workers": 2, "cache_size": 64, "max_queue_size": 2, "queue_order": "priority"}
    load = MixedLoad(shared_proxies(models.picky(), **config))
    return load.run()


@pytest.fixture(params=FORMATS)
def metrics(request, loaded):
    return Metrics(loaded.proxy.url, request.param)


def test_the_load_was_mixed(loaded):
    assert set(loaded.statuses) == {200, 400, 503, 504}


def test_requests_are_counted_by_the_status_that_their_clients_saw(loaded, metrics):
    seen = metrics.by("status", "dlbench_requests_total")
    assert seen == {str(status): count for status, count in loaded.statuses.items()}


def test_each_histogram_counts_what_it_is_of(loaded, metrics):
    succeeded = metrics.sum("dlbench_requests_total", status="200")
    assert metrics.sum("dlbench_request_seconds_count") == succeeded
    sent = metrics.sum("dlbench_worker_requests_total")
    assert metrics.sum("dlbench_queue_seconds_count") == sent
    batches = metrics.sum("dlbench_service_seconds_count")
    assert metrics.sum("dlbench_batch_rows_count") == batches > 0
    assert metrics.sum("dlbench_batch_rows_sum") == metrics.sum("dlbench_inferences_total")


def test_each_look_up_is_a_hit_a_miss_or_a_join(loaded, metrics):
    names = ("hits", "misses", "joined")
    found = [metrics.sum(f"dlbench_cache_{name}_total") for name in names]
    assert sum(found) == sum(loaded.statuses.values())
    computed = metrics.sum("dlbench_cache_entries")
    assert computed <= found[1]
    assert metrics.sum("dlbench_cache_bytes") >= 560 * computed


def test_buckets_are_cumulative_and_end_with_all(metrics):
    histograms = [family for family in metrics.families if family.type == "histogram"]
    assert len(histograms) == 4
    for family in histograms:
        rows = metrics.rows(f"{family.name}_bucket", **LABELS)
        bounds = [float(labels["le"]) for labels, _ in rows]
        counts = [count for _, count in rows]
        assert bounds == sorted(set(bounds))
        assert counts == sorted(counts)
        assert bounds[-1] == float("inf")
        assert counts[-1] == metrics.sum(f"{family.name}_count", **LABELS)


def test_workers_and_their_processes(loaded, metrics):
    names = {"worker-0", "worker-1"}
    for name in ("up", "requests_total", "restarts_total", "outstanding"):
        assert {labels["worker"] for labels, _ in metrics.rows(f"dlbench_worker_{name}")} == names
    assert metrics.by("worker", "dlbench_worker_up") == dict.fromkeys(names, 1)
    for name in ("cpu_seconds_total", "resident_memory_bytes"):
        rows = metrics.rows(f"dlbench_process_{name}")
        assert sorted(labels["worker"] for labels, _ in rows) == ["", *sorted(names)]
        assert all(value > 0 for _, value in rows)


def test_nothing_is_under_way(metrics):
    for name in ("queue_length", "in_flight_requests", "worker_outstanding"):
        assert metrics.sum(f"dlbench_{name}") == 0
    assert metrics.sum("dlbench_connections") >= 1


def test_names_follow_the_rules(metrics):
    for family in metrics.families:
        assert re.fullmatch(r"dlbench_[a-z][a-z0-9_]*", family.name)
        assert family.documentation
        assert not BASE_UNITS.search(family.name), family.name
        assert not RESERVED.search(family.name), family.name
        samples = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert samples <= {f"{family.name}_total"}
        else:
            assert not family.name.endswith("_total")
        keys = {(s.name, *sorted(s.labels.items())) for s in family.samples}
        assert len(keys) == len(family.samples)
    names = [family.name for family in metrics.families]
    assert len(set(names)) == len(names)


def test_both_formats_say_the_same(loaded):
    plain, openmetrics = (Metrics(loaded.proxy.url, accept) for accept in FORMATS)
    assert openmetrics.text.endswith("# EOF\n")

    def counted(metrics):
        changing = ("dlbench_connections", "dlbench_process_")
        rows = [(s.name, s.labels, s.value) for s in metrics.samples]
        return [row for row in rows if not row[0].startswith(changing)]

    assert counted(plain) == counted(openmetrics)


def test_the_statistics_of_v2_add_up(loaded):
    (found,) = httpx.get(f"{loaded.proxy.url}/v2/models/{NAME}/stats").json()["model_stats"]
    (same,) = httpx.get(f"{loaded.proxy.url}/v2/models/stats").json()["model_stats"]
    assert same == found
    seen = found["inference_stats"]
    metrics = Metrics(loaded.proxy.url)
    assert seen["success"]["count"] == loaded.statuses[200]
    assert seen["fail"]["count"] == loaded.statuses.total() - loaded.statuses[200]
    batches = found["batch_stats"]
    assert sum(b["compute_infer"]["count"] for b in batches) == found["execution_count"]
    rows = sum(b["batch_size"] * b["compute_infer"]["count"] for b in batches)
    assert rows == found["inference_count"] == metrics.sum("dlbench_inferences_total")
    for part in ("compute_input", "compute_infer", "compute_output"):
        assert seen[part]["count"] == seen["compute_infer"]["count"]
        assert seen[part]["ns"] >= sum(b[part]["ns"] for b in batches)
    hits = seen["cache_hit"]["count"]
    assert hits + seen["compute_infer"]["count"] == seen["success"]["count"]
    assert hits + seen["cache_miss"]["count"] == loaded.statuses.total()
    assert seen["queue"]["count"] == metrics.sum("dlbench_queue_seconds_count") + hits


def test_two_models_are_counted_apart_and_one_that_left_is_gone(models, start_proxy):
    proxy = start_proxy(models.affine(), {"also": [f"second={models.affine()}"]})
    x = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    for name in ("affine", "second", "second"):
        httpx.post(f"{proxy.url}/v2/models/{name}/infer", json={"inputs": [x]})
    metrics = Metrics(proxy.url)
    assert metrics.by("model", "dlbench_requests_total") == {"affine": 1, "second": 2}
    workers = metrics.rows("dlbench_worker_requests_total")
    assert [(labels["model"], value) for labels, value in workers] == [("affine", 1), ("second", 2)]
    httpx.post(f"{proxy.url}/v2/repository/models/second/unload")
    metrics = Metrics(proxy.url)
    assert metrics.by("model", "dlbench_requests_total") == {"affine": 1}
    assert {labels["model"] for labels, _ in metrics.rows("dlbench_worker_up")} == {"affine"}


def test_a_worker_that_was_replaced(models, start_proxy):
    proxy = start_proxy(models.affine(), workers=2)
    (killed, _) = proxy.workers()
    os.kill(killed, signal.SIGKILL)
    while not (restarts := Metrics(proxy.url).by("worker", "dlbench_worker_restarts_total")):
        pass
    assert restarts == {"worker-0": 1}
    assert Metrics(proxy.url).by("worker", "dlbench_worker_up") == {"worker-0": 1, "worker-1": 1}
