"""As much of protobuf's wire format as one message needs: fields written, fields read. Pure.

https://protobuf.dev/programming-guides/encoding. The real library is an optional extra, slower here
than bytes put together once, and it cannot say where in a message a tensor's bytes lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
WIDTHS = {FIXED64: 8, FIXED32: 4}
LONGEST_VARINT = 10


def varint(number: int) -> bytes:
    """An unsigned number, or a negative int64 as its two's complement."""
    number &= 2**64 - 1
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def number_field(field: int, number: int) -> bytes:
    """An int64, uint64 or bool."""
    return varint(field << 3 | VARINT) + varint(number)


def bytes_field(field: int, content: bytes) -> bytes:
    """A string, bytes, a message or packed numbers."""
    return head_of(field, len(content)) + content


def head_of(field: int, length: int) -> bytes:
    """What comes before `length` bytes of a field."""
    return varint(field << 3 | LENGTH) + varint(length)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(number, where the next byte is). Raises ValueError when it is cut off or too long."""
    number = 0
    for place in range(LONGEST_VARINT):
        if at + place >= len(data):
            break
        byte = data[at + place]
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number & (2**64 - 1), at + place + 1
    raise ValueError("a number is cut off")


def signed(number: int) -> int:
    """The int64 that these 64 bits are."""
    return number - 2**64 if number >> 63 else number


def fields(data: bytes) -> Iterator[tuple[int, int | bytes, int]]:
    """(field, number or content, where the value begins) of each field. Raises ValueError."""
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        start = at
        if key & 7 == VARINT:
            number, at = read_varint(data, at)
            yield key >> 3, number, start
            continue
        if key & 7 == LENGTH:
            size, start = read_varint(data, at)
        elif key & 7 in WIDTHS:
            size = WIDTHS[key & 7]
        else:
            raise ValueError(f"unknown wire type {key & 7}")
        at = start + size
        if at > len(data):
            raise ValueError("a field is cut off")
        yield key >> 3, data[start:at], start


def numbers(value: int | bytes) -> list[int]:
    """The varints of a repeated field, packed or alone."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = read_varint(value, at)
        found.append(number)
    return found
