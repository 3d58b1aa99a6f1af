"""A reply on its way to the client: its place in the order of requests, and how it looks."""

from __future__ import annotations

import logging
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from dlbench.proxy.encoding import AT_ONCE, PACKED_FROM, packed, worth_packing
from dlbench.proxy.errors import ClientGone, RequestError
from dlbench.proxy.head import LEAVING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlbench.proxy.head import RequestHead

LOG = logging.getLogger(__name__)

JSON_TYPE = b"content-type: application/json\r\n"
VARY = b"vary: accept-encoding\r\n"
STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
STATUS_LINES[ClientGone.status] = b"HTTP/1.1 499 Client Gone\r\n"
# Up to so many bytes one joined write is cheaper than handing over the pieces.
JOIN_BYTES = 32 * 1024
# What a status has to come with, whatever the error.
STATUS_HEADERS = {401: b"www-authenticate: Bearer\r\n"}


class Connection(Protocol):
    """What an exchange needs of the connection that it happens on."""

    draining: bool

    def say_goodbye(self, exchange: Exchange) -> bool:
        """Whether the client is owed nothing after this and asks for nothing: no more is read."""

    def flush(self) -> None:
        """Send the replies whose turn has come."""

    def aside(self, work: Callable[[], Any], then: Callable[[Callable[[], Any]], None]) -> None:
        """Do work that would hold up the others in a thread; `then` is given a getter of its result."""


class Client(Protocol):
    """Who waits for the answer to a request."""

    def waits(self, give_up: Callable[[], None]) -> None:
        """Call `give_up` if the client goes before it is answered."""


class NoClient:
    """Nobody waits: the answer is fetched later, if at all."""

    def waits(self, give_up: Callable[[], None]) -> None:
        """Nobody can go."""


NOBODY = NoClient()


class Exchange:
    """One request and its reply; replies leave in the order of their requests.

    `reply` is None until it is ready. After one that is not `keep_alive` the connection ends; with
    `linger` not before the client has had time to read it.
    """

    __slots__ = ("_connection", "_give_up", "_head", "keep_alive", "linger", "reply")

    def __init__(self, connection: Connection, head: RequestHead) -> None:
        self._connection = connection
        self._head = head
        self.keep_alive = head.keep_alive
        self.linger = False
        self.reply: list[bytes | memoryview] | None = None
        self._give_up: Callable[[], None] | None = None

    @property
    def interim(self) -> bool:
        """Whether the client understands replies that come before the reply."""
        return self._head.interim

    def waits(self, give_up: Callable[[], None]) -> None:
        """The client waits for work, which is given up if it goes."""
        if self.reply is None:
            self._give_up = give_up

    def abandon(self) -> None:
        """The client has gone."""
        if self._give_up is not None:
            self._give_up()

    def respond(self, status: int, headers: bytes, body: Sequence[bytes | memoryview]) -> None:
        """Answer the request; `headers` are complete lines."""
        size = 0
        for piece in body:
            size += len(piece)
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
            LOG.error("a request broke the proxy", exc_info=error)
            error = RequestError("the proxy failed; its log says how")
        self.respond(error.status, *error_reply(error))

    def _pack(self, status: int, headers: bytes, pack: Callable[[], bytes], size: int) -> None:
        """Finish with the packed body: at once if it is small, else after work in a thread."""

        def finish(result: Callable[[], bytes]) -> None:
            body = result()
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
        self.reply = reply if size > JOIN_BYTES else [b"".join(reply)]
        connection.flush()


def error_reply(error: RequestError) -> tuple[bytes, list[bytes]]:
    """Headers and body of an error: `{"error": text}`."""
    headers = JSON_TYPE + STATUS_HEADERS.get(error.status, b"") + error.headers
    if error.retry_after_s is not None:
        headers += b"retry-after: %d\r\n" % error.retry_after_s
    return headers, [orjson.dumps({"error": str(error)})]
