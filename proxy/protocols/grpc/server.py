"""V2's gRPC service on grpcio's asyncio server, in the event loop of the HTTP front.

Importing this without the extra `grpc` raises StartError.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.proxy.clock import now_ns
from dlbench.proxy.errors import (
    BadRequest,
    Overloaded,
    RequestError,
    RequestTimeout,
    StartError,
    TooLarge,
)
from dlbench.proxy.http.encoding import AT_ONCE

try:
    import grpc
    import grpc.aio
    from google.protobuf.message_factory import GetMessageClass
except ModuleNotFoundError as missing:
    raise StartError(f"--grpc-port needs {missing.name}: pip install 'dlbench[grpc]'") from None

from dlbench.proxy.protocols.grpc.calls import CALLS, DEADLINE_NS, infer, stream_infer
from dlbench.proxy.protocols.grpc.codec import parsed, pb
from dlbench.proxy.protocols.grpc.health import PACKAGE, REQUEST, Health
from dlbench.proxy.telemetry.spans import PARENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from dlbench.proxy.http.access import Access
    from dlbench.proxy.http.memory import Memory
    from dlbench.proxy.protocols.grpc.calls import Call
    from dlbench.proxy.serving.repository import Repository
    from dlbench.proxy.settings import ServerSettings

LOG = logging.getLogger(__name__)

# HTTP's status -> gRPC's; any other is INTERNAL.
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    499: grpc.StatusCode.CANCELLED,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
DRAIN_POLL_S = 0.05
# As many as are read ahead of their replies in HTTP/1.1.
CALLS_PER_CONNECTION = 64
# Of the messages that are received at once, one in so many may come from who has shown no token.
OPEN_SHARE = 4
# Probes carry no token, as with HTTP.
HEALTH = "Health"  # which asks for the token itself where it takes one
OPEN_CALLS = frozenset(("ServerLive", "ServerReady", HEALTH))


class GrpcFront:
    """Listens, lets in, and turns errors into gRPC's."""

    def __init__(
        self, models: Repository, access: Access, settings: ServerSettings, memory: Memory
    ) -> None:
        self._models, self._access, self._settings = models, access, settings
        self._memory = memory
        # gRPC does not say how large a message will be before it is there.
        self._most_messages = max(1, memory.left // (settings.max_body_mb << 20))
        self._receiving = asyncio.Semaphore(self._most_messages)
        # Strangers whose messages never end keep out one another, but nobody with a token.
        self._receiving_open = asyncio.Semaphore(max(1, self._most_messages // OPEN_SHARE))
        self._streams = 0
        self._peers: Counter[str] = Counter()  # those with calls under way
        self._server = grpc.aio.server(
            options=_options(settings),
            maximum_concurrent_rpcs=CALLS_PER_CONNECTION * settings.max_connections,
        )
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
        """All calls take a stream of bytes, which is read when we ask for it and not before.

        On the wire a call with one request is the same.
        """
        service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        methods = {
            name: grpc.stream_unary_rpc_method_handler(
                partial(
                    self._unary, name, partial(self._answer, service.methods_by_name[name], call)
                )
            )
            for name, call in CALLS.items()
        }
        infer = partial(self._unary, "ModelInfer", self._infer)
        methods["ModelInfer"] = grpc.stream_unary_rpc_method_handler(infer)
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.method_handlers_generic_handler(service.full_name, methods)

    def _health_handlers(self) -> Any:  # noqa: ANN401 - grpc ships no types
        methods = {
            "Check": grpc.stream_unary_rpc_method_handler(self._check),
            "Watch": grpc.stream_stream_rpc_method_handler(self._watch),
        }
        return grpc.method_handlers_generic_handler(f"{PACKAGE}.Health", methods)

    def _authorize(self, context: Any) -> None:  # noqa: ANN401 - grpc ships no types
        self._access.check(_metadata(context, "authorization"))

    async def _check(self, requests: AsyncIterator[bytes], context: Any) -> bytes:  # noqa: ANN401 - grpc ships no types
        try:
            with self._admitted(HEALTH, context):
                request = parsed(REQUEST, _small(await self._received(HEALTH, requests)))
                return bytes((await self._health.check(request, context)).SerializeToString())
        except Exception as error:
            return bytes(await context.abort(*_status(error)))

    async def _watch(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:  # noqa: ANN401 - grpc ships no types
        try:
            with self._admitted(HEALTH, context):
                request = parsed(REQUEST, _small(await self._received(HEALTH, requests)))
                async with aclosing(self._health.watch(request, context)) as responses:
                    async for response in responses:
                        yield bytes(response.SerializeToString())
        except Exception as error:
            await context.abort(*_status(error))

    async def _answer(self, method: Any, call: Call, text: bytes) -> bytes:  # noqa: ANN401 - a MethodDescriptor
        """The reply of a call whose messages are small."""
        request = parsed(GetMessageClass(method.input_type), _small(text))
        return bytes((await call(self._models, request)).SerializeToString())

    async def _infer(self, text: bytes) -> bytes:
        with self._memory.holding(len(text)):
            return await infer(self._models, text)

    async def _unary(
        self,
        name: str,
        answer: Callable[[bytes], Awaitable[bytes]],
        requests: AsyncIterator[bytes],
        context: Any,  # noqa: ANN401 - grpc ships no types
    ) -> bytes:
        try:
            with self._admitted(name, context):
                return await answer(await self._received(name, requests))
        except Exception as error:
            return bytes(await context.abort(*_status(error)))

    async def _stream(
        self,
        requests: AsyncIterator[bytes],
        context: Any,  # noqa: ANN401 - grpc ships no types
    ) -> AsyncIterator[bytes]:
        try:
            with self._admitted("ModelStreamInfer", context), self._one_stream():
                responses = stream_infer(self._models, requests, self._memory)
                async with aclosing(responses):
                    async for response in responses:
                        yield response
        except Exception as error:
            await context.abort(*_status(error))

    @contextmanager
    def _admitted(self, name: str, context: Any) -> Iterator[None]:  # noqa: ANN401 - grpc ships no types
        """Let a call in by its metadata, before a byte of its message is asked for.

        Raises:
            Unauthorized, Overloaded: no token, or one connection too many.
        """
        if name not in OPEN_CALLS:
            self._access.check(_metadata(context, "authorization"))
        PARENT.set(_metadata(context, "traceparent"))
        DEADLINE_NS.set(_deadline_ns(context))
        peer, peers = context.peer(), self._peers
        if peer not in peers and len(peers) >= self._settings.max_connections:
            raise Overloaded("too many connections are open")
        peers[peer] += 1
        try:
            yield
        finally:
            peers[peer] -= 1
            if not peers[peer]:
                del peers[peer]

    @contextmanager
    def _one_stream(self) -> Iterator[None]:
        """Count an open stream, which may hold half a message for as long as it is open.

        Raises:
            Overloaded: all streams together could hold more than they may.
        """
        if self._streams >= self._most_messages:
            raise Overloaded(
                f"{self._most_messages} streams are open; each may send a message of "
                "--max-body-mb, "
                "all together --max-memory-mb"
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def _received(self, name: str, requests: AsyncIterator[bytes]) -> bytes:
        """The message of a call; as many are received at once as the memory can hold at full size.

        Raises:
            BadRequest: there is none.
            RequestTimeout: it did not arrive in time.
        """
        turn = self._receiving_open if name in OPEN_CALLS else self._receiving
        try:
            async with asyncio.timeout(self._settings.body_timeout_s), turn:
                async for text in requests:
                    return text
        except TimeoutError:
            raise RequestTimeout("the request's message did not arrive in time") from None
        raise BadRequest("the call has no message")


def _status(error: Exception) -> tuple[Any, str]:
    """The code and text for an error; one that is our own fault goes into the log."""
    if isinstance(error, RequestError):
        return CODES.get(error.status, grpc.StatusCode.INTERNAL), str(error)
    LOG.error("unexpected error in a call", exc_info=error)
    return grpc.StatusCode.INTERNAL, "internal error; see the proxy log"


def _metadata(context: Any, name: str) -> bytes | None:  # noqa: ANN401 - grpc ships no types
    given = dict(context.invocation_metadata()).get(name)
    return given.encode() if isinstance(given, str) else given


def _deadline_ns(context: Any) -> int | None:  # noqa: ANN401 - grpc ships no types
    left_s = context.time_remaining()
    return None if left_s is None else now_ns() + int(left_s * 1e9)


def _small(text: bytes) -> bytes:
    """The message of a call that says little. Raises TooLarge."""
    if len(text) > AT_ONCE:
        raise TooLarge(f"a request of this call may have at most {AT_ONCE} bytes, not {len(text)}")
    return text


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    """The limits of the HTTP front, as far as gRPC knows them."""
    return [
        ("grpc.max_receive_message_length", settings.max_body_mb << 20),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", settings.max_header_kb << 10),
        ("grpc.max_connection_idle_ms", int(settings.idle_timeout_s * 1000)),
        ("grpc.server_handshake_timeout_ms", int(settings.header_timeout_s * 1000)),
        # What nobody has asked for yet is not sent: 64 KiB of a message, not as much as the line holds.
        ("grpc.http2.bdp_probe", 0),
        # Two proxies on one port would share it without a word.
        ("grpc.so_reuseport", 0),
    ]


def _credentials(settings: ServerSettings) -> Any:  # noqa: ANN401 - grpc ships no types
    """The credentials of the HTTP front, which has already checked key and certificates."""
    key, certificate = Path(settings.tls_key).read_bytes(), Path(settings.tls_cert).read_bytes()
    authorities = Path(settings.tls_client_ca).read_bytes() if settings.tls_client_ca else None
    return grpc.ssl_server_credentials(
        [(key, certificate)], authorities, require_client_auth=authorities is not None
    )
