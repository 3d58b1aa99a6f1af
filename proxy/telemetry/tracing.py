"""Optional OpenTelemetry spans, one per request; not even imported without a collector."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from dlbench.proxy.errors import StartError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# A span that a collector does not take in this time is given up, and so is the rest at the end.
EXPORT_TIMEOUT_S = 5.0
SHUTDOWN_TIMEOUT_S = 2.0
# The header of version 00 has 55 characters; later ones may add fields (W3C Trace Context, 3.2.2).
MOST_TRACEPARENT = 128
SERVER_FAULT = 500


class Tracer(Protocol):
    """Makes a span per request."""

    def started(self, traceparent: bytes | None, model: str) -> Any:  # noqa: ANN401 - its own handle
        """A request for `model` came, with that W3C `traceparent` header; returns its span."""

    def finished(
        self,
        span: Any,  # noqa: ANN401 - what `started` returned
        status: int,
        queue_ns: int,
        compute_ns: int,
        batch_rows: int,
    ) -> None:
        """The request was answered; times are 0 where it waited for nothing or was not computed."""

    def shutdown(self) -> None:
        """Send what is left, as far as that goes in a short time. Blocks."""


class NoTracer:
    """The null object: no spans."""

    def started(self, traceparent: bytes | None, model: str) -> None:
        """Do nothing."""

    def finished(
        self, span: None, status: int, queue_ns: int, compute_ns: int, batch_rows: int
    ) -> None:
        """Do nothing."""

    def shutdown(self) -> None:
        """There is nothing to send."""


class OtlpTracer:
    """Sends spans to a collector by OTLP over HTTP, in batches, from a thread of its own.

    A collector that is away costs spans, never a request: the queue is bounded and drops.
    """

    def __init__(self, endpoint: str) -> None:
        """`endpoint` is the collector's URL, or its whole address for traces.

        Raises:
            StartError: the packages of the extra `otel` are missing, or that is no URL.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind, Status, StatusCode
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise StartError(
                "--otlp-endpoint needs an extra: pip install 'dlbench[otel]'"
            ) from None
        exporter = OTLPSpanExporter(_traces_url(endpoint), timeout=EXPORT_TIMEOUT_S)
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "dlbench"}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("dlbench.proxy")
        self._extract = TraceContextTextMapPropagator().extract
        self._kind = SpanKind.SERVER
        self._fault = Status(StatusCode.ERROR)

    def started(self, traceparent: bytes | None, model: str) -> Span:
        context = None
        if traceparent is not None and len(traceparent) <= MOST_TRACEPARENT:
            context = self._extract({"traceparent": traceparent.decode("latin-1")})
        return self._tracer.start_span(
            f"infer {model}", context, self._kind, {"dlbench.model": model}
        )

    def finished(
        self, span: Span, status: int, queue_ns: int, compute_ns: int, batch_rows: int
    ) -> None:
        span.set_attributes(
            {
                "http.response.status_code": status,
                "dlbench.queue_ns": queue_ns,
                "dlbench.compute_ns": compute_ns,
                "dlbench.batch_rows": batch_rows,
            }
        )
        if status >= SERVER_FAULT:
            span.set_status(self._fault)
        span.end()

    def shutdown(self) -> None:
        """Send what is left, as far as that goes in a short time. Blocks."""
        # The provider's own shutdown waits half a minute for a collector that does not answer.
        sender = Thread(target=self._provider.shutdown, daemon=True)
        sender.start()
        sender.join(SHUTDOWN_TIMEOUT_S)


def open_tracer(endpoint: str) -> Tracer:
    """A tracer for this collector; none for an empty address.

    Raises:
        StartError: the packages of the extra `otel` are missing, or that is no URL.
    """
    return OtlpTracer(endpoint) if endpoint else NoTracer()


def _traces_url(endpoint: str) -> str:
    """Where traces are posted: at /v1/traces unless the address has a path (OTLP's convention)."""
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise StartError(f"--otlp-endpoint {endpoint}: must be like http://HOST:4318")
    return endpoint if url.path.strip("/") else endpoint.rstrip("/") + "/v1/traces"
