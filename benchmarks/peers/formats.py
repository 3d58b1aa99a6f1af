"""How the same tensors are written and read: raw, V2 with binary tensors, V2 JSON, base64 in JSON."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.peers import wrk
from benchmarks.peers.model import SIGNATURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DISTINCT = 64
DATATYPES = {"magika": ("INT32", "<i4"), "silero_vad_half": ("FP32", "<f4")}
RAW_TYPE = {"Content-Type": "application/octet-stream"}
JSON_TYPE = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Format:
    """One server's way: its requests, and the raw outputs in a reply's headers and body."""

    name: str
    requests: list[bytes]
    understand: Callable[[dict[str, str], bytes], bytes]


def bodies(kind: str) -> list[bytes]:
    """Distinct seeded inputs, as raw tensors one after the other."""
    random = np.random.default_rng(0)
    if kind == "magika":
        tokens = [random.integers(0, 257, 2048, dtype=np.int32) for _ in range(DISTINCT)]
        return [row.tobytes() for row in tokens]
    sizes = sum(int(np.prod(shape)) for _, shape, _ in SIGNATURES[kind])
    rows = [random.standard_normal(sizes, dtype=np.float32) for _ in range(DISTINCT)]
    return [row.tobytes() for row in rows]


def raw(kind: str, path: str) -> Format:
    """Nothing but the tensors' bytes, both ways."""
    requests = [wrk.request_bytes(path, body, RAW_TYPE) for body in bodies(kind)]
    return Format("raw", requests, lambda _headers, body: body)


def base64_json(kind: str, path: str) -> Format:
    """The bytes as base64 in a JSON object, both ways."""
    documents = [{"body": b64encode(body).decode()} for body in bodies(kind)]
    return Format(
        "base64", posts(path, documents), lambda _, body: b64decode(json.loads(body)["body"])
    )


def v2_binary(kind: str) -> Format:
    """V2 with the binary tensor extension both ways."""
    requests = [v2_request(kind, infer(kind), body) for body in bodies(kind)]
    return Format("V2 binary", requests, v2_outputs)


def v2_json(kind: str) -> Format:
    """V2 as plain JSON: numbers in lists, the batch axis first in every tensor."""
    documents = [{"inputs": list(numbers(kind, body))} for body in bodies(kind)]
    return Format("V2 JSON", posts(infer(kind), documents), v2_numbers)


def v2_base64(kind: str) -> Format:
    """V2 as JSON with one BYTES tensor each way, the raw bytes in base64."""
    tensor = {"name": "body", "shape": [1, 1], "datatype": "BYTES"}
    texts = [b64encode(body).decode() for body in bodies(kind)]
    documents = [{"inputs": [tensor | {"data": [text]}]} for text in texts]
    return Format("V2 base64", posts(infer(kind), documents), v2_text)


def infer(kind: str) -> str:
    return f"/v2/models/{kind}/infer"


def posts(path: str, documents: list[dict[str, Any]]) -> list[bytes]:
    """Requests of equal length, as wrk needs them: blanks after JSON mean nothing."""
    texts = [json.dumps(document, separators=(",", ":")).encode() for document in documents]
    longest = max(map(len, texts))
    return [wrk.request_bytes(path, text.ljust(longest), JSON_TYPE) for text in texts]


def numbers(kind: str, body: bytes) -> Iterator[dict[str, Any]]:
    """The V2 tensors of `body`, each number with no more digits than it needs."""
    (datatype, dtype), offset = DATATYPES[kind], 0
    for name, shape, _ in SIGNATURES[kind]:
        values = np.frombuffer(body, dtype, int(np.prod(shape)), offset)
        offset += values.nbytes
        data = [json.loads(str(value)) for value in values]
        yield {"name": name, "shape": [1, values.size], "datatype": datatype, "data": data}


def v2_request(kind: str, path: str, body: bytes) -> bytes:
    """The tensors of `body` after the V2 header that names them."""
    inputs = [
        {
            "name": name,
            "shape": shape,
            "datatype": DATATYPES[kind][0],
            "parameters": {"binary_data_size": 4 * int(np.prod(shape))},
        }
        for name, shape, _ in SIGNATURES[kind]
    ]
    parameters = {"binary_data_output": True}
    header = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    length = {"Inference-Header-Content-Length": str(len(header))}
    return wrk.request_bytes(path, header + body, RAW_TYPE | length)


def v2_outputs(headers: dict[str, str], body: bytes) -> bytes:
    """The raw outputs of a V2 reply, in the model's order."""
    return body[int(headers["inference-header-content-length"]) :]


def v2_numbers(_headers: dict[str, str], body: bytes) -> bytes:
    outputs = json.loads(body)["outputs"]
    return b"".join(np.array(output["data"], "<f4").tobytes() for output in outputs)


def v2_text(_headers: dict[str, str], body: bytes) -> bytes:
    return b64decode(json.loads(body)["outputs"][0]["data"][0])
