"""V2's gRPC service on grpcio's asyncio server, in the event loop of the HTTP front.

Importing this without the extra `grpc` raises StartError.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.proxy.clock import now_ns
from dlbench.proxy.errors import RequestError, StartError

try:
    import grpc
    import grpc.aio
    from google.protobuf.message_factory import GetMessageClass
except ModuleNotFoundError as missing:
    raise StartError(f"--grpc-port needs {missing.name}: pip install 'dlbench[grpc]'") from None

from dlbench.proxy.grpc_calls import CALLS, DEADLINE_NS, stream_infer
from dlbench.proxy.grpc_health import PACKAGE, REQUEST, RESPONSE, Health
from dlbench.proxy.grpc_wire import Message, pb
from dlbench.proxy.spans import PARENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dlbench.proxy.access import Access
    from dlbench.proxy.grpc_calls import Call
    from dlbench.proxy.repository import Repository
    from dlbench.proxy.settings import ServerSettings

LOG = logging.getLogger(__name__)

# HTTP's status -> gRPC's; any other is INTERNAL.
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    499: grpc.StatusCode.CANCELLED,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
DRAIN_POLL_S = 0.05
# Probes carry no token, as with HTTP.
OPEN_CALLS = frozenset(("ServerLive", "ServerReady"))


class GrpcFront:
    """Listens, lets in, and turns errors into gRPC's."""

    def __init__(self, models: Repository, access: Access, settings: ServerSettings) -> None:
        self._models, self._access, self._settings = models, access, settings
        self._server = grpc.aio.server(options=_options(settings))
        self._health = Health(models, self._authorize)
        self._server.add_generic_rpc_handlers((self._handlers(), self._health_handlers()))

    async def startup(self) -> int:
        """Listen; returns the port.

        Raises:
            StartError: the address cannot be had, or a TLS file cannot be read.
        """
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{host}:{settings.grpc_port}"
        try:
            port: int = self._bind(address)
        except RuntimeError:
            raise StartError(
                f"cannot listen on {address} for gRPC; try another --grpc-port"
            ) from None
        await self._server.start()
        return port

    async def shutdown(self, patient: Callable[[], bool]) -> None:
        """Accept nothing more, and answer what was accepted for as long as somebody is patient."""
        self._health.stop()
        stopping = asyncio.ensure_future(self._server.stop(self._settings.drain_timeout_s))
        while not stopping.done() and patient():
            await asyncio.wait((stopping,), timeout=DRAIN_POLL_S)
        await self._server.stop(0)
        await stopping

    def _bind(self, address: str) -> Any:  # noqa: ANN401 - grpc ships no types
        if not self._settings.tls_cert:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, _credentials(self._settings))

    def _handlers(self) -> Any:  # noqa: ANN401 - grpc ships no types
        service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                partial(self._unary, name, call), **_codec(service.methods_by_name[name])
            )
            for name, call in CALLS.items()
        }
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._stream, **_codec(service.methods_by_name["ModelStreamInfer"])
        )
        return grpc.method_handlers_generic_handler(service.full_name, methods)

    def _health_handlers(self) -> Any:  # noqa: ANN401 - grpc ships no types
        codec = {
            "request_deserializer": REQUEST.FromString,
            "response_serializer": RESPONSE.SerializeToString,
        }
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, **codec),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, **codec),
        }
        return grpc.method_handlers_generic_handler(f"{PACKAGE}.Health", methods)

    def _authorize(self, context: Any) -> None:  # noqa: ANN401 - grpc ships no types
        self._access.check(_metadata(context, "authorization"))

    async def _check(self, request: Message, context: Any) -> Message:  # noqa: ANN401 - grpc ships no types
        try:
            return await self._health.check(request, context)
        except Exception as error:
            return await context.abort(*_status(error))

    async def _watch(self, request: Message, context: Any) -> AsyncIterator[Message]:  # noqa: ANN401 - grpc ships no types
        try:
            async with aclosing(self._health.watch(request, context)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:
            await context.abort(*_status(error))

    async def _unary(self, name: str, call: Call, request: Message, context: Any) -> Message:  # noqa: ANN401 - grpc ships no types
        try:
            if name not in OPEN_CALLS:
                self._access.check(_metadata(context, "authorization"))
            PARENT.set(_metadata(context, "traceparent"))
            DEADLINE_NS.set(_deadline_ns(context))
            return await call(self._models, request)
        except Exception as error:
            return await context.abort(*_status(error))

    async def _stream(
        self,
        requests: AsyncIterator[Message],
        context: Any,  # noqa: ANN401 - grpc ships no types
    ) -> AsyncIterator[Message]:
        try:
            self._access.check(_metadata(context, "authorization"))
            PARENT.set(_metadata(context, "traceparent"))
            DEADLINE_NS.set(_deadline_ns(context))
            async with aclosing(stream_infer(self._models, requests)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:
            await context.abort(*_status(error))


def _status(error: Exception) -> tuple[Any, str]:
    """The code and text for an error; one that is our own fault goes into the log."""
    if isinstance(error, RequestError):
        return CODES.get(error.status, grpc.StatusCode.INTERNAL), str(error)
    LOG.error("a call broke the proxy", exc_info=error)
    return grpc.StatusCode.INTERNAL, "the proxy failed; its log says how"


def _metadata(context: Any, name: str) -> bytes | None:  # noqa: ANN401 - grpc ships no types
    given = dict(context.invocation_metadata()).get(name)
    return given.encode() if isinstance(given, str) else given


def _deadline_ns(context: Any) -> int | None:  # noqa: ANN401 - grpc ships no types
    left_s = context.time_remaining()
    return None if left_s is None else now_ns() + int(left_s * 1e9)


def _codec(method: Any) -> dict[str, Any]:  # noqa: ANN401 - a MethodDescriptor
    return {
        "request_deserializer": GetMessageClass(method.input_type).FromString,
        "response_serializer": GetMessageClass(method.output_type).SerializeToString,
    }


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    """The limits of the HTTP front, as far as gRPC knows them."""
    return [
        ("grpc.max_receive_message_length", settings.max_body_mb << 20),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", settings.max_header_kb << 10),
        ("grpc.max_connection_idle_ms", int(settings.idle_timeout_s * 1000)),
        # Two proxies on one port would share it without a word.
        ("grpc.so_reuseport", 0),
    ]


def _credentials(settings: ServerSettings) -> Any:  # noqa: ANN401 - grpc ships no types
    """Those of the HTTP front, whose start-up has found key and certificates to be in order."""
    key, certificate = Path(settings.tls_key).read_bytes(), Path(settings.tls_cert).read_bytes()
    authorities = Path(settings.tls_client_ca).read_bytes() if settings.tls_client_ca else None
    return grpc.ssl_server_credentials(
        [(key, certificate)], authorities, require_client_auth=authorities is not None
    )
