"""HTTP/1.1 replies without I/O: bytes in, the end of a reply and its body out.

httptools decides; what it decided about a header block is remembered, because a server under load
sends the same one again and again and a dictionary lookup is ten times cheaper than parsing it.
"""

from __future__ import annotations

from typing import NamedTuple

import httptools

REDIRECTS = range(300, 400)
NOT_FOUND = 404
EXPLAINED = {*REDIRECTS, NOT_FOUND}
HEAD_END = b"\r\n\r\n"
# A server that puts an id into every reply must not fill the memory, nor one that never ends.
HEADS_LIMIT = 1024
BODY_LIMIT = 2**28


class BadReplyError(Exception):
    """These bytes are not an HTTP reply, or more than the one that was asked for."""


class Reply(NamedTuple):
    """A complete reply."""

    status: int
    keep_alive: bool
    body: bytes


class Heads:
    """Header blocks seen before: block -> (length of the body, status), of keep-alive replies."""

    def __init__(self) -> None:
        self.known: dict[bytes, tuple[int, int]] = {}
        # The one learned last: what most replies begin with, their whole size, and their status.
        self.last = (b"", -1, 0)

    def learn(self, head: bytes, length: int, status: int) -> None:
        if len(self.known) >= HEADS_LIMIT:
            self.known.clear()
        self.known[head] = (length, status)
        self.last = head, len(head) + length, status


class ReplyReader:
    """Reads one reply, however it is cut into pieces. A new reader is made for the next one."""

    def __init__(self, heads: Heads) -> None:
        self._heads = heads
        self._parser = httptools.HttpResponseParser(self)
        self._pieces = 0
        self._reply: Reply | None = None
        self._framing: set[bytes] = set()
        self._location = b""
        self._in_body = False
        self._body = bytearray()

    @property
    def has_begun(self) -> bool:
        """Whether any part of a reply has come."""
        return self._pieces > 0

    # The next five are called by httptools.
    def on_message_begin(self) -> None:
        if self._reply is not None:
            raise BadReplyError("a second reply to one request")
        self._framing.clear()
        self._location = b""
        self._in_body = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if (lowered := name.lower()) in (b"content-length", b"transfer-encoding"):
            self._framing.add(lowered)
        elif lowered == b"location":
            self._location = value

    def on_headers_complete(self) -> None:
        self._in_body = True

    def on_body(self, piece: bytes) -> None:
        self._body += piece
        if len(self._body) > BODY_LIMIT:
            raise BadReplyError(f"a reply of more than {BODY_LIMIT:,} bytes")

    def on_message_complete(self) -> None:
        # 1xx replies come before the real one. What the parser knows is gone after this call.
        if self._parser.get_status_code() >= 200:
            self._reply = self._read(bool(self._parser.should_keep_alive()))

    def feed(self, data: bytes) -> Reply | None:
        """The reply, once these bytes complete it. Raises BadReplyError."""
        self._pieces += 1
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # What a callback raised comes wrapped.
            raise BadReplyError(str(error.__context__ or error)) from None
        if self._reply is not None and self._pieces == 1:
            self._remember(data, self._reply)
        return self._reply

    def eof(self) -> Reply | None:
        """The reply, when the end of the connection is what ends it; None: it was cut off."""
        if self._in_body and not self._framing and self._parser.get_status_code() >= 200:
            return self._read(keep_alive=False)
        return None

    def _read(self, keep_alive: bool) -> Reply:
        """A redirect says where to, and a 404 without a text what it means."""
        status, body = self._parser.get_status_code(), bytes(self._body)
        if status in REDIRECTS and self._location:
            body = b"to %s: use that URL" % self._location
        if status == NOT_FOUND and not body:
            body = b"there is nothing at this path of the URL"
        return Reply(status, keep_alive, body)

    def _remember(self, data: bytes, reply: Reply) -> None:
        """Learn the header block of a reply that came in one piece with a stated length."""
        cut = data.find(HEAD_END) + len(HEAD_END)
        stated = self._framing == {b"content-length"} and not data.startswith(b"HTTP/1.1 1")
        if stated and reply.keep_alive and reply.status not in EXPLAINED:
            self._heads.learn(data[:cut], len(data) - cut, reply.status)
