"""Numbers written into the first elements of an input, so that no two inputs are equal.

A template with a counter stamped into it costs a microsecond and no memory, where a new random
input of 100 KB costs a millisecond. Each datatype has digits of its own: values that are valid,
small, of fixed width in bytes, and different from each other after rounding to that datatype.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Where every input must be new: enough for a year at 30,000/s.
NEVER_REPEATS = 2**40


@dataclass(frozen=True)
class Digit:
    """How one element shows a number below `base`, in `width` bytes."""

    base: int
    width: int
    render: Callable[[int], bytes]


def _packed(code: str, base: int, zero: int = 0) -> Digit:
    layout = struct.Struct("<" + code)
    return Digit(base, layout.size, lambda digit: layout.pack(zero | digit))


def _text(pattern: bytes, base: int) -> Digit:
    return Digit(base, len(pattern % 0), lambda digit: pattern % digit)


# Floats in [0.5, 1): a fixed exponent with the digit as mantissa (IEEE 754).
BINARY: dict[str, Digit] = {
    "BOOL": _packed("B", 2),
    "UINT8": _packed("B", 256),
    "INT8": _packed("b", 10),
    "UINT16": _packed("H", 10),
    "INT16": _packed("h", 10),
    "UINT32": _packed("I", 10),
    "INT32": _packed("i", 10),
    "UINT64": _packed("Q", 10),
    "INT64": _packed("q", 10),
    "FP16": _packed("H", 2**10, 0x3800),
    "FP32": _packed("I", 2**23, 0x3F000000),
    "FP64": _packed("Q", 2**52, 0x3FE0000000000000),
    "BYTES": Digit(10**8, 12, lambda digit: b"\x08\0\0\0%08d" % digit),
}

# JSON allows blanks around a number and no leading zeros. 0.001 is the finest step that FP16 tells
# apart below 1, and 0.000001 is one for FP32.
JSON: dict[str, Digit] = {
    "BOOL": Digit(2, 5, lambda digit: b" true" if digit else b"false"),
    "UINT8": _text(b"%3d", 256),
    **dict.fromkeys(
        ("INT8", "UINT16", "INT16", "UINT32", "INT32", "UINT64", "INT64"), _text(b"%1d", 10)
    ),
    "FP16": _text(b"0.%03d", 10**3),
    "FP32": _text(b"0.%06d", 10**6),
    "FP64": _text(b"0.%06d", 10**6),
    "BYTES": _text(b'"%08d"', 10**8),
}


class Place:
    """A digit's place in a template."""

    __slots__ = ("base", "end", "quotient", "render", "start")

    def __init__(self, digit: Digit, start: int) -> None:
        self.base, self.render = digit.base, digit.render
        self.start, self.end = start, start + digit.width
        self.quotient = -1


def places_needed(bases: Sequence[int], numbers: int) -> int:
    """How many of these digits it takes to tell `numbers` apart; all of them if that is too few."""
    capacity = 1
    for used, base in enumerate(bases):
        if capacity >= numbers:
            return used
        capacity *= base
    return len(bases)


class Stamped:
    """A template that shows a number; `show` costs little when numbers follow each other."""

    def __init__(self, template: bytes, places: Sequence[Place]) -> None:
        self._buffer = bytearray(template)
        self._places = tuple(places)

    def show(self, number: int) -> bytearray:
        """The template with this number in it; valid until the next call."""
        buffer = self._buffer
        for place in self._places:
            higher, digit = divmod(number, place.base)
            buffer[place.start : place.end] = place.render(digit)
            if higher == place.quotient:
                break  # all the higher digits stand as they are
            place.quotient = number = higher
        return buffer
