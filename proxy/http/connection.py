"""HTTP/1.1 for one connection: an asyncio.Protocol. It knows nothing of inference.

Replies leave in the order of their requests, whatever order they are ready in. Making a task and a
future per request would cost a third of the throughput, so a handler is given a callback.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dlbench.proxy.errors import Overloaded, RequestError, RequestTimeout, TooLarge
from dlbench.proxy.http.access import Access, NoTokens
from dlbench.proxy.http.encoding import AT_ONCE, LARGEST_RATIO, unpacked
from dlbench.proxy.http.head import HeadMemo, RequestHead
from dlbench.proxy.http.limits import Limits
from dlbench.proxy.http.memory import COUNTED_FROM, Memory
from dlbench.proxy.http.reader import HEAD, IDLE, RequestReader
from dlbench.proxy.http.reply import JSON_TYPE, NOBODY, Client, Exchange, error_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dlbench.proxy.http.hosts import Hosts
    from dlbench.proxy.http.reply import Body

    Respond = Callable[[int, bytes, Body], None]

__all__ = ["JSON_TYPE", "HttpProtocol", "HttpRequest", "Limits", "error_reply"]

LOG = logging.getLogger(__name__)

# Replies that one connection may owe before its requests are no longer read.
MOST_PIPELINED = 64
# How long a client may go on sending after an error ended its connection. Closing at once would
# reset the connection, and the client would lose the answer that says what was wrong.
LINGER_S = 5.0
# A client that sends no more either waits, or has closed its socket and is gone: from here both look
# alike until something is sent. Who is not answered within this time is sent an interim reply, which
# HTTP/1.1 allows at any time; the system of one that is gone answers it with a reset.
PROBE_S = 0.05
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"


@dataclass(slots=True, eq=False)
class HttpRequest:
    """A complete request; its head is shared with others that began with the same bytes."""

    head: RequestHead
    body: bytes
    client: Client = NOBODY

    @property
    def method(self) -> bytes:
        return self.head.method

    @property
    def target(self) -> bytes:
        return self.head.target

    @property
    def headers(self) -> dict[bytes, bytes]:
        return self.head.headers


class HttpProtocol(asyncio.Protocol):
    """One client's connection.

    `handle(request, respond)` is called for each complete request and calls
    `respond(status, headers, body pieces)` once, now or later; `headers` are complete lines.
    `connections`, `heads` and `memory` are shared by the connections of a server.
    """

    def __init__(
        self,
        handle: Callable[[HttpRequest, Respond], None],
        limits: Limits,
        connections: set[HttpProtocol],
        *,
        access: Access | None = None,
        heads: HeadMemo | None = None,
        hosts: Hosts | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.memory = memory or Memory()
        self._handle = handle
        self._limits = limits
        self._connections = connections
        loop = asyncio.get_running_loop()
        self._time, self._call_soon = loop.time, loop.call_soon
        self._exchanges: deque[Exchange] = deque()
        self._transport: Any = None
        self._reader = RequestReader(
            limits, heads or HeadMemo(), access or NoTokens(), self._take, self.memory, hosts
        )
        self._turns = 0
        self._closing = False
        self._lingering = False
        self._silent = False
        self._half_closed = False
        self._unsent = 0
        self._held = 0  # counted bytes of replies that the transport may still hold
        self._advancing = False
        self._write_paused = False
        self._read_paused = False
        self.draining = False
        self.since = self._time()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        others = len(self._connections)
        self._connections.add(self)
        if others >= self._limits.connections:
            self._turn_away(others)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - gone is gone
        self._connections.discard(self)
        self._closing = True
        self._let_go()
        self._reader.close()
        self._transport = None
        self._abandon()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            self._silent = False
            return
        reader = self._reader
        try:
            reader.feed(data)
        except RequestError as error:
            self._fail(error)
        else:
            if reader.turns != self._turns:
                self._turned()

    def eof_received(self) -> bool:
        """A client that sends no more still gets what it asked for: True keeps the connection."""
        if not self._exchanges or not self._transport.can_write_eof():
            return False
        self._closing = self._half_closed = True
        self._exchanges[-1].keep_alive = False
        asyncio.get_running_loop().call_later(PROBE_S, self._probe)
        return True

    def pause_writing(self) -> None:
        self._write_paused = True
        self._regulate()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._let_go()
        self._regulate()
        if self._exchanges:
            self.flush()

    def _probe(self) -> None:
        """Find out whether a client that sends no more is still there."""
        if self._transport is None or not self._exchanges or not self._exchanges[0].interim:
            return  # also where the reply has begun
        if not self._transport.get_write_buffer_size():
            self._transport.write(INTERIM)
            asyncio.get_running_loop().call_later(PROBE_S, self._look_for_reset)

    def _look_for_reset(self) -> None:
        """Probe a half-closed connection: nothing reads from it, so its end goes unnoticed."""
        if self._transport is None:
            return
        found = self._transport.get_extra_info("socket")
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._transport.abort()

    # What the server calls

    def drain(self) -> None:
        """From now on every reply after which nothing is owed says goodbye and ends the connection."""
        self.draining = True

    def close_if_idle(self) -> None:
        """Close unless a request is being received or answered."""
        if not self._exchanges and self._reader.phase == IDLE:
            self._closing = True
            self._transport.close()

    def check_time(self, now: float) -> None:
        """Close the connection if its client takes too long for what it is doing."""
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self.since = unsent, now
        waited = now - self.since
        if self._half_closed:
            self._look_for_reset()
        if self._lingering:
            self._check_linger(waited)
        elif unsent:
            if waited > self._limits.idle_timeout_s:
                self._transport.abort()
        elif not self._exchanges and not self._closing:
            self._check_request(waited)

    def _check_linger(self, waited: float) -> None:
        """Treat silence on TLS, which has no half-closed connections, as the client's end."""
        if waited > LINGER_S:
            self._transport.abort()
        elif self._silent and not self._unsent and not self._transport.can_write_eof():
            self._transport.close()
        self._silent = True

    def _check_request(self, waited: float) -> None:
        limits, phase = self._limits, self._reader.phase
        if phase == IDLE:
            if waited > limits.idle_timeout_s:
                self._closing = True
                self._transport.close()
        elif phase == HEAD:
            if waited > limits.header_timeout_s:
                self._fail(RequestTimeout("the request's head did not arrive in time"))
        elif waited > limits.body_timeout_s:
            self._fail(RequestTimeout("the request's body did not arrive in time"))

    # What an exchange calls

    def say_goodbye(self, exchange: Exchange) -> bool:
        """Whether the client is owed nothing after this and asks for nothing: no more is read."""
        exchanges = self._exchanges
        if self._reader.phase != IDLE or not exchanges or exchanges[-1] is not exchange:
            return False
        self._closing = True
        return True

    def flush(self) -> None:
        """Send the replies that are ready, as far as none before them is missing."""
        transport, exchanges = self._transport, self._exchanges
        if transport is None:
            return
        while exchanges and (reply := exchanges[0].reply) is not None:
            exchange = exchanges[0]
            if exchange.rest is not None:
                if not self._advance(exchange, exchange.rest):
                    return
            elif len(reply) > 1:
                transport.writelines(reply)
            else:
                transport.write(reply[0])
            exchanges.popleft()
            if exchange.held:
                self._hold_unsent(exchange)
            if not exchange.keep_alive:
                self._closing = True
                self._abandon()
                self._end(linger=exchange.linger)
                return
        if not exchanges:
            self.since = self._time()
            if self._reader.awaits_continue:
                self._invite()
        if self._read_paused:
            self._regulate()

    def aside(self, work: Callable[[], Any], then: Callable[[Callable[[], Any]], None]) -> None:
        """Do work that would hold up the others in a thread; `then` is given a getter of its result."""
        future = asyncio.get_running_loop().run_in_executor(None, work)
        future.add_done_callback(lambda done: then(done.result))

    @property
    def gone(self) -> bool:
        """Whether the client has gone."""
        return self._transport is None or (self._closing and not self._exchanges)

    # Our own

    def _abandon(self) -> None:
        """Nothing more is sent: let go of what was asked for."""
        waiting = list(self._exchanges)
        self._exchanges.clear()
        for exchange in waiting:
            exchange.abandon()

    def _advance(self, exchange: Exchange, rest: Iterator[bytes]) -> bool:
        """Send as much of a body that is made on the way as the client takes; whether that was all."""
        if exchange.reply:
            self._transport.writelines(exchange.reply)
            exchange.reply = []
        if self._write_paused:
            return False
        try:
            piece = next(rest, None)
        except Exception:  # half of it is sent already: only the end can say that it is broken
            LOG.exception("unexpected error while sending a reply")
            self._transport.abort()
            return False
        if piece is None:
            return True
        self._transport.write(piece)
        if not self._write_paused and not self._advancing:
            self._advancing = True
            self._call_soon(self._go_on)  # the others first
        return False

    def _go_on(self) -> None:
        self._advancing = False
        self.flush()

    def _hold_unsent(self, exchange: Exchange) -> None:
        """What the transport could not send at once stays counted until it could."""
        self._held += exchange.held
        exchange.held = 0
        if not self._write_paused:
            self._let_go()

    def _let_go(self) -> None:
        self.memory.give(self._held)
        self._held = 0

    def _take(self, head: RequestHead, body: bytes) -> None:
        """Answer a complete request."""
        if self._closing:
            return
        exchange = Exchange(self, head)
        self._exchanges.append(exchange)
        if len(body) >= COUNTED_FROM and not exchange.hold(len(body)):
            pass  # it is refused
        elif head.encodings:
            self._unpack(exchange, head, body)
        else:
            self._run(exchange, HttpRequest(head, body, exchange))
        if len(self._exchanges) >= MOST_PIPELINED:
            self._regulate()

    def _run(self, exchange: Exchange, request: HttpRequest) -> None:
        if self.gone:  # it went while its body was unpacked
            exchange.hold_only(0)
            return
        try:
            self._handle(request, exchange.respond)
        except Exception as error:
            exchange.refuse(error)

    def _unpack(self, exchange: Exchange, head: RequestHead, body: bytes) -> None:
        """Run a request with a packed body: at once if it is small, else after work in a thread."""
        most = self._limits.body_bytes
        unpack = partial(unpacked, body, head.encodings)
        try:
            request = HttpRequest(head, unpack(min(AT_ONCE, most)), exchange)
        except TooLarge:
            if exchange.hold(min(most, LARGEST_RATIO * len(body))):
                self.aside(partial(unpack, most), partial(self._run_unpacked, exchange, head))
        except RequestError as error:
            exchange.refuse(error)
        else:
            self._run(exchange, request)

    def _run_unpacked(
        self, exchange: Exchange, head: RequestHead, body: Callable[[], bytes]
    ) -> None:
        try:
            request = HttpRequest(head, body(), exchange)
        except Exception as error:
            exchange.refuse(error)
        else:
            exchange.hold_only(len(request.body))
            self._run(exchange, request)

    def _turned(self) -> None:
        """Restart the clock: a message or its body has begun or ended."""
        self._turns = self._reader.turns
        self.since = self._time()
        if self._reader.awaits_continue and not self._closing:
            self._invite()

    def _invite(self) -> None:
        """Tell a client that waits for it to send its body, once all before it is answered."""
        if not self._exchanges:
            self._reader.awaits_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _regulate(self) -> None:
        """Read only from a client that takes its replies and does not run far ahead of them."""
        pause = self._write_paused or len(self._exchanges) >= MOST_PIPELINED
        if pause == self._read_paused or self._closing:
            return
        self._read_paused = pause
        (self._transport.pause_reading if pause else self._transport.resume_reading)()

    def _turn_away(self, others: int) -> None:
        """Answer one connection too many with 503, unless many have been answered so already."""
        if others >= 2 * self._limits.connections:
            self._transport.abort()
        else:
            self._fail(Overloaded("too many connections are open"))

    def _fail(self, error: RequestError) -> None:
        """Answer what broke the connection after everything before it, and close."""
        exchange = Exchange(self, RequestHead())
        exchange.linger = True
        self._exchanges.append(exchange)
        self._closing = True
        self._reader.drop()
        exchange.refuse(error)

    def _end(self, *, linger: bool) -> None:
        """Close; with `linger` only our side, until the client has read the reply and closes too."""
        self.since = self._time()
        self._lingering = linger
        if not linger:
            self._transport.close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        if self._read_paused:
            self._read_paused = False
            self._transport.resume_reading()
