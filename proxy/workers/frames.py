"""What goes over the socket between the front and a worker: length-prefixed frames, no pickle. Pure.

A frame is a head (`size, id, size of the layout, kind`), a layout and data. A batch's data are its
tensors one after the other, each request's piece of a tensor contiguous, in the order of the
requests; a result comes back the same way. So for a batch axis of 0 concatenating and splitting
cost nothing, and for another axis it is the worker that rearranges: the front only cuts bytes.

A layout says which rows and shapes the data have. The same few come again and again, so what was
made of one is kept by its bytes.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from dlbench.proxy.errors import BrokenFrame
from dlbench.proxy.tensors import Buffer, Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    Shapes = tuple[tuple[int, ...], ...]

# Size of the frame after these eight bytes (a batch may be over 4 GiB), id, size of the layout, kind.
HEAD: Final = struct.Struct("<QIIB")
SIZE: Final = struct.Struct("<Q")
BATCH, RESULT, FAILURE, HELLO = range(4)
# Requests, before their row counts.
REQUESTS: Final = struct.Struct("<I")
# Nanoseconds of input, computing and output, before a result's shapes.
TIMES: Final = struct.Struct("<QQQ")
# Bytes of one size in a shape.
SIZE_BYTES: Final = 4
# Layouts kept: row counts of every batch size and a few mixtures.
LAYOUTS_KEPT: Final = 1024
# Small frames are read through this room, several at a time; a larger one gets its own.
ROOM_BYTES: Final = 256 << 10
# Larger than anything that a model gives: a length like that is no length.
MOST_BYTES: Final = 1 << 40
# A worker's hello, which says no more than its signature.
MOST_HELLO_BYTES: Final = 16 << 20


class Frame(NamedTuple):
    """A frame taken apart."""

    kind: int
    number: int
    layout: bytes
    data: memoryview


class Batch(NamedTuple):
    """The layout of work for a worker: rows per request, and the whole batch's shape per tensor."""

    rows: tuple[int, ...]
    shapes: Shapes


class Result(NamedTuple):
    """A worker's answer: per output the whole batch's shape and bytes, request after request.

    The times are those of the worker, in nanoseconds: from the batch's arrival to the start of the
    run, the run, and from its end to the answer.
    """

    input_ns: int
    compute_ns: int
    output_ns: int
    tensors: tuple[Tensor, ...]


def encode(
    kind: int, number: int, layout: bytes, data: Sequence[Buffer], data_bytes: int
) -> list[Buffer]:
    """A frame as pieces for one gathered write; `data_bytes` is the size of all the data."""
    size = HEAD.size - SIZE.size + len(layout) + data_bytes
    return [HEAD.pack(size, number, len(layout), kind) + layout, *data]


def size_of(head: Buffer) -> int:
    """The size of a whole frame that begins so."""
    size: int = SIZE.unpack_from(head)[0]
    return SIZE.size + size


def encode_text(kind: int, number: int, text: bytes) -> list[Buffer]:
    """A hello or a failure."""
    return encode(kind, number, b"", [text], len(text))


def encode_batch(
    number: int, rows: Sequence[int], shapes: Sequence[Sequence[int]], pieces: Sequence[Buffer]
) -> list[Buffer]:
    """A batch; `shapes` are those of the whole batch, per tensor, `pieces` all their bytes in order."""
    layout = _batch_layout(tuple(rows), tuple(map(tuple, shapes)))
    return encode(BATCH, number, layout, pieces, sum(map(len, pieces)))


def encode_result(
    number: int, times: tuple[int, int, int], shapes: Shapes, data: Sequence[Buffer], size: int
) -> list[Buffer]:
    """A result; `data` holds the outputs in order, `size` bytes together."""
    return encode(RESULT, number, TIMES.pack(*times) + _pack_shapes(shapes), data, size)


@lru_cache(LAYOUTS_KEPT)
def decode_batch(layout: bytes) -> Batch:
    """Rows and shapes of a batch."""
    (requests,) = REQUESTS.unpack_from(layout)
    rows = struct.unpack_from(f"<{requests}I", layout, REQUESTS.size)
    return Batch(rows, _unpack_shapes(layout[REQUESTS.size + SIZE_BYTES * requests :]))


def decode_result(frame: Frame, item_sizes: tuple[int, ...]) -> Result:
    """A result; `item_sizes` are the bytes per element of each output.

    Raises:
        BrokenFrame: other outputs than these, or bytes that are not those of the shapes.
    """
    data = frame.data
    try:
        places = _places(frame.layout[TIMES.size :], item_sizes)
        input_ns, compute_ns, output_ns = TIMES.unpack_from(frame.layout)
    except (struct.error, ValueError):
        raise BrokenFrame("a result with an unknown layout") from None
    if (places[-1][2] if places else 0) != len(data):
        raise BrokenFrame(f"a result of {len(data)} bytes, which do not match its shapes")
    tensors = tuple([Tensor(shape, data[start:stop]) for shape, start, stop in places])
    return Result(input_ns, compute_ns, output_ns, tensors)


class FrameReader:
    """Puts frames together from whatever arrives.

    The next bytes belong into `room()`; `received(count)` says how many came. A frame's data are
    never overwritten: a reply or a cache may hold on to them. No room is made for a frame of over
    `most_bytes`, which may be assigned at any moment.
    """

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        self._shared = memoryview(bytearray(room_bytes))
        self._room = self._shared
        self._filled = 0
        self.most_bytes = MOST_BYTES

    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        return self._room[self._filled :]

    def received(self, count: int) -> list[Frame]:
        """The frames that are complete with `count` more bytes.

        Raises:
            BrokenFrame: these are no frames, and nothing that follows will be.
        """
        self._filled += count
        if self._room is self._shared:
            return self._cut()
        if self._filled < len(self._room):
            return []
        whole, self._room, self._filled = self._room, self._shared, 0
        return [_taken_apart(whole)]

    def _cut(self) -> list[Frame]:
        found, start = [], 0
        while (stop := self._end(start)) <= self._filled:
            found.append(_taken_apart(memoryview(bytes(self._shared[start:stop]))))
            start = stop
        self._keep(start, stop)
        return found

    def _end(self, start: int) -> int:
        """Where the frame at `start` ends, or its size if even that is incomplete."""
        if self._filled - start < SIZE.size:
            return start + SIZE.size
        return start + size_of(self._shared[start:])

    def _keep(self, start: int, stop: int) -> None:
        """Put the beginning of a frame where its rest shall go: at the front, or in its own room."""
        rest = bytes(self._shared[start : self._filled])
        if stop - start > len(self._shared):
            self._room = self._own_room(stop - start)
        self._room[: len(rest)] = rest
        self._filled = len(rest)

    def _own_room(self, size: int) -> memoryview:
        if size > self.most_bytes:
            raise BrokenFrame(f"a frame of {size} bytes")
        try:
            return np.empty(size, np.uint8).data  # not zeroed first
        except (MemoryError, ValueError):
            raise BrokenFrame(f"not enough memory for a frame of {size} bytes") from None


def _taken_apart(frame: memoryview) -> Frame:
    if len(frame) < HEAD.size:
        raise BrokenFrame(f"a frame of {len(frame)} bytes")
    _, number, layout_size, kind = HEAD.unpack_from(frame)
    start = HEAD.size + layout_size
    if start > len(frame):
        raise BrokenFrame("a frame that is shorter than its layout")
    return Frame(kind, number, bytes(frame[HEAD.size : start]), frame[start:])


@lru_cache(LAYOUTS_KEPT)
def _batch_layout(rows: tuple[int, ...], shapes: Shapes) -> bytes:
    return struct.pack(f"<I{len(rows)}I", len(rows), *rows) + _pack_shapes(shapes)


@lru_cache(LAYOUTS_KEPT)
def _pack_shapes(shapes: Shapes) -> bytes:
    return b"".join(struct.pack(f"<B{len(s)}I", len(s), *s) for s in shapes)


def _unpack_shapes(layout: bytes) -> Shapes:
    shapes, start = [], 0
    while start < len(layout):
        axes = layout[start]
        shapes.append(struct.unpack_from(f"<{axes}I", layout, start + 1))
        start += 1 + SIZE_BYTES * axes
    return tuple(shapes)


@lru_cache(LAYOUTS_KEPT)
def _places(
    layout: bytes, item_sizes: tuple[int, ...]
) -> tuple[tuple[tuple[int, ...], int, int], ...]:
    """Shape, start and stop of every tensor in the data."""
    places, start = [], 0
    for shape, size in zip(_unpack_shapes(layout), item_sizes, strict=True):
        for axis in shape:
            size *= axis
        places.append((shape, start, start + size))
        start += size
    return tuple(places)
