"""Bytes carried between an encrypted connection and a worker's socket, which knows no TLS."""

from __future__ import annotations

import select
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

# Read at once: more than a TLS record holds, so that a large frame takes few turns.
PIECE_BYTES = 256 << 10
# Of a peer that has closed its end; elsewhere than on Linux it shows when somebody reads.
HUNG_UP = getattr(select, "POLLRDHUP", select.POLLHUP)
BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Way:
    """One direction."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self._source, self._target = source, target
        self.held = memoryview(b"")

    def move(self) -> bool:
        """Carry what is there, until either side blocks; False at the end.

        TLS decrypts ahead, which no poll sees: stopping sooner would leave bytes behind.
        """
        try:
            while True:
                if not self.held:
                    self.held = memoryview(self._source.recv(PIECE_BYTES))
                if not self.held:
                    return False
                self.held = self.held[self._target.send(self.held) :]
        except BLOCKED:
            return True


def relay(outer: ssl.SSLSocket, inner: socket.socket) -> None:
    """Carry bytes both ways until either side ends.

    Raises:
        OSError: the connection broke.
    """
    for stream in (outer, inner):
        stream.setblocking(False)
    inward, outward = Way(outer, inner), Way(inner, outer)
    while inward.move() and outward.move():
        ends = select.poll()
        ends.register(outer, HUNG_UP | _wanted(reads=not inward.held, writes=bool(outward.held)))
        ends.register(inner, _wanted(reads=not outward.held, writes=bool(inward.held)))
        if any(fd == outer.fileno() and event & HUNG_UP for fd, event in ends.poll()):
            return


def _wanted(*, reads: bool, writes: bool) -> int:
    return select.POLLIN * reads | select.POLLOUT * writes
