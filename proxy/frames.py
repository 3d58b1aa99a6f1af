"""What goes over the socket between the front and a worker: length-prefixed frames, no pickle. Pure.

Every frame is `size, kind, id` and a body. A batch carries its tensors one after the other, each
request's piece of a tensor contiguous, in the order of the requests; a result comes back the same
way. So for a batch axis of 0 concatenating and splitting cost nothing, and for another axis it is
the worker that rearranges: the front only cuts bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dlbench.proxy.tensors import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Buffer = bytes | bytearray | memoryview

# Size of the frame after these eight bytes (a batch may be over 4 GiB), kind, batch id.
HEAD = struct.Struct("<QBI")
BATCH, RESULT, FAILURE, HELLO = range(4)
# Requests, tensors.
BATCH_HEAD = struct.Struct("<II")
# Nanoseconds of computing, tensors.
RESULT_HEAD = struct.Struct("<QI")
SIZE: Final = struct.Struct("<Q")
# Bytes of a row count and of an axis.
COUNT_BYTES: Final = 4


@dataclass(frozen=True)
class Batch:
    """Work for a worker: rows per request, and per tensor one row's shape and the pieces."""

    rows: tuple[int, ...]
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Result:
    """A worker's answer: per output the whole batch's shape and bytes, request after request."""

    compute_ns: int
    tensors: tuple[Tensor, ...]


def encode(kind: int, number: int, body: Sequence[Buffer]) -> list[Buffer]:
    """A frame as pieces for one gathered write."""
    size = HEAD.size - SIZE.size + sum(len(piece) for piece in body)
    return [HEAD.pack(size, kind, number), *body]


def encode_batch(
    number: int, rows: Sequence[int], shapes: Sequence[Sequence[int]], pieces: Sequence[Buffer]
) -> list[Buffer]:
    """A batch; `shapes` are those of the whole batch, per tensor, `pieces` all their bytes in order."""
    head = BATCH_HEAD.pack(len(rows), len(shapes)) + struct.pack(f"<{len(rows)}I", *rows)
    return encode(BATCH, number, [head + _pack_shapes(shapes), *pieces])


def encode_result(number: int, compute_ns: int, tensors: Sequence[Tensor]) -> list[Buffer]:
    """A result."""
    head = RESULT_HEAD.pack(compute_ns, len(tensors)) + _pack_shapes([t.shape for t in tensors])
    return encode(RESULT, number, [head, *(t.data for t in tensors)])


def decode_batch(body: memoryview, item_sizes: Sequence[int]) -> Batch:
    """A batch from its body; `item_sizes` are the bytes per element of each tensor."""
    requests, count = BATCH_HEAD.unpack_from(body)
    rows = struct.unpack_from(f"<{requests}I", body, BATCH_HEAD.size)
    shapes, start = _unpack_shapes(body, BATCH_HEAD.size + COUNT_BYTES * requests, count)
    return Batch(rows, tuple(_tensors(body, start, shapes, item_sizes)))


def decode_result(body: memoryview, item_sizes: Sequence[int]) -> Result:
    """A result from its body."""
    compute_ns, count = RESULT_HEAD.unpack_from(body)
    shapes, start = _unpack_shapes(body, RESULT_HEAD.size, count)
    return Result(compute_ns, tuple(_tensors(body, start, shapes, item_sizes)))


class Reader:
    """Puts frames together from whatever arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, memoryview]]:
        """Yield (kind, id, body) of every frame that is complete."""
        self._buffer += data
        while len(self._buffer) >= SIZE.size:
            end = SIZE.size + SIZE.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            frame = bytes(memoryview(self._buffer)[:end])
            del self._buffer[:end]
            _, kind, number = HEAD.unpack_from(frame)
            yield kind, number, memoryview(frame)[HEAD.size :]


def _pack_shapes(shapes: Sequence[Sequence[int]]) -> bytes:
    return b"".join(struct.pack(f"<B{len(s)}I", len(s), *s) for s in shapes)


def _unpack_shapes(body: memoryview, start: int, count: int) -> tuple[list[tuple[int, ...]], int]:
    shapes = []
    for _ in range(count):
        axes = body[start]
        shapes.append(struct.unpack_from(f"<{axes}I", body, start + 1))
        start += 1 + COUNT_BYTES * axes
    return shapes, start


def _tensors(
    body: memoryview, start: int, shapes: list[tuple[int, ...]], item_sizes: Sequence[int]
) -> Iterator[Tensor]:
    for shape, item_size in zip(shapes, item_sizes, strict=True):
        size = item_size
        for axis in shape:
            size *= axis
        yield Tensor(shape, body[start : start + size])
        start += size
