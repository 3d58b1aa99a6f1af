"""Tensors as bytes, with room for digits: raw, and as JSON; and the HTTP request around a body."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from dlbench.loadgen.credentials import bearer_token
from dlbench.loadgen.protocols.digits import BINARY, JSON, Digit, Place, places_needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.target import Target

# More stamped elements than this never pay: base 2 reaches NEVER_REPEATS with 40.
PLACES_LIMIT = 64
JSON_TYPE = "application/json"
RAW_TYPE = "application/octet-stream"
Places = tuple[tuple[Digit, int], ...]


@dataclass(frozen=True)
class Body:
    """A request's body; `places` are the offsets of its tensors' first elements."""

    content: bytes
    places: Places = ()
    content_type: str = JSON_TYPE
    # V2's binary form: how long the JSON before the tensors is.
    json_length: int | None = None


def joined(*pieces: Body | bytes) -> Body:
    """One body of several, in this order."""
    content = bytearray()
    places: list[tuple[Digit, int]] = []
    for piece in pieces:
        if isinstance(piece, Body):
            places += [(digit, len(content) + at) for digit, at in piece.places]
            content += piece.content
        else:
            content += piece
    return Body(bytes(content), tuple(places))


def raw_tensor(array: NDArray[Any], datatype: str) -> Body:
    """Little-endian elements in C order; each BYTES element has its length (4 bytes) before it."""
    if datatype == "BYTES":
        items = [bytes(item) for item in array.ravel()]
        content = b"".join(len(item).to_bytes(4, "little") + item for item in items)
    else:
        content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    digit = BINARY[datatype]
    count = min(array.size, PLACES_LIMIT)
    return Body(content, tuple((digit, index * digit.width) for index in range(count)), RAW_TYPE)


def json_tensor(array: NDArray[Any], datatype: str, shape: Sequence[int]) -> Body:
    """Nested lists of this shape, which has as many elements as the array; () is a lone value."""
    if not array.size:
        return Body(orjson.dumps(np.empty(shape).tolist()))
    items = json_items(array, datatype)
    places, at = [], len(shape)
    for index, item in enumerate(items[:PLACES_LIMIT]):
        at += _brackets(index, shape) if index else 0
        places.append((JSON[datatype], at))
        at += len(item)
    for size in reversed(shape):
        lists = range(0, len(items), size)
        items = [b"[" + b",".join(items[start : start + size]) + b"]" for start in lists]
    return Body(items[0], tuple(places))


def _brackets(index: int, shape: Sequence[int]) -> int:
    """Bytes between an element and the one before it: a comma, and lists that end and begin."""
    ended, size = 0, 1
    for length in reversed(shape):
        size *= length
        if index % size:
            break
        ended += 1
    return 1 + 2 * ended


def json_items(array: NDArray[Any], datatype: str) -> list[bytes]:
    """One text per element, those that may carry a digit padded to its width."""
    flat = array.ravel()
    if datatype == "BYTES":
        values: list[Any] = [bytes(item).decode("utf-8", "replace") for item in flat]
    else:
        # A float16 as a Python float shows its exact value, of up to 22 digits; five tell it apart.
        values = (
            [float(str(value)) for value in flat] if flat.dtype == np.float16 else flat.tolist()
        )
    items = list(map(orjson.dumps, values))
    if flat.dtype.kind == "f":
        for index in np.flatnonzero(~np.isfinite(flat)):
            items[index] = json.dumps(values[index]).encode()  # NaN, Infinity: orjson says null
    width = JSON[datatype].width
    return [item.rjust(width) for item in items]


def headers(profile: LoadProfile, body: Body) -> dict[str, str]:
    """What goes with a body, in HTTP's terms. Raises TargetError for a token that is not there."""
    found = {"Content-Type": body.content_type}
    if body.json_length is not None:
        found["Inference-Header-Content-Length"] = str(body.json_length)
    if token := bearer_token(profile):
        found["Authorization"] = f"Bearer {token}"
    if not profile.keep_alive:
        found["Connection"] = "close"
    return found


def http_head(target: Target, profile: LoadProfile, body: Body) -> bytes:
    """Everything of an HTTP/1.1 request that comes before its body."""
    fields = {"Host": target.authority, **headers(profile, body)}
    lines = [f"POST {target.path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body.content)}", "", ""]).encode()


def template(head: bytes, body: Body, distinct: int) -> tuple[bytes, list[Place], int]:
    """A request with places for telling `distinct` inputs apart, and how many it really can."""
    used = body.places[: places_needed([digit.base for digit, _ in body.places], distinct)]
    capacity = math.prod(digit.base for digit, _ in used)
    return head + body.content, [Place(digit, len(head) + at) for digit, at in used], capacity
