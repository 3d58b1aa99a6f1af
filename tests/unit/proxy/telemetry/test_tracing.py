"""Spans, as a real collector's receiver gets them over HTTP."""

import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dlbench.proxy.errors import StartError
from dlbench.proxy.telemetry.tracing import NoTracer, open_tracer

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01".encode()
ERROR = 2  # opentelemetry.proto.trace.v1.Status.STATUS_CODE_ERROR
SERVER = 2  # Span.SPAN_KIND_SERVER


class Receiver(BaseHTTPRequestHandler):
    """An OTLP/HTTP receiver that keeps what it was sent."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.put(
            (self.path, trace_service.ExportTraceServiceRequest.FromString(body))
        )
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def _no_exporter_stays_behind():
    """One that goes on trying draws random numbers, which disturbs the property tests that follow."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def receiver():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.received, server.status = queue.Queue(), 200
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def spans_of(receiver):
    path, request = receiver.received.get(timeout=60)
    assert path == "/v1/traces"
    (resource,) = request.resource_spans
    service = {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"]
    assert service == "dlbench"
    return [span for scope in resource.scope_spans for span in scope.spans]


def test_a_span_says_what_became_of_the_request_and_goes_on_with_the_clients_trace(receiver):
    tracer = open_tracer(receiver.url)
    span = tracer.started(TRACEPARENT, "mlp")
    tracer.finished(span, 200, queue_ns=1000, compute_ns=2000, batch_rows=8)
    tracer.shutdown()
    (found,) = spans_of(receiver)
    assert (found.name, found.kind) == ("infer mlp", SERVER)
    assert (found.trace_id.hex(), found.parent_span_id.hex()) == (TRACE, PARENT)
    assert found.end_time_unix_nano >= found.start_time_unix_nano > 0
    attributes = {a.key: a.value.int_value or a.value.string_value for a in found.attributes}
    assert attributes == {
        "dlbench.model": "mlp",
        "http.response.status_code": 200,
        "dlbench.queue_ns": 1000,
        "dlbench.compute_ns": 2000,
        "dlbench.batch_rows": 8,
    }


@pytest.mark.parametrize(
    "header",
    [None, b"", b"rubbish", b"\xff" * 55, b"0" * 100_000, TRACEPARENT.upper(), TRACEPARENT + b"-x"],
)
def test_a_header_that_is_missing_or_wrong_starts_a_trace_of_its_own(header, receiver):
    tracer = open_tracer(receiver.url)
    tracer.finished(tracer.started(header, "mlp"), 200, 0, 0, 0)
    tracer.shutdown()
    (found,) = spans_of(receiver)
    assert found.parent_span_id == b""
    assert found.trace_id.hex() not in ("", TRACE)


def test_a_client_that_does_not_sample_is_left_alone(receiver):
    tracer = open_tracer(receiver.url)
    tracer.finished(tracer.started(TRACEPARENT[:-2] + b"00", "mlp"), 200, 0, 0, 0)
    tracer.finished(tracer.started(None, "seen"), 200, 0, 0, 0)
    tracer.shutdown()
    assert [span.name for span in spans_of(receiver)] == ["infer seen"]


def test_only_our_own_faults_are_errors(receiver):
    tracer = open_tracer(receiver.url)
    for status in (200, 400, 429, 500, 503, 504):
        tracer.finished(tracer.started(None, str(status)), status, 0, 0, 0)
    tracer.shutdown()
    failed = [span.name for span in spans_of(receiver) if span.status.code == ERROR]
    assert failed == ["infer 500", "infer 503", "infer 504"]


def test_a_collector_that_refuses_disturbs_nobody(receiver):
    receiver.status = 400  # not worth another try, says OTLP
    tracer = open_tracer(receiver.url)
    for _ in range(5000):  # more than the queue holds
        tracer.finished(tracer.started(None, "mlp"), 200, 0, 0, 0)
    assert spans_of(receiver)
    tracer.shutdown()


def test_a_collector_that_is_away_disturbs_nobody_and_does_not_hold_up_the_end(receiver):
    away = receiver.url
    receiver.shutdown()
    receiver.server_close()
    tracer = open_tracer(away)
    tracer.finished(tracer.started(TRACEPARENT, "mlp"), 200, 0, 0, 0)
    tracer.shutdown()
    tracer.finished(tracer.started(TRACEPARENT, "mlp"), 200, 0, 0, 0)


def test_without_a_collector_there_is_nothing():
    tracer = open_tracer("")
    assert isinstance(tracer, NoTracer)
    tracer.finished(tracer.started(TRACEPARENT, "mlp"), 200, 0, 0, 0)
    tracer.shutdown()


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(StartError, match=r"pip install 'dlbench\[otel\]'"):
        open_tracer("http://127.0.0.1:4318")


@pytest.mark.parametrize("endpoint", ["collector:4318", "grpc://collector:4317", "http://"])
def test_an_address_that_is_none_is_an_error(endpoint):
    with pytest.raises(StartError, match="--otlp-endpoint"):
        open_tracer(endpoint)
