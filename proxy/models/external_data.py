"""Which other files an .onnx file keeps tensors in: its protobuf walked without loading it.

Weights inside of the file are stepped over, so a file of gigabytes costs no more than its graph.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

# Of each message the fields that may hold tensors: onnx.proto, whose field numbers never change.
FIELDS: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        10: "Tensor",
        6: "Graph",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
# Of a tensor, and of the entries of its external data.
EXTERNAL_DATA, DATA_LOCATION, EXTERNAL = 13, 14, 1
KEY, VALUE = 1, 2
# How long a value is, by its wire type.
VARINT, BYTES = 0, 2
FIXED: Final = {1: 8, 5: 4}


def locations(path: Path) -> list[str]:
    """The files that tensors are in, relative to the model's folder, sorted.

    None for what is no protobuf: onnxruntime has its own format, and words for all others.

    Raises:
        OSError: the file cannot be read.
    """
    found: set[str] = set()
    with path.open("rb") as stream:
        messages = [("Model", 0, os.fstat(stream.fileno()).st_size)]
        try:
            while messages:
                kind, start, end = messages.pop()
                if kind == "Tensor":
                    found |= _location(stream, start, end)
                    continue
                inside = FIELDS[kind]
                for field, first, last, _ in _fields(stream, start, end):
                    if field in inside:
                        messages.append((inside[field], first, last))
        except ValueError:
            return []
    return sorted(found)


def _fields(stream: IO[bytes], start: int, end: int) -> list[tuple[int, int, int, int]]:
    """Number, first byte, end and, if it is an integer, value of a message's fields."""
    found = []
    stream.seek(start)
    while start < end:
        tag, start = _varint(stream, start)
        value, kind = 0, tag & 7
        if kind == VARINT:
            value, start = _varint(stream, start)
            last = start
        elif kind == BYTES:
            size, start = _varint(stream, start)
            last = start + size
        else:
            last = start + _fixed(kind)
        if last > end:
            raise ValueError("a field is longer than its message")
        found.append((tag >> 3, start, last, value))
        start = last
        stream.seek(start)
    return found


def _fixed(kind: int) -> int:
    if kind not in FIXED:
        raise ValueError(f"no wire type: {kind}")
    return FIXED[kind]


def _varint(stream: IO[bytes], at: int) -> tuple[int, int]:
    """An integer, and where the next value begins."""
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        at += 1
        if byte[0] < 0x80:
            return value, at
    raise ValueError("an integer does not end")


def _location(stream: IO[bytes], start: int, end: int) -> set[str]:
    """Where a tensor's data are, if not in the tensor."""
    fields = _fields(stream, start, end)
    if not any(field == DATA_LOCATION and value == EXTERNAL for field, _, _, value in fields):
        return set()
    entries = [_entry(stream, a, b) for field, a, b, _ in fields if field == EXTERNAL_DATA]
    return {entry[VALUE] for entry in entries if entry.get(KEY) == "location" and VALUE in entry}


def _entry(stream: IO[bytes], start: int, end: int) -> dict[int, str]:
    found = {}
    for field, first, last, _ in _fields(stream, start, end):
        stream.seek(first)
        found[field] = os.fsdecode(stream.read(last - first))
    return found
