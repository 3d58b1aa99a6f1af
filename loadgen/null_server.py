"""A V2 server that answers at once and computes nothing: what can the client do on this machine?

`python -m dlbench.loadgen.null_server` prints one JSON line with its port and ends when its
standard input does. `--stall-s` freezes the whole server, as a garbage collection or a lock would.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import time
from functools import partial
from typing import cast

import uvloop

MODEL = "null"
# It stands in for any model: requests made for another server run here as they are.
ANY_MODEL = re.compile(r"^/v2/models/[^/]+(/versions/[^/]+)?")
HEAD_END = b"\r\n\r\n"
# A stalled server must keep the connections that knock meanwhile; refused SYNs are retried after 1 s.
BACKLOG = 4096
HEADS_LIMIT = 1024


def reply(body: bytes, status: str = "200 OK", extra: str = "") -> bytes:
    """A complete HTTP/1.1 reply with a JSON body."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{extra}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def infer_reply() -> bytes:
    """One float, as JSON: what a request gets back whatever it asked."""
    output = {"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [0.5]}
    return reply(json.dumps({"model_name": MODEL, "outputs": [output]}).encode())


def routes(inputs: list[dict[str, object]]) -> dict[tuple[str, str], bytes]:
    """Every answer there is, by method and path."""
    output = {"name": "y", "datatype": "FP32", "shape": [-1, 1]}
    metadata = {
        "name": MODEL,
        "versions": ["1"],
        "platform": "null",
        "inputs": inputs,
        "outputs": [output],
    }
    server = {"name": "null", "version": "1", "extensions": ["binary_tensor_data"]}
    index = [{"name": MODEL, "version": "1", "state": "READY", "reason": ""}]
    return {
        ("GET", "/v2"): reply(json.dumps(server).encode()),
        ("GET", "/v2/health/live"): reply(b"{}"),
        ("GET", "/v2/health/ready"): reply(b"{}"),
        ("POST", "/v2/repository/index"): reply(json.dumps(index).encode()),
        ("GET", f"/v2/models/{MODEL}"): reply(json.dumps(metadata).encode()),
        ("GET", f"/v2/models/{MODEL}/ready"): reply(b"{}"),
        ("POST", f"/v2/models/{MODEL}/infer"): infer_reply(),
    }


NOT_FOUND = reply(b'{"error": "the null server has no such page"}', status="404 Not Found")


class Answers:
    """Header block -> (length of the request's body, reply), remembered once read."""

    def __init__(self, inputs: list[dict[str, object]]) -> None:
        self._routes = routes(inputs)
        self._known: dict[bytes, tuple[int, bytes]] = {}

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
        known = ANY_MODEL.sub(f"/v2/models/{MODEL}", path)
        return int(headers.get("content-length", 0)), self._routes.get((method, known), NOT_FOUND)


class NullProtocol(asyncio.Protocol):
    """One connection: framing only, as little work per request as Python can do."""

    def __init__(self, answers: Answers, delay_s: float) -> None:
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
            self._pending = data = data[end:]
            self._write(answer)

    def _later(self, answer: bytes) -> None:
        asyncio.get_running_loop().call_later(self._delay_s, self._transport.write, answer)


def _stall(every_s: float, for_s: float) -> None:
    time.sleep(for_s)
    asyncio.get_running_loop().call_later(every_s - for_s, _stall, every_s, for_s)


async def serve(options: argparse.Namespace) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    answers = Answers(json.loads(options.inputs))
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
    parser.add_argument(
        "--inputs",
        default='[{"name": "x", "datatype": "FP32", "shape": [-1, 16]}]',
        help="the model's inputs, as V2 metadata",
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Run the null server."""
    uvloop.run(serve(options()))


if __name__ == "__main__":
    main()
