"""A server that answers at once and computes nothing: what can the client do on this machine?

It speaks V2 with JSON and binary tensors, and answers the POSTs of TF Serving, TorchServe and plain
JSON servers; every reply has the shape that `--outputs` promises. No gRPC, no TLS.

`python -m dlbench.loadgen.null_server` prints one JSON line with its port and ends when its
standard input does. `--stall-s` freezes the whole server, as a garbage collection or a lock would.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import time
from functools import partial
from typing import Any, cast

import uvloop

Tensor = dict[str, Any]  # as V2 metadata has it: name, datatype, shape

MODEL = "null"
# It stands in for any model: requests made for another server run here as they are.
ANY_MODEL = re.compile(r"^/v2/models/[^/]+(/versions/[^/]+)?")
TF_SERVING = re.compile(r"^/v1/models/.+:predict$")
HEAD_END = b"\r\n\r\n"
# Whether a request wants its outputs in binary is said in its JSON. Most say nothing of binary at
# all, and finding that out costs less than matching the expression.
BINARY = b'"binary_data'
ASKS_BINARY = re.compile(rb'"binary_data(_output)?"\s*:\s*true')
# A stalled server must keep the connections that knock meanwhile; refused SYNs are retried after 1 s.
BACKLOG = 4096
HEADS_LIMIT = 1024
INPUTS: list[Tensor] = [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}]
OUTPUTS: list[Tensor] = [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}]
# One element of each datatype, in JSON and in binary (of BYTES: the length of an empty string).
ZEROS: dict[str, tuple[Any, bytes]] = {
    "BOOL": (False, b"\0"),
    "BYTES": ("", bytes(4)),
    "BF16": (0.0, bytes(2)),
    **{f"FP{bits}": (0.0, bytes(bits // 8)) for bits in (16, 32, 64)},
    **{f"{sign}INT{bits}": (0, bytes(bits // 8)) for bits in (8, 16, 32, 64) for sign in ("", "U")},
}


def reply(body: bytes, status: str = "200 OK", extra: str = "") -> bytes:
    """A complete HTTP/1.1 reply; of JSON, unless `extra` headers say otherwise."""
    kind = "" if "Content-Type" in extra else "Content-Type: application/json\r\n"
    head = f"HTTP/1.1 {status}\r\n{kind}{extra}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def json_reply(document: Any, status: str = "200 OK") -> bytes:  # noqa: ANN401 - any JSON
    """A complete reply with a JSON document."""
    return reply(json.dumps(document).encode(), status)


NOT_FOUND = json_reply({"error": "the null server has no such page"}, "404 Not Found")


def one_row(output: Tensor) -> Tensor:
    """The output as the reply to one row has it: every dimension known."""
    return {**output, "shape": [1 if size < 0 else size for size in output["shape"]]}


def infer_reply(outputs: list[Tensor]) -> bytes:
    """Zeros in V2's JSON."""
    tensors = [
        {**output, "data": [ZEROS[output["datatype"]][0]] * math.prod(output["shape"])}
        for output in map(one_row, outputs)
    ]
    return json_reply({"model_name": MODEL, "model_version": "1", "outputs": tensors})


def binary_reply(outputs: list[Tensor]) -> bytes:
    """Zeros in V2's binary tensor extension: the JSON, then the tensors in its order."""
    rows = list(map(one_row, outputs))
    raws = [ZEROS[row["datatype"]][1] * math.prod(row["shape"]) for row in rows]
    tensors = [
        {**row, "parameters": {"binary_data_size": len(raw)}}
        for row, raw in zip(rows, raws, strict=True)
    ]
    document = {"model_name": MODEL, "model_version": "1", "outputs": tensors}
    head = json.dumps(document).encode()
    kind = f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {len(head)}"
    return reply(head + b"".join(raws), extra=f"{kind}\r\n")


def values(outputs: list[Tensor], *, with_batch: bool) -> Any:  # noqa: ANN401 - any JSON
    """Zeros as TF Serving has them: nested lists, alone or by name if there are several outputs."""
    found = {}
    for output in outputs:
        batched = output["shape"][:1] == [-1]
        shape = one_row(output)["shape"][int(batched and not with_batch) :]
        found[output["name"]] = _nested(shape, ZEROS[output["datatype"]][0])
    return found if len(found) != 1 else next(iter(found.values()))


def _nested(shape: list[int], value: Any) -> Any:  # noqa: ANN401 - any JSON
    return [_nested(shape[1:], value)] * shape[0] if shape else value


def routes(inputs: list[Tensor], outputs: list[Tensor]) -> dict[tuple[str, str], bytes]:
    """V2's answers, by method and path."""
    metadata = {
        "name": MODEL,
        "versions": ["1"],
        "platform": "null",
        "inputs": inputs,
        "outputs": outputs,
    }
    server = {"name": "null", "version": "1", "extensions": ["binary_tensor_data"]}
    index = [{"name": MODEL, "version": "1", "state": "READY", "reason": ""}]
    return {
        ("GET", "/v2"): json_reply(server),
        ("GET", "/v2/health/live"): json_reply({}),
        ("GET", "/v2/health/ready"): json_reply({}),
        ("POST", "/v2/repository/index"): json_reply(index),
        ("GET", f"/v2/models/{MODEL}"): json_reply(metadata),
        ("GET", f"/v2/models/{MODEL}/ready"): json_reply({}),
        ("POST", f"/v2/models/{MODEL}/infer"): infer_reply(outputs),
    }


class CannedReplies:
    """Header block -> (length of the request's body, reply), remembered once read.

    `binary` is the reply to those who ask for binary outputs, which only the body tells.
    """

    def __init__(self, inputs: list[Tensor], outputs: list[Tensor] = OUTPUTS) -> None:
        self._routes = routes(inputs, outputs)
        row, tensors = (values(outputs, with_batch=whole) for whole in (False, True))
        # Both of its formats in one reply: each reader looks for its own key.
        self._tf_serving = json_reply({"predictions": [row], "outputs": tensors})
        self._other = json_reply(row)
        self._known: dict[bytes, tuple[int, bytes]] = {}
        self.binary = binary_reply(outputs)

    def to(self, head: bytes) -> tuple[int, bytes]:
        if head not in self._known:
            if len(self._known) >= HEADS_LIMIT:
                self._known.clear()
            self._known[head] = self._read(head)
        return self._known[head]

    def _read(self, head: bytes) -> tuple[int, bytes]:
        request, *lines = head.decode("latin-1").split("\r\n")
        method, path, *_ = [*request.split(" "), "", ""]
        headers = {
            name.strip().lower(): value for name, _, value in (n.partition(":") for n in lines)
        }
        return int(headers.get("content-length", 0)), self._page(method, path)

    def _page(self, method: str, path: str) -> bytes:
        if method == "POST" and not path.startswith("/v2"):
            return self._tf_serving if TF_SERVING.match(path) else self._other
        return self._routes.get((method, ANY_MODEL.sub(f"/v2/models/{MODEL}", path)), NOT_FOUND)


class NullProtocol(asyncio.Protocol):
    """One connection: framing only, as little work per request as Python can do."""

    def __init__(self, answers: CannedReplies, delay_s: float) -> None:
        self._answers = answers
        self._delay_s = delay_s
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self._write = self._later if self._delay_s else self._transport.write

    def data_received(self, data: bytes) -> None:
        self._pending = data = self._pending + data if self._pending else data
        while (cut := data.find(HEAD_END)) >= 0:
            length, answer = self._answers.to(data[:cut])
            end = cut + 4 + length
            if len(data) < end:
                break
            if data.find(BINARY, cut, end) >= 0 and ASKS_BINARY.search(data, cut, end):
                answer = self._answers.binary
            self._pending = data = data[end:]
            self._write(answer)

    def _later(self, answer: bytes) -> None:
        asyncio.get_running_loop().call_later(self._delay_s, self._answer, answer)

    def _answer(self, answer: bytes) -> None:
        if not self._transport.is_closing():  # the client may have given up meanwhile
            self._transport.write(answer)


def _stall(every_s: float, for_s: float) -> None:
    time.sleep(for_s)
    asyncio.get_running_loop().call_later(every_s - for_s, _stall, every_s, for_s)


async def serve(options: argparse.Namespace) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    answers = CannedReplies(json.loads(options.inputs), json.loads(options.outputs))
    server = await loop.create_server(
        partial(NullProtocol, answers, options.delay_ms / 1000),
        "127.0.0.1",
        options.port,
        backlog=BACKLOG,
    )
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"port": port, "url": f"http://127.0.0.1:{port}"}), flush=True)
    if options.stall_s:
        loop.call_later(
            options.stall_every_s - options.stall_s, _stall, options.stall_every_s, options.stall_s
        )
    ended = asyncio.Event()

    def on_input() -> None:
        if not os.read(0, 4096):
            ended.set()

    loop.add_reader(0, on_input)
    await ended.wait()


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="dlbench.loadgen.null_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--stall-every-s", type=float, default=10.0)
    parser.add_argument("--stall-s", type=float, default=0.0)
    for name, tensors in (("inputs", INPUTS), ("outputs", OUTPUTS)):
        text = f"the model's {name}, as V2 metadata"
        parser.add_argument(f"--{name}", default=json.dumps(tensors), help=text)
    return parser.parse_args(arguments)


def main() -> None:
    """Run the null server."""
    uvloop.run(serve(options()))


if __name__ == "__main__":
    main()
