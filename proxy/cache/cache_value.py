"""Answers as the bytes that a cache backend keeps. Pure.

Versions: 1 (little-endian) is `DLBC`, the version's byte, CRC-32 of all that follows; number of
tensors (u8); of each its rank (u8), sizes (u64 each) and byte size (u64); then their bytes. 2: the
CRC-32 is that of the key and of all that follows, so that a value under another key is none.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING
from zlib import crc32

from dlbench.proxy.tensors import Tensor

if TYPE_CHECKING:
    from dlbench.proxy.request import Outputs
    from dlbench.proxy.tensors import Signature

VERSION = 2
_HEAD = struct.Struct("<4sBI")
_MAGIC = b"DLBC"


def encode(key: bytes, outputs: Outputs) -> bytes:
    """The answer's bytes as kept under `key`; shares no memory with `outputs`."""
    sizes = [
        struct.pack(f"<B{len(t.shape) + 1}Q", len(t.shape), *t.shape, len(t.data)) for t in outputs
    ]
    body = b"".join((bytes((len(outputs),)), *sizes, *(t.data for t in outputs)))
    return _HEAD.pack(_MAGIC, VERSION, crc32(body, crc32(key))) + body


def decode(key: bytes, value: bytes) -> Outputs | None:
    """The answer, its tensors slices of `value`; None for what `encode` did not make for this key."""
    if len(value) <= _HEAD.size:
        return None
    body = memoryview(value)[_HEAD.size :]
    if _HEAD.unpack_from(value) != (_MAGIC, VERSION, crc32(body, crc32(key))):
        return None
    try:
        return _tensors(body)
    except (struct.error, ValueError):
        return None


def fits(signature: Signature, outputs: Outputs, rows: int) -> bool:
    """Whether this can be the model's answer for `rows` rows: number, shapes and byte sizes."""
    return len(outputs) == len(signature.outputs) and all(
        spec.accepts(tensor.shape)
        and spec.byte_size(tensor.shape) == len(tensor.data)
        and (spec.batch_axis < 0 or tensor.shape[spec.batch_axis] == rows)
        for spec, tensor in zip(signature.outputs, outputs, strict=True)
    )


def _tensors(body: memoryview) -> Outputs:
    """Raises struct.error or ValueError where the sizes do not fit the bytes."""
    at, described = 1, []
    for _ in range(body[0]):
        rank = body[at] if at < len(body) else 0
        sizes = struct.unpack_from(f"<{rank + 1}Q", body, at + 1)
        described.append((sizes[:-1], sizes[-1]))
        at += 1 + 8 * (rank + 1)
    if at + sum(size for _, size in described) != len(body):
        raise ValueError("the tensors have too few or too many bytes")
    found = []
    for shape, size in described:
        found.append(Tensor(shape, body[at : at + size]))
        at += size
    return tuple(found)
