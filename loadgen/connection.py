"""One keep-alive connection as callbacks on an event loop, with at most one request outstanding.

This is the hot path of the generator: one call per readable socket, no greenlet, no future. The
loop is handed in (gevent's, with `io(fd, events)` watchers), so nothing here imports gevent.
"""

from __future__ import annotations

import errno
import os
from _socket import (  # gevent patches `socket` in this process; these are the plain system calls
    IPPROTO_TCP,
    SO_ERROR,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
)
from _socket import socket as RawSocket  # noqa: N812 - it is the class `socket`
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol

from dlbench.loadgen.replies import HEAD_END, BadReplyError, Heads, Reply, ReplyReader

if TYPE_CHECKING:
    from collections.abc import Callable

READ, WRITE = 1, 2  # libev's event bits
CHUNK = 65_536
IDLE = -1

Bytes = bytes | bytearray


class Address(Protocol):
    """Where to connect: resolved once, so that no look-up happens under load."""

    @property
    def family(self) -> int: ...
    @property
    def sockaddr(self) -> tuple[Any, ...]: ...


class Owner(Protocol):
    """Who gives a connection its requests and hears how they ended."""

    heads: Heads
    traffic: list[int]

    def replied(self, connection: Connection, status: int, now_ns: int) -> None: ...
    def failed(self, connection: Connection, kind: str) -> None: ...


class Connection:
    """Connects at once; `submit` sends now, or as soon as the connection stands."""

    __slots__ = (
        "_connected",
        "_known",
        "_outbox",
        "_owner",
        "_read",
        "_reader",
        "_recv",
        "_refused",
        "_replied",
        "_send",
        "_socket",
        "_traffic",
        "_write",
        "closing",
        "index",
        "sent_ns",
        "since_ns",
    )

    def __init__(self, loop: Any, address: Address, owner: Owner) -> None:  # noqa: ANN401 - untyped
        """Raises OSError when no socket is to be had (descriptors or ports exhausted)."""
        self.index = IDLE
        self.since_ns = self.sent_ns = 0
        self.closing = False
        self._owner = owner
        self._known, self._traffic = owner.heads.known, owner.traffic
        self._replied: Callable[[Connection, int, int], None] = owner.replied
        self._connected = False
        self._outbox: Bytes = b""
        self._reader: ReplyReader | None = None
        self._socket = RawSocket(address.family, SOCK_STREAM)
        self._recv, self._send = self._socket.recv, self._socket.send
        try:
            self._begin_connecting(address)
        except OSError:
            self._socket.close()
            raise
        self._read = loop.io(self._socket.fileno(), READ)
        self._write = loop.io(self._socket.fileno(), WRITE)
        self._write.start(self._on_writable)

    def _begin_connecting(self, address: Address) -> None:
        self._socket.setblocking(False)
        self._socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        code = self._socket.connect_ex(address.sockaddr)
        # A loopback refuses at once, and forgets it: _finish_connecting has to be told.
        self._refused = code == errno.ECONNREFUSED
        if code not in (0, errno.EINPROGRESS, errno.ECONNREFUSED):
            raise OSError(code, os.strerror(code))

    def submit(self, request: Bytes, index: int, since_ns: int) -> None:
        """Send a request; its time-out counts from `since_ns`."""
        self.index = index
        self.since_ns = since_ns
        # Also while connecting: that a server is slow to accept is its latency, not our lateness.
        self.sent_ns = monotonic_ns()
        if not self._connected:
            self._outbox = bytes(request)
            return
        try:
            sent = self._send(request)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.fail("closed")
            return
        self._traffic[0] += sent
        if sent < len(request):
            self._outbox = bytes(request[sent:])
            self._write.start(self._on_writable)

    def _on_writable(self) -> None:
        if not self._connected and not self._finish_connecting():
            return
        try:
            sent = self._send(self._outbox) if self._outbox else 0
        except BlockingIOError:
            return
        except OSError:
            self.fail("closed")
            return
        self._traffic[0] += sent
        self._outbox = self._outbox[sent:]
        if not self._outbox:
            self._write.stop()

    def _finish_connecting(self) -> bool:
        if self._refused or self._socket.getsockopt(SOL_SOCKET, SO_ERROR):
            self.fail("connect")
            return False
        self._connected = True
        self._read.start(self._on_readable)
        return True

    def _on_readable(self) -> None:
        try:
            data = self._recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.fail("closed")
            return
        self._traffic[1] += len(data)
        if self._reader is None and self.index >= 0:
            cut = data.find(HEAD_END) + 4
            known = self._known.get(data[:cut])
            if known is not None and known[0] == len(data) - cut:
                self._replied(self, known[1], monotonic_ns())
                return
        self._read_slowly(data)

    def _read_slowly(self, data: bytes) -> None:
        """A reply in pieces, with a header block never seen, without a length, or none at all."""
        if self.index == IDLE:
            self.fail("closed" if not data else "bad_reply")
            return
        if self._reader is None:
            self._reader = ReplyReader(self._owner.heads)
        try:
            reply = self._reader.feed(data) if data else self._reader.eof()
        except BadReplyError:
            self.fail("bad_reply")
            return
        if reply is not None:
            self._finish(reply)
        elif not data:
            self.fail("cut_off" if self._reader.has_begun else "closed")

    def _finish(self, reply: Reply) -> None:
        self._reader = None
        self.closing = not reply.keep_alive
        self._replied(self, reply.status, monotonic_ns())

    def fail(self, kind: str) -> None:
        """Close, and tell the owner how the outstanding request ended, if there is one."""
        self.close()
        self._owner.failed(self, kind)

    def close(self) -> None:
        """Give the socket back; safe to call twice."""
        self.closing = True
        for watcher in (self._read, self._write):
            watcher.stop()
            watcher.close()
        self._socket.close()
