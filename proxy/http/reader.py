"""Bytes of one connection in, requests out: httptools, and a short cut for heads seen before.

No socket and no clock in here. A head that is known by its bytes is not parsed again: between two
messages the parser has no memory, so equal bytes give equal heads. What is not known is parsed, up
to the end of the head on its own, so that it is certain which bytes made it.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import httptools

from dlbench.proxy.errors import BadRequest, HeadTooLarge, RequestError, TooLarge
from dlbench.proxy.http.access import OPEN_TARGETS, Access
from dlbench.proxy.http.head import HeadMemo, RequestHead, add_header, request_head
from dlbench.proxy.http.hosts import AnyHost

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.http.hosts import Hosts
    from dlbench.proxy.http.limits import Limits
    from dlbench.proxy.http.memory import Memory

HEAD_END = b"\r\n\r\n"
# Phases: between messages, in a head, in a body, after the last message of the connection.
IDLE, HEAD, BODY, ENDED = range(4)
# Tiny chunks cost us more than they cost the sender: after so many the mean has to be larger.
FREE_CHUNKS = 16_384
LEAST_MEAN_CHUNK = 64
# What a header line takes besides name and value: colon, space, line end.
LINE_EXTRA = 4


class RequestReader:
    """Reads requests; `take(head, body)` is called with each one that is complete.

    `phase` says where in a message the last byte was, and `turns` changes whenever a message or its
    body began or ended. `awaits_continue`: the client waits for 100 Continue.
    """

    def __init__(
        self,
        limits: Limits,
        heads: HeadMemo,
        access: Access,
        take: Callable[[RequestHead, bytes], None],
        memory: Memory,
        hosts: Hosts | None = None,
    ) -> None:
        self._limits = limits
        self._heads = heads
        self._known = heads.known
        self._access = access
        self._hosts = hosts or AnyHost()
        self._take = take
        self._memory = memory
        self._parser = httptools.HttpRequestParser(self)
        self._head = RequestHead()
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        # One growing buffer that becomes the body without another copy: pieces and their sum at once
        # made malloc give memory back to the system and fault it in again for every large body.
        self._body = BytesIO()
        self._held = 0  # bytes of it that are counted
        self._head_bytes = self._received = self._chunks = 0
        self._missing = 0  # bytes of a body that is not the parser's business
        self._progress = self._unheard = 0
        self._upgrading = False
        self.phase = IDLE
        self.turns = 0
        self.awaits_continue = False

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises:
            RequestError: what breaks the connection; nothing may be fed after that.
        """
        start, size = 0, len(data)
        while start < size:
            if self.phase == IDLE:
                end = data.find(HEAD_END, start) + len(HEAD_END)
                head = self._known.get(data[start:end])
                if head is None:
                    start += self._learn(data, start, end)
                elif end + head.length <= size:
                    start = end + head.length
                    self._take(head, data[end:start])
                else:
                    self._await_body(head)
                    start = end
            elif self._missing:
                piece = memoryview(data)[start : start + self._missing]
                start += self._gather_missing(piece)
            elif self.phase == ENDED:
                return
            else:
                start += self._parse(data[start:])

    def drop(self) -> None:
        """Free a body that is no longer needed."""
        self._body = BytesIO()
        self._memory.give(self._held)
        self._held = 0

    def close(self) -> None:
        """Forget the connection, which refers to us."""
        self.drop()
        self.phase = ENDED
        del self._parser, self._take

    # Heads that were not seen before, and bodies without the parser

    def _learn(self, data: bytes, start: int, end: int) -> int:
        """Parse a head, alone if it may be worth remembering; returns how many bytes that took."""
        if not len(HEAD_END) < end - start <= self._heads.longest:
            return self._parse(data[start:])
        text, turns = data[start:end], self.turns
        used = self._parse(text)
        one = self.turns == turns + (2 if self.phase == BODY else 3)
        if one and not self._received and self._head.repeatable:
            self._heads.put(text, self._head)
        return used

    def _await_body(self, head: RequestHead) -> None:
        self._head, self._missing = head, head.length
        self._turn(BODY)
        if not self._missing:
            self._complete()

    def _gather_missing(self, piece: memoryview) -> int:
        self._gather(piece)
        self._missing -= len(piece)
        if not self._missing:
            self._complete()
        return len(piece)

    def _gather(self, piece: bytes | memoryview) -> None:
        """Keep a piece of a body if the memory for all bodies has room for it."""
        self._memory.take(len(piece))
        self._held += len(piece)
        self._body.write(piece)

    def _complete(self) -> None:
        body = self._body
        self.drop()
        self.awaits_continue = False
        self._turn(IDLE if self._head.keep_alive else ENDED)
        self._take(self._head, body.getvalue())

    def _turn(self, phase: int) -> None:
        self.phase = phase
        self.turns += 1
        self._progress += 1

    # The parser

    def _parse(self, data: bytes) -> int:
        """Feed the parser; returns how many bytes it has had."""
        progress = self._progress
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._ignore_upgrade(int(upgrade.args[0]))
        except httptools.HttpParserError as error:
            if self.phase != ENDED:  # it frowns upon bytes after the last message
                raise _reason(error) from None
        # The parser keeps what has no end to itself: a line of the head, a trailer, a chunk's size.
        self._unheard = self._unheard + len(data) if self._progress == progress else 0
        if self._unheard > self._limits.head_bytes:
            raise _head_too_large(self._limits)
        return len(data)

    def _ignore_upgrade(self, used: int) -> int:
        """Ignore an offered upgrade and stay with HTTP/1.1 (RFC 9110, 7.8)."""
        self._upgrading = False
        self._parser = httptools.HttpRequestParser(self)
        self._await_body(self._head)
        return used

    # What the parser calls

    def on_message_begin(self) -> None:
        self._target, self._headers = b"", {}
        self._head_bytes = self._received = self._chunks = 0
        self._turn(HEAD)

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + LINE_EXTRA)
        if self.phase == HEAD:  # trailers come too late to mean anything
            add_header(self._headers, name, value)

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        method, version = parser.get_method(), parser.get_http_version()
        keep_alive = parser.should_keep_alive()
        head = request_head(method, self._target, version, headers, keep_alive=keep_alive)
        self._hosts.check(method, self._target, headers)
        if head.target.partition(b"?")[0] not in OPEN_TARGETS:
            self._access.check(headers.get(b"authorization"))
        if head.length > self._limits.body_bytes:
            raise _body_too_large(self._limits)
        self._upgrading = parser.should_upgrade()
        if self._upgrading and (head.chunked or method == b"CONNECT"):
            raise BadRequest("upgrades are not supported; use plain HTTP/1.1")
        self._head = head
        self.awaits_continue = head.expects
        self._turn(BODY)

    def on_chunk_header(self) -> None:
        self._progress += 1
        self._chunks += 1
        if self._chunks > FREE_CHUNKS and self._received < LEAST_MEAN_CHUNK * self._chunks:
            raise TooLarge(f"too many tiny chunks; send at least {LEAST_MEAN_CHUNK} bytes in each")

    def on_body(self, body: bytes) -> None:
        self._progress += 1
        self.awaits_continue = False
        self._received += len(body)
        if self._received > self._limits.body_bytes:
            raise _body_too_large(self._limits)
        self._gather(body)

    def on_message_complete(self) -> None:
        if not self._upgrading:
            self._complete()

    def _count_head(self, size: int) -> None:
        self._progress += 1
        self._head_bytes += size
        if self._head_bytes > self._limits.head_bytes:
            raise _head_too_large(self._limits)


def _reason(error: httptools.HttpParserError) -> RequestError:
    """Why the parser stopped: an error of ours from a callback, or not HTTP at all."""
    if isinstance(error.__context__, RequestError):
        return error.__context__
    return BadRequest(f"not HTTP/1.1: {error}")


def _head_too_large(limits: Limits) -> HeadTooLarge:
    return HeadTooLarge(f"request line and headers exceed {limits.head_bytes} bytes")


def _body_too_large(limits: Limits) -> TooLarge:
    return TooLarge(f"the body exceeds {limits.body_bytes} bytes")
