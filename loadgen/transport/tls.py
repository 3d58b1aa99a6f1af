"""TLS over a socket that does not block, as a wire: OpenSSL in memory, our own system calls.

A memory buffer takes one `recv` for what OpenSSL would fetch in two, and works the same whether
or not gevent has patched `ssl`.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

from dlbench.loadgen.transport.keepalive import READ, WRITE, Plain

if TYPE_CHECKING:
    from dlbench.loadgen.transport.keepalive import Bytes

CHUNK = 65_536
RECORD = 16_384  # the most that one TLS record holds (RFC 8446, 5.1)


class Tls:
    """Makes the wires of one load; `protocol` is what ALPN must agree on ("h2"; "": nothing)."""

    def __init__(self, context: ssl.SSLContext, hostname: str, protocol: str = "") -> None:
        if protocol:
            context.set_alpn_protocols([protocol])
        self._context, self._hostname, self._protocol = context, hostname, protocol

    def __call__(self, family: int) -> TlsWire:
        """Raises OSError if no socket is available."""
        return TlsWire(Plain(family), self._context, self._hostname, self._protocol)


class TlsWire:
    """Behaves as a socket that does not block; what OpenSSL finds wrong is an ssl.SSLError."""

    def __init__(self, plain: Plain, context: ssl.SSLContext, hostname: str, protocol: str) -> None:
        self._protocol = protocol
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        # Encrypted and not yet sent, and how much of the caller's bytes that was.
        self._unsent = b""
        self._taken = 0
        self._recv, self._send = plain.recv, plain.send
        self.connect_ex, self.fileno, self.close = plain.connect_ex, plain.fileno, plain.close
        self.setblocking, self.setsockopt = plain.setblocking, plain.setsockopt
        self.getsockopt = plain.getsockopt

    def handshake(self) -> int:
        """What to wait for before the next call; 0: the connection stands. Raises OSError."""
        with suppress(BlockingIOError):
            self._fill(CHUNK)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return READ if self._flush() else WRITE
        except ssl.SSLError:
            self._flush()  # the alert that tells the server why
            raise
        if self._protocol and self._tls.selected_alpn_protocol() != self._protocol:
            raise ssl.SSLError(f"the server does not agree on {self._protocol} (ALPN)")
        return 0 if self._flush() else WRITE

    def recv(self, size: int, /) -> bytes:
        """All that can be decrypted, b"" at the end. Raises BlockingIOError, ssl.SSLError."""
        self._fill(size)
        pieces = []
        try:
            # No read leaves a part of a record behind, so that nothing waits unseen in OpenSSL.
            while piece := self._tls.read(RECORD):
                pieces.append(piece)
                if not self._incoming.pending:
                    break
        except ssl.SSLWantReadError:
            if not pieces:
                raise BlockingIOError from None
        except ssl.SSLEOFError:
            pass  # the server hung up without saying so in TLS: HTTP knows whether that is early
        return b"".join(pieces)

    def send(self, data: Bytes, /) -> int:
        """All of `data`, or BlockingIOError: then call again with bytes that begin with it."""
        if not self._unsent:
            for start in range(0, len(data), RECORD):
                self._tls.write(data[start : start + RECORD])
            self._taken = len(data)
        if not self._flush():
            raise BlockingIOError
        return self._taken

    def _fill(self, size: int) -> None:
        if data := self._recv(size):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> bool:
        """Whether everything that was encrypted is on its way. Raises OSError."""
        self._unsent += self._outgoing.read()
        with suppress(BlockingIOError):
            self._unsent = self._unsent[self._send(self._unsent) :]
        return not self._unsent
