"""Complete HTTP/1.1 requests of the V2 inference protocol, as bytes, with room for digits.

(KServe "Open Inference Protocol", and its binary tensor data extension: the JSON, then the raw
little-endian tensors in the JSON's order, `Inference-Header-Content-Length` giving its length.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from dlbench.loadgen.digits import BINARY, JSON, Digit, Place, places_needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dlbench.loadgen.inputs import Row
    from dlbench.loadgen.tensors import TensorSpec

# More stamped elements than this never pay: base 2 reaches NEVER_REPEATS with 40.
PLACES_LIMIT = 64


@dataclass(frozen=True)
class Body:
    """A request's body; `places` lie at the first elements of its tensors."""

    content: bytes
    json_length: int | None
    places: tuple[tuple[Digit, int], ...]


def _raw(array: NDArray[Any], datatype: str) -> bytes:
    if datatype == "BYTES":
        items = [bytes(item) for item in array.ravel()]
        return b"".join(len(item).to_bytes(4, "little") + item for item in items)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def binary_body(specs: Sequence[TensorSpec], row: Row) -> Body:
    """Tensors as raw bytes; asks for the outputs in the same form."""
    raws = [_raw(row[spec.name], spec.datatype) for spec in specs]
    tensors = [
        {
            "name": spec.name,
            "shape": list(row[spec.name].shape),
            "datatype": spec.datatype,
            "parameters": {"binary_data_size": len(raw)},
        }
        for spec, raw in zip(specs, raws, strict=True)
    ]
    head = orjson.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}})
    places: list[tuple[Digit, int]] = []
    start = len(head)
    for spec, raw in zip(specs, raws, strict=True):
        digit = BINARY[spec.datatype]
        count = min(row[spec.name].size, PLACES_LIMIT)
        places += [(digit, start + index * digit.width) for index in range(count)]
        start += len(raw)
    return Body(head + b"".join(raws), len(head), tuple(places))


def json_body(specs: Sequence[TensorSpec], row: Row) -> Body:
    """Tensors as flat JSON lists."""
    content = b'{"inputs":['
    places: list[tuple[Digit, int]] = []
    for number, spec in enumerate(specs):
        array = row[spec.name]
        head = {"name": spec.name, "shape": list(array.shape), "datatype": spec.datatype}
        content += (b"," if number else b"") + orjson.dumps(head)[:-1] + b',"data":['
        items = _json_items(array, spec.datatype)
        for item in items[:PLACES_LIMIT]:
            places.append((JSON[spec.datatype], len(content)))
            content += item + b","
        content = (content + b",".join(items[PLACES_LIMIT:])).rstrip(b",") + b"]}"
    return Body(content + b"]}", None, tuple(places))


def _json_items(array: NDArray[Any], datatype: str) -> list[bytes]:
    """One text per element, those that may carry a digit padded to its width."""
    flat = array.ravel()
    if datatype == "BYTES":
        values: list[Any] = [bytes(item).decode("utf-8", "replace") for item in flat]
    else:
        # A float16 as a Python float shows its exact value; six digits are what a reader needs.
        values = flat.tolist() if flat.dtype != np.float16 else np.round(flat, 3).tolist()
    width = JSON[datatype].width
    return [orjson.dumps(value).rjust(width) for value in values]


def request(host: str, path: str, body: Body) -> bytes:
    """The request as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}"]
    if body.json_length is None:
        lines.append("Content-Type: application/json")
    else:
        lines.append("Content-Type: application/octet-stream")
        lines.append(f"Inference-Header-Content-Length: {body.json_length}")
    lines.append(f"Content-Length: {len(body.content)}")
    return "\r\n".join([*lines, "", ""]).encode() + body.content


ENCODINGS = {True: binary_body, False: json_body}


def template(host: str, path: str, body: Body, distinct: int) -> tuple[bytes, list[Place], int]:
    """A request with places for telling `distinct` inputs apart, and how many it really can."""
    used = places_needed([digit.base for digit, _ in body.places], distinct)
    content = request(host, path, body)
    shift = len(content) - len(body.content)
    capacity = 1
    for digit, _ in body.places[:used]:
        capacity *= digit.base
    return content, [Place(digit, shift + at) for digit, at in body.places[:used]], capacity
