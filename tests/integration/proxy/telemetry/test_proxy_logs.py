"""The access log and the spans of a real proxy: one of each per request, and whose they are."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import product
from threading import Thread

import httpx
import numpy as np
import psutil
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service

from testbed.messages import INFER, X, post
from testbed.patience import eventually

LOGGED = {"log_format": "json", "access_log": True}
FIELDS = {"ts", "level", "logger", "message", "request_id", "method", "path", "status"} | {
    "latency_ms"
}


@pytest.fixture
def logged(models, start_proxy, capfd):
    """A function that starts a proxy with an access log; another stops it and gives its lines by id."""

    def start(**config):
        running.append(start_proxy(models.affine(), LOGGED, **config))
        return running[-1]

    def lines():
        assert running[-1].stop() == 0
        rows = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
        found = {row["request_id"]: row for row in rows}
        assert len(found) == len(rows)
        assert all(set(row) == FIELDS for row in rows)
        return found

    running = []
    return start, lines


def test_each_of_many_at_once_has_its_line_and_its_id(logged):
    start, lines = logged
    proxy = start(cache_size=8)
    asks = {
        "ok": ("POST", INFER, {"inputs": [X]}, 200),
        "predict": ("POST", "/predict?a=1", {"input": [1, 2, 3]}, 200),
        "broken": ("POST", INFER, {"inputs": [{**X, "shape": [3, 1]}]}, 400),
        "nowhere": ("GET", "/nowhere", None, 404),
        "wrong": ("PUT", INFER, None, 405),
        "health": ("GET", "/v2/health/live", None, 200),
        "head": ("HEAD", "/v2", None, 200),
    }

    def ask(number):
        with httpx.Client(base_url=proxy.url, timeout=60) as client:
            for kind, (method, path, body, status) in asks.items():
                headers = {"x-request-id": f"{kind}-{number}"}
                reply = client.request(method, path, json=body, headers=headers)
                assert (reply.status_code, reply.headers["x-request-id"]) == (
                    status,
                    f"{kind}-{number}",
                )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(24)))
    found = lines()
    assert len(found) == 24 * len(asks)
    for request_id, line in found.items():
        method, path, _, status = asks[request_id.partition("-")[0]]
        assert (line["method"], line["path"], line["status"]) == (method, path, status)
        assert line["latency_ms"] > 0
        assert line["message"].startswith(f"{method} {path} {status} ")


def test_an_id_is_made_where_there_is_none_that_is_sane(logged):
    start, lines = logged
    proxy, made = start(cache_size=8), []
    for given in (None, "", "two words", "a" * 129, 'quo"te', "\xe9"):
        headers = {} if given is None else {"x-request-id": given.encode("latin-1")}
        made.append(httpx.get(f"{proxy.url}/v2", headers=headers).headers["x-request-id"])
        assert made[-1] != given
    assert list(lines()) == made


def test_pipelined_requests_keep_their_ids(logged):
    start, lines = logged
    proxy = start(cache_size=8)
    with proxy.client() as client:
        for i in range(20):
            client.send(post(headers=f"X-Request-Id: {i}\r\n"))
        assert [client.reply()[1]["x-request-id"] for _ in range(20)] == [*map(str, range(20))]
    assert set(lines()) == set(map(str, range(20)))


def test_who_fetches_a_result_later_has_lines_of_both(logged):
    start, lines = logged
    proxy = start(cache_size=8)
    with httpx.Client(base_url=proxy.url) as client:
        headers = {"prefer": "respond-async", "x-request-id": "ask"}
        reply = client.post(INFER, json={"inputs": [X]}, headers=headers)
        assert reply.headers["x-request-id"] == "ask"
        location = reply.headers["location"]
        while (found := client.get(location)).status_code == 202:
            pass
        assert found.headers.get_list("x-request-id") == [found.headers["x-request-id"]]
    found = lines()
    assert found["ask"]["status"] == 202
    assert {line["path"] for name, line in found.items() if name != "ask"} == {location}


def test_what_is_late_or_too_much_is_noted_as_such(logged):
    start, lines = logged
    proxy = start(queue_order="priority", max_queue_size=1)
    (pid,) = proxy.workers()

    def ask(name, **parameters):
        body = {"inputs": [X], "parameters": parameters}
        headers = {"x-request-id": name}
        return httpx.post(f"{proxy.url}{INFER}", json=body, headers=headers, timeout=60)

    with ThreadPoolExecutor(2) as pool:
        psutil.Process(pid).suspend()
        try:
            first = pool.submit(ask, "first")
            while proxy.ask("counters")["requests"] < 1:
                pass
            assert ask("late", timeout=20_000).status_code == 504
            waits = pool.submit(ask, "waits")
            while proxy.ask("counters")["requests"] < 3:
                pass
            assert ask("much").status_code == 503
        finally:
            psutil.Process(pid).resume()
        assert (first.result().status_code, waits.result().status_code) == (200, 200)
    statuses = {name: line["status"] for name, line in lines().items()}
    assert statuses == {"late": 504, "much": 503, "first": 200, "waits": 200}


def test_as_text_it_is_one_line_too(models, start_proxy, capfd):
    proxy = start_proxy(models.affine(), {"access_log": True})
    headers = {"x-request-id": "7"}
    assert httpx.get(f"{proxy.url}/a%0ab%1b[31m", headers=headers).status_code == 404
    proxy.stop()
    log = capfd.readouterr().err
    assert log.startswith("GET /a%0ab%1b[31m 404 ")
    assert log.endswith(" 7\n")


class Collector:
    """An OTLP receiver; `spans` has all that came, by trace id and in order."""

    def __init__(self):
        self.spans = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                collector.take(self.rfile.read(int(self.headers["content-length"])), self.headers)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    def take(self, body, headers):
        request = trace_service.ExportTraceServiceRequest()
        packed = headers.get("content-encoding") == "gzip"
        request.ParseFromString(gzip.decompress(body) if packed else body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector():
    found = Collector()
    yield found
    found.close()


def attributes(span):
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def trace(number):
    return f"{number:032x}", f"00-{number:032x}-{number:016x}-01"


@pytest.fixture
def traced(models, start_proxy, collector):
    """Like start_proxy with a collector, and a function that stops it and gives the spans."""
    running = []

    def start(model, settings=None, **config):
        settings = {"otlp_endpoint": collector.url, **(settings or {})}
        running.append(start_proxy(model, settings, **config))
        return running[-1]

    def spans():
        assert running[-1].stop() == 0
        return {span.trace_id.hex(): span for span in collector.spans}

    return start, spans


def test_spans_arrive_with_times_in_the_traces_of_their_callers(models, traced):
    start, spans = traced
    proxy = start(models.affine(), workers=2, max_batch_size=4)

    def ask(number):
        headers = {"traceparent": trace(number)[1]}
        body = {"inputs": [{**X, "shape": [2, 3], "data": [number] * 6}]}
        assert httpx.post(f"{proxy.url}{INFER}", json=body, headers=headers).status_code == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(1, 41)))
    found = spans()
    assert set(found) == {trace(number)[0] for number in range(1, 41)}
    for trace_id, span in found.items():
        assert span.parent_span_id.hex() == trace_id[16:]
        seen = attributes(span)
        assert (span.name, seen["dlbench.model"]) == ("infer affine", "affine")
        assert seen["http.response.status_code"] == 200
        assert seen["dlbench.queue_ns"] > 0
        assert seen["dlbench.compute_ns"] > 0
        assert seen["dlbench.batch_rows"] in (2, 4)
        whole = span.end_time_unix_nano - span.start_time_unix_nano
        assert seen["dlbench.queue_ns"] + seen["dlbench.compute_ns"] <= whole


def test_whatever_the_protocol(models, traced):
    start, spans = traced
    proxy = start(models.affine())
    paths = (INFER, "/v1/models/affine:predict", "/predictions/affine")
    for number, (path, prefer) in enumerate(product(paths, ("", "respond-async")), 1):
        body = {"inputs": [X]} if path == INFER else {"instances": [[1, 2, 3]]}
        headers = {"traceparent": trace(number)[1], "prefer": prefer}
        assert httpx.post(f"{proxy.url}{path}", json=body, headers=headers).is_success
    eventually(lambda: not proxy.ask("counters")["in_flight"])
    found = spans()
    assert set(found) == {trace(number)[0] for number in range(1, 7)}
    assert all(attributes(span)["dlbench.compute_ns"] > 0 for span in found.values())


def test_grpc(models, traced):
    grpcclient = pytest.importorskip("tritonclient.grpc")
    start, spans = traced
    proxy = start(models.affine(), {"grpc_port": 0})
    x = grpcclient.InferInput("x", [1, 3], "FP32")
    x.set_data_from_numpy(np.ones((1, 3), np.float32))
    with grpcclient.InferenceServerClient(proxy.first["grpc"]) as client:
        client.infer("affine", [x], headers={"traceparent": trace(5)[1]})
    (span,) = spans().values()
    assert attributes(span)["dlbench.compute_ns"] > 0
    assert span.trace_id.hex() == trace(5)[0]


def sent(proxy, *bodies):
    """Each in the trace of its number, from 1."""
    with httpx.Client(base_url=proxy.url) as client:
        for number, tensor in enumerate(bodies, 1):
            headers = {"traceparent": trace(number)[1]}
            reply = client.post(INFER, json={"inputs": [tensor]}, headers=headers)
            assert reply.status_code == 200


def test_a_hit_waited_for_nothing(models, traced):
    start, spans = traced
    sent(start(models.affine(), cache_size=8), X, X)
    found = spans()
    computed, hit = (attributes(found[trace(number)[0]]) for number in (1, 2))
    assert computed["dlbench.batch_rows"] == 1
    for name in ("queue_ns", "compute_ns", "batch_rows"):
        assert hit[f"dlbench.{name}"] == 0


def test_a_request_that_was_spread_was_computed_too(models, traced):
    start, spans = traced
    proxy = start(models.affine(), workers=2, max_batch_size=2, split_batch_over=2)
    sent(proxy, {**X, "shape": [4, 3], "data": [1] * 12})
    (span,) = spans().values()
    for name in ("queue_ns", "compute_ns", "batch_rows"):
        assert attributes(span)[f"dlbench.{name}"] > 0


def test_errors_have_their_status_and_only_ours_are_errors(models, traced):
    start, spans = traced
    proxy = start(models.picky(), queue_order="priority")
    i = {"name": "i", "datatype": "INT64", "shape": [1], "data": [77]}
    (pid,) = proxy.workers()

    def ask(number, **parameters):
        body = {"inputs": [i], "parameters": parameters}
        headers = {"traceparent": trace(number)[1]}
        url = f"{proxy.url}/v2/models/picky/infer"
        return httpx.post(url, json=body, headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(1) as pool:
        psutil.Process(pid).suspend()
        try:
            refused = pool.submit(ask, 1)
            while proxy.ask("counters")["requests"] < 1:
                pass
            assert ask(2, timeout=20_000) == 504
        finally:
            psutil.Process(pid).resume()
        assert refused.result() == 400
    found = spans()
    refused, late = (found[trace(number)[0]] for number in (1, 2))
    assert attributes(refused)["http.response.status_code"] == 400
    assert attributes(late)["http.response.status_code"] == 504
    assert (refused.status.code, late.status.code) == (0, 2)


def test_a_collector_that_is_away_costs_no_request_and_no_patience(
    models, start_proxy, capfd, dead_port
):
    proxy = start_proxy(models.affine(), {"otlp_endpoint": f"http://127.0.0.1:{dead_port}"})
    with httpx.Client(base_url=proxy.url) as client:
        for _ in range(20):
            assert client.post(INFER, json={"inputs": [X]}).status_code == 200
    assert proxy.stop() == 0
    assert "Traceback" not in capfd.readouterr().err
