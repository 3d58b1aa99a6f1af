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
from ssl import SSLError
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol

from dlbench.loadgen.transport.replies import HEAD_END, BadReplyError, Heads, Reply, ReplyReader

if TYPE_CHECKING:
    from collections.abc import Callable

    Wires = Callable[[int], "Wire"]  # address family -> a new wire

READ, WRITE = 1, 2  # libev's event bits
CHUNK = 65_536
IDLE = -1

Bytes = bytes | bytearray
Result = int | str


class Address(Protocol):
    """Where to connect: resolved once, so that no look-up happens under load."""

    @property
    def family(self) -> int: ...
    @property
    def sockaddr(self) -> tuple[Any, ...]: ...


class Wire(Protocol):
    """What a connection reads and writes: a socket that does not block, or TLS over one.

    `recv` hands over everything that has been decrypted. A `send` that raised BlockingIOError is
    repeated with bytes that begin with the same ones.
    """

    def connect_ex(self, sockaddr: Any, /) -> int: ...  # noqa: ANN401 - as the family has it
    def handshake(self) -> int:
        """What to wait for (READ, WRITE) before it is called again; 0: the wire stands."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: Bytes, /) -> int: ...
    def fileno(self) -> int: ...
    def setblocking(self, flag: bool, /) -> None: ...
    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...
    def getsockopt(self, level: int, option: int, /) -> int: ...
    def close(self) -> None: ...


class Plain(RawSocket):
    """A plain TCP socket."""

    def __init__(self, family: int) -> None:
        super().__init__(family, SOCK_STREAM)

    def handshake(self) -> int:
        """Nothing is agreed upon: what is connected stands."""
        return 0


class Owner(Protocol):
    """The source of a connection's requests, which is told how they ended."""

    traffic: list[int]

    def replied(self, connection: Connection, result: Result, now_ns: int, body: bytes) -> None:
        """`result`: an HTTP status, 2xx for an answer (gRPC's is 200), or the name of an outcome."""

    def failed(self, connection: Connection, kind: str, detail: str) -> None:
        """The connection is closed; its request, if it had one, ended without a reply."""


class Connection:
    """Connects at once; `submit` sends now, or as soon as the connection stands.

    Subclasses say in `_on_readable` what a reply is. `closing`: it must not be used again.
    """

    __slots__ = (
        "_blocked",
        "_outbox",
        "_owner",
        "_read",
        "_recv",
        "_refused",
        "_replied",
        "_send",
        "_traffic",
        "_wire",
        "_write",
        "closing",
        "connect_ns",
        "index",
        "sent_ns",
        "since_ns",
    )

    def __init__(self, loop: Any, address: Address, wires: Wires, owner: Owner) -> None:  # noqa: ANN401 - untyped
        """Raises OSError if no socket is available (descriptors or ports exhausted)."""
        self.index = IDLE
        self.since_ns = self.sent_ns = 0
        # How long the outstanding request waited for the connection to stand; 0: it did not.
        self.connect_ns = 0
        self.closing = False
        self._owner, self._traffic = owner, owner.traffic
        self._replied: Callable[[Connection, Result, int, bytes], None] = owner.replied
        # While it connects, and while the socket takes no more: what is sent goes to the outbox.
        self._blocked = True
        self._outbox: Bytes = b""
        self._wire = wires(address.family)
        self._recv: Callable[[int], bytes] = self._wire.recv
        self._send: Callable[[Bytes], int] = self._wire.send
        try:
            self._begin_connecting(address)
        except OSError:
            self._wire.close()
            raise
        self._read = loop.io(self._wire.fileno(), READ)
        self._write = loop.io(self._wire.fileno(), WRITE)
        self._write.start(self._on_connected)

    def _begin_connecting(self, address: Address) -> None:
        self._wire.setblocking(False)
        self._wire.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        code = self._wire.connect_ex(address.sockaddr)
        # A loopback refuses at once, and forgets it: _on_connected has to be told.
        self._refused = code if code == errno.ECONNREFUSED else 0
        if code not in (0, errno.EINPROGRESS, errno.ECONNREFUSED):
            raise OSError(code, os.strerror(code))

    def _on_connected(self) -> None:
        code = self._refused or self._wire.getsockopt(SOL_SOCKET, SO_ERROR)
        if code:
            self.fail("connect", os.strerror(code))
        else:
            self._shake_hands()

    def _shake_hands(self) -> None:
        try:
            waits_for = self._wire.handshake()
        except OSError as error:
            self._break(error, "tls")
            return
        self._read.stop()
        self._write.stop()
        if waits_for:
            (self._read if waits_for == READ else self._write).start(self._shake_hands)
        else:
            self._stand()

    def _stand(self) -> None:
        if self.index != IDLE:
            self.connect_ns = monotonic_ns() - self.sent_ns
        self._read.start(self._on_readable)
        self._hold(self._outbox)
        self._on_writable()

    def submit(self, request: Bytes, index: int, since_ns: int) -> None:
        """Send a request; its time-out counts from `since_ns`."""
        self.index = index
        self.since_ns = since_ns
        self.connect_ns = 0
        # Also while connecting: that a server is slow to accept is its latency, not our lateness.
        self.sent_ns = monotonic_ns()
        if self._blocked:
            self._outbox += request
            return
        try:
            sent = self._send(request)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._break(error, "closed")
            return
        self._traffic[0] += sent
        if sent < len(request):
            self._hold(bytes(request[sent:]))

    def _push(self, data: bytes) -> None:
        """Send something beside the request."""
        if self._blocked:
            self._outbox += data
        else:
            self._hold(data)
            self._on_writable()

    def _hold(self, data: Bytes) -> None:
        """Send this when the socket takes it, and what else comes after it."""
        self._outbox, self._blocked = data, True
        self._write.start(self._on_writable)

    def _on_writable(self) -> None:
        try:
            sent = self._send(self._outbox) if self._outbox else 0
        except BlockingIOError:
            return
        except OSError as error:
            self._break(error, "closed")
            return
        self._traffic[0] += sent
        self._outbox = self._outbox[sent:]
        if not self._outbox:
            self._blocked = False
            self._write.stop()

    def _on_readable(self) -> None:
        raise NotImplementedError

    def _read_failed(self, error: OSError) -> None:
        if not isinstance(error, BlockingIOError):
            self._break(error, "closed")

    def _break(self, error: OSError, kind: str) -> None:
        self.fail("tls" if isinstance(error, SSLError) else kind, error.strerror or str(error))

    def _end_early(self, has_begun: bool) -> None:
        if has_begun:
            self.fail("cut_off", "the connection ended within a reply")
        else:
            self.fail("closed", "the connection ended before a reply")

    def fail(self, kind: str, detail: str = "") -> None:
        """Close, and tell the owner how the outstanding request ended, if there is one."""
        self.close()
        self._owner.failed(self, kind, detail)

    def close(self) -> None:
        """Give the socket back; safe to call twice."""
        self.closing = True
        for watcher in (self._read, self._write):
            watcher.stop()
            watcher.close()
        self._wire.close()


class HttpConnection(Connection):
    """HTTP/1.1: a request is a complete one, head and body."""

    __slots__ = ("_heads", "_known", "_reader")

    def __init__(
        self,
        loop: Any,  # noqa: ANN401 - untyped
        address: Address,
        wires: Wires,
        owner: Owner,
        heads: Heads,
    ) -> None:
        self._heads, self._known = heads, heads.known
        self._reader: ReplyReader | None = None
        super().__init__(loop, address, wires, owner)

    def _on_readable(self) -> None:
        try:
            data = self._recv(CHUNK)
        except OSError as error:
            self._read_failed(error)
            return
        self._traffic[1] += len(data)
        if self._reader is None and self.index >= 0:
            head, size, status = self._heads.last
            if len(data) == size and data.startswith(head):
                self._replied(self, status, monotonic_ns(), data[len(head) :])
                return
            cut = data.find(HEAD_END) + 4
            known = self._known.get(data[:cut])
            if known is not None and known[0] == len(data) - cut:
                self._replied(self, known[1], monotonic_ns(), data[cut:])
                return
        self._read_slowly(data)

    def _read_slowly(self, data: bytes) -> None:
        """A reply in pieces, with a header block never seen, without a length, or none at all."""
        if self.index == IDLE:
            self.fail("bad_reply" if data else "closed")
            return
        if self._reader is None:
            self._reader = ReplyReader(self._heads)
        try:
            reply = self._reader.feed(data) if data else self._reader.eof()
        except BadReplyError as error:
            self.fail("bad_reply", f"{error}: {data.decode(errors='replace')}")
            return
        if reply is not None:
            self._finish(reply)
        elif not data:
            self._end_early(self._reader.has_begun)

    def _finish(self, reply: Reply) -> None:
        self._reader = None
        if not reply.keep_alive:
            self.closing = True
        self._replied(self, reply.status, monotonic_ns(), reply.body)


class Http:
    """Makes the HTTP/1.1 connections of one load, which share what they learn about its replies."""

    def __init__(self, address: Address, wires: Wires = Plain) -> None:
        self._address, self._wires, self._heads = address, wires, Heads()

    def __call__(self, loop: Any, owner: Owner) -> HttpConnection:  # noqa: ANN401 - untyped
        """Raises OSError if no socket is available."""
        return HttpConnection(loop, self._address, self._wires, owner, self._heads)
