"""HTTP before and after a load, where every exchange is over within a time in all.

The time-outs of httpx itself are between two bytes: by them a reply that trickles never ends.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import httpx

from dlbench.loadgen.transport.replies import BadReplyError, Heads, Reply, ReplyReader

if TYPE_CHECKING:
    import ssl

CHUNK = 65_536
PORTS = {"http": 80, "https": 443}


class TimedTransport(httpx.BaseTransport):
    """Sends each request on a connection of its own; what takes too long is an httpx.TimeoutException."""

    def __init__(self, timeout_s: float, context: ssl.SSLContext | None = None) -> None:
        """`context` is for https."""
        self._timeout_s, self._context = timeout_s, context

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The reply. Raises httpx.TransportError."""
        until_s = time.monotonic() + self._timeout_s
        reader = _Reader()
        try:
            with self._connected(request.url, until_s) as connection:
                connection.settimeout(_left(until_s))
                connection.sendall(_written(request))
                reply = _reply(connection, reader, until_s)
        except TimeoutError:
            raise httpx.ReadTimeout(f"no reply in {self._timeout_s:g} s") from None
        except BadReplyError as error:
            raise httpx.RemoteProtocolError(str(error)) from None
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error)) from None
        body = httpx.ByteStream(reply.body)
        return httpx.Response(reply.status, headers=reader.headers, stream=body)

    def _connected(self, url: httpx.URL, until_s: float) -> socket.socket:
        if url.scheme not in PORTS:
            raise httpx.UnsupportedProtocol(f"{url.scheme or 'no'}:// is not http:// or https://")
        port = url.port or PORTS[url.scheme]
        plain = socket.create_connection((url.host, port), timeout=_left(until_s))
        if url.scheme != "https" or self._context is None:
            return plain
        try:
            plain.settimeout(_left(until_s))  # of the whole handshake
            return self._context.wrap_socket(plain, server_hostname=url.host)
        except BaseException:
            plain.close()
            raise


class _Reader(ReplyReader):
    """Keeps the header fields as well."""

    def __init__(self) -> None:
        super().__init__(Heads())
        self.headers: list[tuple[bytes, bytes]] = []

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self.headers.append((name, value))


def _written(request: httpx.Request) -> bytes:
    """A request as it goes out, the only one of its connection."""
    fields = [(n, v) for n, v in request.headers.raw if n.lower() != b"connection"]
    lines = [b"%s: %s" % field for field in (*fields, (b"Connection", b"close"))]
    head = b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)
    return b"\r\n".join([head, *lines, b"", request.read()])


def _reply(connection: socket.socket, reader: _Reader, until_s: float) -> Reply:
    while True:
        connection.settimeout(_left(until_s))
        data = connection.recv(CHUNK)
        reply = reader.feed(data) if data else reader.eof()
        if reply is not None:
            return reply
        if not data:
            raise BadReplyError("the connection ended before the reply did")


def _left(until_s: float) -> float:
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
