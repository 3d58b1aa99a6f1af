"""Submit now, fetch later: `Prefer: respond-async` (RFC 7240) and the results it leaves behind."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

from dlbench.proxy.errors import NotFound, Overloaded, TooMany
from dlbench.proxy.http.connection import HttpRequest
from dlbench.proxy.http.memory import COUNTED_FROM
from dlbench.proxy.http.reply import Stream, error_reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.http.connection import Respond
    from dlbench.proxy.http.memory import Memory
    from dlbench.proxy.http.reply import Body

    Handler = Callable[[Any, HttpRequest, Respond], None]

PATH = "/v2/async/"
APPLIED = b"preference-applied: respond-async\r\n"


class KeptReply(NamedTuple):
    """A reply as it would have been sent, and until when it is kept."""

    status: int
    headers: bytes
    body: bytes | Stream
    expires_ns: int = 0

    @property
    def size(self) -> int:
        """Bytes that are counted for it."""
        size = self.body.size if isinstance(self.body, Stream) else len(self.body)
        return size if size >= COUNTED_FROM else 0


PENDING = KeptReply(202, b"retry-after: 1\r\n", b"")


class AsyncResults:
    """At most `most` results in `memory`, each kept for `ttl_ns` after it was finished. Pure.

    The oldest give way to requests that find no room in the memory: nobody may fill it with results.
    Ids cannot be guessed: to know one is the right to fetch the result.
    """

    def __init__(self, most: int, ttl_ns: int, memory: Memory) -> None:
        self._most, self._ttl_ns, self._memory = most, ttl_ns, memory
        memory.make_room = self._make_room
        self._pending: set[str] = set()
        self._finished: dict[str, KeptReply] = {}  # the oldest first, which expires first

    def __len__(self) -> int:
        return len(self._pending) + len(self._finished)

    def begin(self, now_ns: int) -> str:
        """The id of a result to come; the oldest finished one makes room.

        Raises:
            TooMany: nothing is finished that could make room.
        """
        self._expire(now_ns)
        if len(self._pending) >= self._most:
            raise TooMany(f"{self._most} requests are already in progress; fetch results or wait")
        if len(self) >= self._most:
            self._drop_oldest()
        found = secrets.token_urlsafe()
        self._pending.add(found)
        return found

    def finish(
        self,
        id: str,  # noqa: A002 - what it is
        status: int,
        headers: bytes,
        pieces: Body,
        now_ns: int,
    ) -> None:
        """Keep a reply, unless it was forgotten meanwhile; joined, since a piece may hold a batch.

        Where there is no room for it, it becomes a 503.
        """
        if id not in self._pending:
            return
        self._pending.remove(id)
        body = pieces if isinstance(pieces, Stream) else b"".join(pieces)
        result = KeptReply(status, headers, body, now_ns + self._ttl_ns)
        try:
            self._memory.take(result.size)
        except Overloaded as error:
            headers, text = error_reply(error)
            result = KeptReply(error.status, headers, b"".join(text), now_ns + self._ttl_ns)
        self._finished[id] = result

    def poll(self, id: str, now_ns: int) -> KeptReply | None:  # noqa: A002 - what it is
        """The result; PENDING until it is there, None if it is unknown or expired."""
        self._expire(now_ns)
        return PENDING if id in self._pending else self._finished.get(id)

    def forget(self, id: str) -> bool:  # noqa: A002 - what it is
        """Whether there was such a result."""
        known = id in self._pending or id in self._finished
        self._pending.discard(id)
        if id in self._finished:
            self._memory.give(self._finished.pop(id).size)
        return known

    def _make_room(self, size: int) -> None:
        while self._finished and size > self._memory.left:
            self._drop_oldest()

    def _expire(self, now_ns: int) -> None:
        while self._finished:
            oldest = next(iter(self._finished))
            if self._finished[oldest].expires_ns > now_ns:
                return
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._memory.give(self._finished.pop(next(iter(self._finished))).size)


class RespondAsync:
    """The handlers around the store: an infer handler wrapped, and what polls and forgets."""

    def __init__(self, results: AsyncResults, clock: Callable[[], int], memory: Memory) -> None:
        self._results, self._clock, self._memory = results, clock, memory

    def wrap(self, handler: Handler) -> Handler:
        """The same handler, answering 202 with a location to clients that prefer that.

        What it raises is still answered at once: there is nothing to wait for.
        """

        def handle(subject: Any, request: HttpRequest, respond: Respond) -> None:  # noqa: ANN401 - the handler's
            if not _preferred(request):
                handler(subject, request, respond)
                return
            found = self._results.begin(self._clock())
            size = len(request.body)  # it outlives the 202, after which it is no longer counted

            def keep(status: int, headers: bytes, pieces: Body) -> None:
                self._memory.give(size)
                self._results.finish(found, status, headers, pieces, self._clock())

            try:
                self._memory.take(size)
            except BaseException:
                self._results.forget(found)
                raise
            try:
                handler(subject, HttpRequest(request.head, request.body), keep)
            except BaseException:
                self._memory.give(size)
                self._results.forget(found)
                raise
            location = b"location: %b\r\n" % f"{PATH}{found}".encode()
            respond(202, PENDING.headers + location + APPLIED, [b""])

        return handle

    def poll(self, request: HttpRequest, respond: Respond) -> None:
        """202 until the reply is ready; then the reply itself."""
        result = self._results.poll(_id(request), self._clock())
        if result is None:
            raise _unknown(request)
        if isinstance(result.body, Stream):
            respond(result.status, result.headers, result.body)
        else:
            respond(result.status, result.headers, [result.body])

    def forget(self, request: HttpRequest, respond: Respond) -> None:
        """Drop the result; a request in progress still runs to its end."""
        if not self._results.forget(_id(request)):
            raise _unknown(request)
        respond(200, b"", [])


def _preferred(request: HttpRequest) -> bool:
    """Whether `respond-async` is among the preferences; their parameters do not matter here."""
    given = request.headers.get(b"prefer", b"").lower().split(b",")
    return b"respond-async" in [one.partition(b";")[0].strip() for one in given]


def _id(request: HttpRequest) -> str:
    return request.target.partition(b"?")[0].rpartition(b"/")[2].decode(errors="replace")


def _unknown(request: HttpRequest) -> NotFound:
    return NotFound(f"no result {_id(request)!r}: it never existed, was deleted or has expired")
