"""From requests to spans: who is asked, who asked, and where the time went.

A handler submits while it is called, so the header of the request that is being handled is at hand
in its context, whatever protocol it speaks.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol, TypeVar

from dlbench.proxy.errors import RequestError
from dlbench.proxy.request import Trace
from dlbench.proxy.telemetry.tracing import open_tracer

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.http.connection import HttpRequest, Respond
    from dlbench.proxy.request import InferRequest, Outputs, Reply
    from dlbench.proxy.telemetry.tracing import Tracer

    Handle = Callable[[HttpRequest, Respond], None]
    Submit = Callable[[InferRequest, Reply], T]

OK = 200
# The `traceparent` of the request that is being handled.
PARENT: ContextVar[bytes | None] = ContextVar("PARENT", default=None)


class Spans(Protocol):
    """Reports a span of each request to a collector."""

    def around(self, handle: Handle) -> Handle:
        """A handler whose requests continue their callers' traces."""
        ...

    def submitting(self, model: str, submit: Submit[T]) -> Submit[T]:
        """`submit` of the model of that name, with a span around each request."""
        ...

    def shutdown(self) -> None:
        """Send what is left. Blocks for some seconds at most."""
        ...


class NoSpans:
    """The null object: no spans."""

    def around(self, handle: Handle) -> Handle:
        return handle

    def submitting(self, model: str, submit: Submit[T]) -> Submit[T]:  # noqa: ARG002
        return submit

    def shutdown(self) -> None:
        """There is nothing to send."""


class TracedSpans:
    """One span per request."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def around(self, handle: Handle) -> Handle:
        def handled(request: HttpRequest, respond: Respond) -> None:
            token = PARENT.set(request.headers.get(b"traceparent"))
            try:
                handle(request, respond)
            finally:
                PARENT.reset(token)

        return handled

    def submitting(self, model: str, submit: Submit[T]) -> Submit[T]:
        def submit_traced(request: InferRequest, reply: Reply) -> T:
            span = self._tracer.started(PARENT.get(), model)
            trace = request.trace = Trace()

            def replied(outcome: Outputs | RequestError) -> None:
                status = outcome.status if isinstance(outcome, RequestError) else OK
                self._tracer.finished(
                    span, status, trace.queue_ns, trace.compute_ns, trace.batch_rows
                )
                reply(outcome)

            return submit(request, replied)

        return submit_traced

    def shutdown(self) -> None:
        self._tracer.shutdown()


def make_spans(endpoint: str) -> Spans:
    """Spans for the collector at `endpoint`; the null object for none.

    Raises:
        StartError: the extra `otel` is missing, or that is no URL.
    """
    return TracedSpans(open_tracer(endpoint)) if endpoint else NoSpans()
