"""HTTP/1.1 for one connection: an asyncio.Protocol over httptools. It knows nothing of inference.

Replies leave in the order of their requests, whatever order they are ready in. Making a task and a
future per request would cost a third of the throughput, so a handler is given a callback.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httptools
import orjson

from dlbench.proxy.errors import (
    BadEncoding,
    BadRequest,
    HeadTooLarge,
    RequestError,
    RequestTimeout,
    TooLarge,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LOG = logging.getLogger(__name__)

# Replies that one connection may owe before its requests are no longer read.
MOST_PIPELINED = 64
# How long a client may go on sending after an error ended its connection. Closing at once would
# reset the connection, and the client would lose the answer that says what was wrong.
LINGER_S = 5.0
# Headers that matter to us; the rest is not even kept.
KEPT_HEADERS = frozenset(
    (
        b"accept-encoding",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"inference-header-content-length",
        b"transfer-encoding",
    )
)
# zlib's window bits: gzip, zlib ("deflate" as the standard has it).
WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
JSON_TYPE = b"content-type: application/json\r\n"


@dataclass(frozen=True)
class Limits:
    """What a client may not exceed; bytes and seconds."""

    head_bytes: int
    body_bytes: int
    header_timeout_s: float
    body_timeout_s: float
    idle_timeout_s: float


@dataclass(slots=True)
class HttpRequest:
    """A complete request; `headers` holds the kept ones under lower-case names."""

    method: bytes = b""
    target: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


@dataclass(slots=True)
class _Slot:
    """The place of a reply in the order of requests."""

    keep_alive: bool
    reply: list[Any] | None = None
    linger: bool = False


class HttpProtocol(asyncio.Protocol):
    """One client's connection.

    `handle(request, respond)` is called for each complete request and calls
    `respond(status, headers, body pieces)` once, now or later; `headers` are complete lines.
    """

    def __init__(
        self,
        handle: Callable[[HttpRequest, Any], None],
        limits: Limits,
        connections: set[HttpProtocol],
    ) -> None:
        self._handle = handle
        self._limits = limits
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._slots: deque[_Slot] = deque()
        self._transport: Any = None
        self._parser: Any = None
        self._request = HttpRequest()
        self._pieces: list[bytes] = []
        self._received = 0
        self._head_bytes = 0
        self._unparsed = 0
        self._progress = False
        self._in_head = True
        self._started = False
        self._awaits_continue = False
        self._closing = False
        self._draining = False
        self._lingering = False
        self._unsent = 0
        self._write_paused = False
        self._read_paused = False
        self.since = self._loop.time()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - gone is gone
        self._connections.discard(self)
        self._closing = True
        self._slots.clear()
        self._parser = None  # the parser and we refer to each other

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if not self._started:
            self._began()
        self._progress = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._fail(cause if isinstance(cause, RequestError) else BadRequest("bad request"))
        except httptools.HttpParserUpgrade:
            self._fail(BadRequest("upgrades are not supported"))
        except httptools.HttpParserError as error:
            self._fail(BadRequest(f"not HTTP/1.1: {error}"))
        else:
            # The parser keeps a line to itself until it ends.
            self._unparsed = (
                0 if self._progress or not self._in_head else self._unparsed + len(data)
            )
            if self._unparsed > self._limits.head_bytes:
                self._fail(_head_too_large(self._limits))

    def eof_received(self) -> bool:
        """A client that sends no more still gets what it asked for: True keeps the connection."""
        if not self._slots:
            return False
        self._closing = True
        self._slots[-1].keep_alive = False
        return True

    def pause_writing(self) -> None:
        self._write_paused = True
        self._regulate()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._regulate()

    # What the parser calls

    def on_message_begin(self) -> None:
        self._request = HttpRequest()
        self._pieces = []
        self._received = 0
        self._began()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        name = name.lower()
        if name in KEPT_HEADERS:
            self._request.headers[name] = value

    def on_headers_complete(self) -> None:
        self._in_head = False
        self.since = self._loop.time()
        if self._parser.should_upgrade():
            raise BadRequest("upgrades are not supported: speak plain HTTP/1.1")
        headers = self._request.headers
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._limits.body_bytes:
            raise _body_too_large(self._limits)
        if headers.get(b"expect", b"").lower() == b"100-continue":
            self._awaits_continue = True
            self._invite()

    def on_body(self, body: bytes) -> None:
        self._awaits_continue = False
        self._received += len(body)
        if self._received > self._limits.body_bytes:
            raise _body_too_large(self._limits)
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        request = self._request
        request.method = self._parser.get_method()
        pieces = self._pieces
        request.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._in_head = True
        self._progress = True
        self._started = False
        slot = _Slot(self._parser.should_keep_alive())
        self._slots.append(slot)
        self.since = self._loop.time()
        self._dispatch(request, slot)
        if len(self._slots) >= MOST_PIPELINED:
            self._regulate()

    # What the server calls

    def drain(self) -> None:
        """From now on every reply after which nothing is owed says goodbye and ends the connection."""
        self._draining = True

    def close_if_idle(self) -> None:
        """Close unless a request is being received or answered."""
        if not self._slots and not self._started:
            self._closing = True
            self._transport.close()

    def check_time(self, now: float) -> None:
        """Close the connection if its client takes too long for what it is doing."""
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self.since = unsent, now
        waited = now - self.since
        if self._lingering or unsent:
            if waited > (LINGER_S if self._lingering else self._limits.idle_timeout_s):
                self._transport.abort()
            return
        if self._slots or self._closing:
            return
        if not self._started:
            if waited > self._limits.idle_timeout_s:
                self._closing = True
                self._transport.close()
        elif self._in_head and waited > self._limits.header_timeout_s:
            self._fail(RequestTimeout("the request's head did not arrive in time"))
        elif not self._in_head and waited > self._limits.body_timeout_s:
            self._fail(RequestTimeout("the request's body did not arrive in time"))

    # Our own

    def _began(self) -> None:
        self._started = True
        self._progress = True
        self._head_bytes = 0
        self.since = self._loop.time()

    def _count_head(self, size: int) -> None:
        self._progress = True
        self._head_bytes += size
        if self._head_bytes > self._limits.head_bytes:
            raise _head_too_large(self._limits)

    def _invite(self) -> None:
        """Tell a client that waits for it to send its body, once all before it is answered."""
        if self._awaits_continue and not self._slots:
            self._awaits_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _dispatch(self, request: HttpRequest, slot: _Slot) -> None:
        def respond(status: int, headers: bytes, body: Sequence[bytes | memoryview]) -> None:
            size = 0
            for piece in body:
                size += len(piece)
            if self._draining and self._is_last(slot):
                slot.keep_alive = False
                self._closing = True
            ending = b"\r\n" if slot.keep_alive else b"connection: close\r\n\r\n"
            head = b"%bcontent-length: %d\r\n%b%b" % (STATUS_LINES[status], size, headers, ending)
            slot.reply = [head] if request.method == b"HEAD" else [head, *body]
            self._flush()

        try:
            if encoding := request.headers.get(b"content-encoding"):
                request.body = _decoded(request.body, encoding, self._limits.body_bytes)
            self._handle(request, respond)
        except RequestError as error:
            respond(error.status, *error_reply(error))
        except Exception:
            LOG.exception("a request broke the proxy")
            respond(500, *error_reply(RequestError("the proxy failed; its log says how")))

    def _is_last(self, slot: _Slot) -> bool:
        return not self._started and bool(self._slots) and self._slots[-1] is slot

    def _flush(self) -> None:
        """Send the replies that are ready, as far as none before them is missing."""
        if self._transport is None or self._parser is None:
            return
        slots = self._slots
        while slots and slots[0].reply is not None:
            slot = slots.popleft()
            self._transport.writelines(slot.reply)
            if not slot.keep_alive:
                self._closing = True
                slots.clear()
                self._end(linger=slot.linger)
                return
        if not slots:
            self.since = self._loop.time()
            self._invite()
        if self._read_paused:
            self._regulate()

    def _end(self, *, linger: bool) -> None:
        """Close; with `linger` only our side, until the client has read the reply and closes too."""
        self.since = self._loop.time()
        self._lingering = linger and self._transport.can_write_eof()
        if not self._lingering:
            self._transport.close()
            return
        self._transport.write_eof()
        if self._read_paused:
            self._read_paused = False
            self._transport.resume_reading()

    def _regulate(self) -> None:
        """Read only from a client that takes its replies and does not run far ahead of them."""
        pause = self._write_paused or len(self._slots) >= MOST_PIPELINED
        if pause == self._read_paused or self._closing:
            return
        self._read_paused = pause
        (self._transport.pause_reading if pause else self._transport.resume_reading)()

    def _fail(self, error: RequestError) -> None:
        """Answer what broke the connection after everything before it, and close."""
        slot = _Slot(keep_alive=False, linger=True)
        self._slots.append(slot)
        headers, body = error_reply(error)
        size = len(body[0])
        head = b"%bcontent-length: %d\r\n%bconnection: close\r\n\r\n" % (
            STATUS_LINES[error.status],
            size,
            headers,
        )
        slot.reply = [head, *body]
        self._closing = True
        self._flush()


def error_reply(error: RequestError) -> tuple[bytes, list[bytes]]:
    """Headers and body of an error: `{"error": text}`."""
    headers = JSON_TYPE
    if error.retry_after_s is not None:
        headers += b"retry-after: %d\r\n" % error.retry_after_s
    return headers, [orjson.dumps({"error": str(error)})]


def _decoded(body: bytes, encodings: bytes, limit: int) -> bytes:
    """The body with its content encodings taken off, last first; never more than `limit` bytes."""
    for encoding in reversed([e.strip().lower() for e in encodings.split(b",")]):
        if encoding == b"identity":
            continue
        bits = WINDOW_BITS.get(encoding)
        if bits is None:
            raise BadEncoding(
                f"content-encoding {encoding.decode(errors='replace')}: send gzip or deflate"
            )
        body = _inflated(body, bits, limit)
    return body


def _inflated(body: bytes, bits: int, limit: int) -> bytes:
    inflater = zlib.decompressobj(bits)
    try:
        found = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadRequest(f"the compressed body is broken: {error}") from None
    if len(found) > limit:
        raise TooLarge(f"the body unpacks to more than {limit} bytes")
    if not inflater.eof or inflater.unused_data:
        raise BadRequest("the compressed body is broken: it ends too early or goes on")
    return found


def _head_too_large(limits: Limits) -> HeadTooLarge:
    return HeadTooLarge(f"request line and headers are over {limits.head_bytes} bytes")


def _body_too_large(limits: Limits) -> TooLarge:
    return TooLarge(f"the body is over {limits.body_bytes} bytes")
