"""A reply on its way to the client: its place in the order of requests, and how it looks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from dlbench.proxy.errors import ClientGone, Overloaded, RequestError
from dlbench.proxy.http.encoding import (
    AT_ONCE,
    PACKED_FROM,
    packed,
    packed_pieces,
    worth_packing,
)
from dlbench.proxy.http.head import LEAVING
from dlbench.proxy.http.memory import COUNTED_FROM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dlbench.proxy.http.head import RequestHead
    from dlbench.proxy.http.memory import Memory

LOG = logging.getLogger(__name__)

JSON_TYPE = b"content-type: application/json\r\n"
VARY = b"vary: accept-encoding\r\n"
STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
STATUS_LINES[ClientGone.status] = b"HTTP/1.1 499 Client Gone\r\n"
# Up to so many bytes one joined write is cheaper than handing over the pieces.
JOIN_BYTES = 32 * 1024
# What a status has to come with, whatever the error.
STATUS_HEADERS = {401: b"www-authenticate: Bearer\r\n"}


class Carrier(Protocol):
    """What an exchange needs of the connection that it happens on."""

    draining: bool
    memory: Memory

    @property
    def gone(self) -> bool:
        """Whether the client has gone."""

    def say_goodbye(self, exchange: Exchange) -> bool:
        """Whether the client is owed nothing after this and asks for nothing: no more is read."""

    def flush(self) -> None:
        """Send the replies whose turn has come."""

    def aside(self, work: Callable[[], Any], then: Callable[[Callable[[], Any]], None]) -> None:
        """Do work that would hold up the others in a thread; `then` is given a getter of its result."""


class Client(Protocol):
    """The recipient of the answer to a request."""

    def waits(self, give_up: Callable[[], object]) -> None:
        """Call `give_up` if the client goes before it is answered."""


class NoClient:
    """The null object: the answer is fetched later, if at all."""

    def waits(self, give_up: Callable[[], object]) -> None:
        """Nobody can go."""


NOBODY = NoClient()


class Stream:
    """A body that is made while it is sent: as a whole it may be many times what it is made of.

    `size` is what that holds of memory until the end. It may be made more than once.
    """

    def __init__(self, make: Callable[[], Iterator[bytes]], size: int) -> None:
        self._make = make
        self.size = size

    def __iter__(self) -> Iterator[bytes]:
        return self._make()


Body = Sequence[bytes | memoryview] | Stream


class Exchange:
    """One request and its reply; replies leave in the order of their requests.

    `reply` is None until it is ready; `rest` is what follows it, if that is made on the way. `held`
    are counted bytes: the request's until it is answered, then the reply's until it is sent. After
    a reply that is not `keep_alive` the connection ends; with `linger` not before the client has had
    time to read it.
    """

    __slots__ = (
        "_connection",
        "_give_up",
        "_head",
        "held",
        "keep_alive",
        "linger",
        "reply",
        "rest",
    )

    def __init__(self, connection: Carrier, head: RequestHead) -> None:
        self._connection = connection
        self._head = head
        self.keep_alive = head.keep_alive
        self.linger = False
        self.held = 0
        self.reply: list[bytes | memoryview] | None = None
        self.rest: Iterator[bytes] | None = None
        self._give_up: Callable[[], object] | None = None

    @property
    def interim(self) -> bool:
        """Whether the client understands replies that come before the reply, which has not begun."""
        return self._head.interim and self.reply is None

    def waits(self, give_up: Callable[[], object]) -> None:
        """The client waits for work, which is given up if it goes."""
        if self.reply is None:
            self._give_up = give_up
            if self._connection.gone:  # while the request was read beside this process
                give_up()

    def hold(self, size: int) -> bool:
        """Reserve this many more bytes for the request; refuse it if there is no room."""
        try:
            self._connection.memory.take(size)
        except Overloaded as error:
            self.refuse(error)
            return False
        self.held += size
        return True

    def hold_only(self, size: int) -> None:
        """Count no more than that any longer."""
        if size < self.held:
            self._connection.memory.give(self.held - size)
            self.held = size

    def abandon(self) -> None:
        """The client has gone: a reply is let go of, work is given up, and a request when it is done."""
        if self.reply is not None:
            self.hold_only(0)
        elif self._give_up is not None:
            self._give_up()

    def respond(self, status: int, headers: bytes, body: Body) -> None:
        """Answer the request; `headers` are complete lines."""
        if self.held:
            self.hold_only(0)
        if isinstance(body, Stream):
            self._stream(status, headers, body)
            return
        size = 0
        for piece in body:
            size += len(piece)
        if size >= COUNTED_FROM and not self._connection.gone and not self.hold(size):
            return  # it is refused instead
        coding = self._head.coding
        if size < PACKED_FROM or not worth_packing(headers):
            self._finish(status, headers, body, size)
        elif coding is None:
            self._finish(status, headers + VARY, body, size)
        else:
            headers += VARY + b"content-encoding: %b\r\n" % coding
            self._pack(status, headers, partial(packed, coding, body), size)

    def refuse(self, error: Exception) -> None:
        """Answer with an error; one that is not a RequestError is a fault of ours."""
        if not isinstance(error, RequestError):
            LOG.error("unexpected error while handling a request", exc_info=error)
            error = RequestError("internal error; see the proxy log")
        self.respond(error.status, *error_reply(error))

    def _stream(self, status: int, headers: bytes, body: Stream) -> None:
        """Answer in chunks; a client that may not know them reads until the connection ends."""
        connection, coding = self._connection, self._head.coding
        if connection.gone or not self.hold(body.size):
            return
        if connection.draining and connection.say_goodbye(self):
            self.keep_alive = False
        chunked = self._head.interim  # both came with HTTP/1.1
        self.keep_alive = chunked and self.keep_alive
        headers += VARY
        pieces = iter(body)
        if coding is not None:
            headers += b"content-encoding: %b\r\n" % coding
            pieces = packed_pieces(coding, pieces)
        headers += b"transfer-encoding: chunked\r\n" if chunked else b""
        headers += self._head.ending if self.keep_alive else LEAVING
        if self._head.method != b"HEAD":
            self.rest = _chunks(pieces) if chunked else pieces
        self._give_up = None
        self.reply = [STATUS_LINES[status] + headers]
        connection.flush()

    def _pack(self, status: int, headers: bytes, pack: Callable[[], bytes], size: int) -> None:
        """Finish with the packed body: at once if it is small, else after work in a thread."""

        def finish(result: Callable[[], bytes]) -> None:
            body = result()
            if self.held:
                self.hold_only(len(body))
            self._finish(status, headers, [body], len(body))

        if size <= AT_ONCE:
            finish(pack)
        else:
            self._connection.aside(pack, finish)

    def _finish(
        self, status: int, headers: bytes, body: Sequence[bytes | memoryview], size: int
    ) -> None:
        connection, head = self._connection, self._head
        if connection.draining and connection.say_goodbye(self):
            self.keep_alive = False
        ending = head.ending if self.keep_alive else LEAVING
        first = b"%bcontent-length: %d\r\n%b%b" % (STATUS_LINES[status], size, headers, ending)
        if head.method == b"HEAD":
            body = ()
        reply = [first, *body]
        self._give_up = None
        if connection.gone:  # while its body was packed
            self.hold_only(0)
            return
        self.reply = reply if size > JOIN_BYTES else [b"".join(reply)]
        connection.flush()


def _chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Chunked transfer coding; the pieces are not empty."""
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def error_reply(error: RequestError) -> tuple[bytes, list[bytes]]:
    """Headers and body of an error: `{"error": text}`."""
    headers = JSON_TYPE + STATUS_HEADERS.get(error.status, b"") + error.headers
    if error.retry_after_s is not None:
        headers += b"retry-after: %d\r\n" % error.retry_after_s
    return headers, [orjson.dumps({"error": str(error)})]
