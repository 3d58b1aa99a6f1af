"""Documents with arrays as JSON: small ones at once, large ones piece by piece while they are sent. Pure.

A float takes up to five times its bytes as text. Written in one go, a reply of 64 MB would hold up
everybody for a second and take half a gigabyte.
"""

from __future__ import annotations

from itertools import chain
from math import prod
from types import GeneratorType
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from dlbench.proxy.http.reply import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.http.reply import Body
    from dlbench.proxy.tensors import Tensor

# Bytes of tensors that are written in some five milliseconds.
AT_ONCE_BYTES = 256 * 1024
# Tensors of so many bytes, and halves of them as doubles, are looked through for NaN and infinity
# as a whole; only larger ones are written piece by piece.
CHECKED_BYTES = 8 * AT_ONCE_BYTES
# Values written in about a millisecond, and what so many take as text at most.
PIECE_VALUES = 16 * 1024
PIECE_BYTES = 256 * 1024


def weight(tensors: Sequence[Tensor]) -> int:
    """What writing these takes, in bytes; brackets around nothing count too."""
    return sum(
        len(tensor.data) if tensor.data else prod(filter(None, tensor.shape)) for tensor in tensors
    )


def body(make: Callable[[], object], weight: int) -> Body:
    """A reply's body: the document that `make` gives, written at once if it is light."""
    document = make()  # also to see it fail before the reply begins
    if weight <= AT_ONCE_BYTES:
        return [dumps(document)]
    return Stream(lambda: _joined(pieces(make())), weight)


def dumps(document: object) -> bytes:
    """JSON at once."""
    return orjson.dumps(document, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)


def widened(array: NDArray[Any]) -> NDArray[Any]:
    """Small floats as doubles, so that what is read back and rounded is the same number."""
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def pieces(value: Any) -> Iterator[bytes]:  # noqa: ANN401 - JSON
    """The JSON of a document, none of whose pieces takes long to make."""
    kind = type(value)
    if kind is np.ndarray:
        yield from _array(value)
    elif kind is dict:
        yield from _between(b"{", b"}", (_member(*item) for item in value.items()))
    elif kind is list or kind is GeneratorType:
        yield from _between(b"[", b"]", map(pieces, value))
    else:
        yield orjson.dumps(value)


def rows(columns: dict[str, NDArray[Any]], count: int) -> Iterator[dict[str, Any]]:
    """An object of values by name for each row of some arrays."""
    values = sum(_places(column) for column in columns.values()) // count
    step = max(1, PIECE_VALUES // max(1, values))
    for start in range(0, count, step):
        block = [column[start : start + step] for column in columns.values()]
        if step > 1:
            block = [np.ascontiguousarray(widened(column)) for column in block]
        for row in zip(*map(_each, block), strict=True):
            yield dict(zip(columns, row, strict=True))


def json_value(array: NDArray[Any]) -> Any:  # noqa: ANN401 - JSON
    """What orjson writes for an array: itself, a number without axes, ready text for NaN and infinity.

    `NaN`, `Infinity` and `-Infinity` are written so, as Python's json does. What is too large for one
    piece is left to `pieces`.
    """
    if array.dtype.kind == "f" and array.nbytes <= CHECKED_BYTES and not np.isfinite(array).all():
        return orjson.Fragment(_with_words(array))
    return array if array.ndim else array.item()


def _with_words(array: NDArray[Any]) -> bytes:
    """Where orjson writes null, the word for what it stands for."""
    first, *rest = orjson.dumps(array.tolist()).split(b"null")
    values = np.asarray(array).ravel()
    words = map(_word, values[~np.isfinite(values)])
    return first + b"".join(chain.from_iterable(zip(words, rest, strict=True)))


def _word(value: float) -> bytes:
    if value != value:
        return b"NaN"
    return b"Infinity" if value > 0 else b"-Infinity"


def _each(block: NDArray[Any]) -> Iterable[Any]:
    """What orjson writes for each row; that all of a block is finite is found out at once."""
    finite = block.ndim > 1 and json_value(block) is block
    return iter(block) if finite else map(json_value, block)


def _array(array: NDArray[Any]) -> Iterator[bytes]:
    if _places(array) <= PIECE_VALUES:
        yield dumps(json_value(widened(array)))
        return
    row_places = max(1, _places(array) // len(array))
    if row_places > PIECE_VALUES:
        yield from _between(b"[", b"]", map(_array, array))
        return
    step = PIECE_VALUES // row_places
    blocks = (array[start : start + step] for start in range(0, len(array), step))
    yield from _between(b"[", b"]", ([dumps(json_value(widened(block)))[1:-1]] for block in blocks))


def _member(name: str, value: Any) -> Iterator[bytes]:  # noqa: ANN401 - JSON
    yield orjson.dumps(name) + b":"
    yield from pieces(value)


def _between(first: bytes, last: bytes, parts: Any) -> Iterator[bytes]:  # noqa: ANN401 - of pieces
    lead = first
    for part in parts:
        yield lead
        yield from part
        lead = b","
    yield last if lead is not first else first + last


def _joined(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces that are worth a write each."""
    held: list[bytes] = []
    size = 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size >= PIECE_BYTES // 4:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _places(array: NDArray[Any]) -> int:
    return array.size or prod(filter(None, array.shape))


def _plain(value: Any) -> Any:  # noqa: ANN401 - what orjson does not take
    """Lists for generators, and for arrays whose values do not lie in a row."""
    return np.ascontiguousarray(value) if isinstance(value, np.ndarray) else list(value)
