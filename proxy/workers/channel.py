"""A worker's end of the socket: blocking frames, read into memory that stays where it is."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from dlbench.proxy.workers import frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.tensors import Buffer

    Room = NDArray[np.uint8]

# Room for data to begin with; it doubles as frames grow.
FIRST_BYTES: Final = 1 << 20
# Room that one huge frame needed is given back above this.
KEPT_BYTES: Final = 64 << 20
# Where vector instructions like data to begin, and onnxruntime's own allocator puts it.
ALIGNMENT: Final = 64


class Arrival(NamedTuple):
    """A frame; its data are the first `size` bytes of `room`, until the next frame is received."""

    number: int
    layout: bytes
    room: Room
    size: int


class Channel:
    """Frames over a stream socket."""

    def __init__(self, stream: socket.socket) -> None:
        self._socket = stream
        self._head = bytearray(frames.HEAD.size)
        self._allocate(FIRST_BYTES, FIRST_BYTES)

    def send(self, pieces: Sequence[Buffer]) -> None:
        """Send all pieces of a frame in one go; a front that is gone ends the process."""
        try:
            sent = self._socket.sendmsg(pieces)
            if sent < frames.size_of(pieces[0]):  # only a signal cuts a blocking send short
                self._socket.sendall(memoryview(b"".join(pieces))[sent:])
        except OSError:
            sys.exit(0)

    def receive(self) -> Arrival | None:
        """The next frame, None when the socket has ended."""
        if not self._fill(memoryview(self._head)):
            return None
        rest, number, layout_size, _ = frames.HEAD.unpack(self._head)
        size = rest + frames.SIZE.size - frames.HEAD.size - layout_size
        if not self._has_room(layout_size, size):
            self._allocate(layout_size, size)
        # The layout goes right before the data, so that these begin at the same place every time.
        start = self._start - layout_size
        if not self._fill(self._bytes[start : self._start + size]):
            return None
        return Arrival(number, bytes(self._bytes[start : self._start]), self._room, size)

    def _fill(self, view: memoryview) -> bool:
        while view:
            try:
                count = self._socket.recv_into(view, 0, socket.MSG_WAITALL)
            except OSError:
                return False
            if not count:
                return False
            view = view[count:]
        return True

    def _has_room(self, layout_size: int, size: int) -> bool:
        fits = layout_size <= self._start and size <= len(self._room)
        return fits and (len(self._room) <= KEPT_BYTES or size > KEPT_BYTES)

    def _allocate(self, layout_size: int, size: int) -> None:
        size = max(FIRST_BYTES, 1 << (size - 1).bit_length())
        before = max(FIRST_BYTES, layout_size)
        memory = np.empty(
            before + ALIGNMENT + size, np.uint8
        )  # pages that nobody touches cost nothing
        self._start = before + -(memory.ctypes.data + before) % ALIGNMENT
        self._room = memory[self._start : self._start + size]
        self._bytes = memory.data
