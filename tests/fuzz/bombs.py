"""Requests that are little work to send and much to serve: `python tests/fuzz/bombs.py --seconds 60`.

Every bomb is of one kind: shapes, texts, nesting, numbers, keys, packed bytes, or an honest large
body. `Watch` asks for /v2/health/live all the time, on a connection of its own, and looks at the
memory of the front's process.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n"
# What a client that sends no more may hear before its answer.
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"
PATIENCE_S = 120
PAGE = 4096
# What the proxy of a run unpacks at most, what it may hold, and what buffers and allocators take.
UNPACKED, BOUND, SLACK = 16 << 20, 64 << 20, 32 << 20
V2, TF, TORCH, PLAIN = (
    "/v2/models/echo/infer",
    "/v1/models/echo:predict",
    "/predictions/echo",
    "/predict",
)


class Bomb(NamedTuple):
    """A request; `make` gives its body of some size, `headers` are lines."""

    title: str
    path: str
    make: Callable[[int], bytes]
    headers: bytes = b""

    def request(self, size: int) -> tuple[bytes, bytes]:
        """Head and body."""
        body = self.make(size)
        head = f"POST {self.path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + self.headers + b"\r\n", body


def echo_model(folder: Path) -> Path:
    """y = x for rows of any length."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "T"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "echo", [x], [y])
    path = folder / "echo.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def described(shape: list[int], **more: object) -> dict[str, object]:
    return {"name": "x", "datatype": "FP32", "shape": shape, **more}


def values(text: bytes) -> Callable[[int], bytes]:
    """A V2 request of one row with this number again and again."""

    def make(size: int) -> bytes:
        count = size // (len(text) + 1)
        head = json.dumps({"inputs": [described([1, count], data=[])]}).encode()
        return head.replace(b"[]", b"[" + (text + b",") * (count - 1) + text + b"]")

    return make


def repeated(first: bytes, piece: bytes, last: bytes) -> Callable[[int], bytes]:
    """The piece as often as it fits, between the others."""
    return lambda size: first + piece * ((size - len(first) - len(last)) // len(piece)) + last


def binary(size: int, **more: object) -> bytes:
    """A V2 request of raw zeros."""
    count = size // 4
    given = described([1, count], parameters={"binary_data_size": 4 * count})
    head = json.dumps({"inputs": [given], **more}).encode().ljust(400)
    return head + bytes(4 * count)


def empty(shape: list[int]) -> bytes:
    return json.dumps({"inputs": [described(shape, data=[])]}).encode()


DATA = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": ['
BINARY = b"Inference-Header-Content-Length: 400\r\n"
PACKED = b"Content-Encoding: gzip\r\n"
BOMBS = [
    Bomb("rows without elements", V2, lambda _: empty([2**31 - 1, 0])),
    Bomb("a million rows without elements", V2, lambda _: empty([1_000_000, 0])),
    Bomb("elements beside an empty axis", V2, lambda _: empty([0, 2**31 - 1])),
    Bomb(
        "a text among many",
        V2,
        lambda size: DATA + b'"' + b"a" * (size // 2) + b'"' + b',""' * (size // 6) + b"]}]}",
    ),
    Bomb("texts", V2, repeated(DATA + b"1", b',"a"', b"]}]}")),
    Bomb("lists", V2, repeated(DATA + b"1", b",[]", b"]}]}")),
    Bomb("lists of a number", V2, repeated(DATA + b"1", b",[1]", b"]}]}")),
    Bomb("objects", V2, repeated(DATA + b"1", b",{}", b"]}]}")),
    Bomb("nesting", V2, lambda size: DATA + b"[" * (size // 2) + b"]" * (size // 2) + b"]}]}"),
    Bomb("a number of many digits", V2, repeated(DATA + b"1", b"1", b"]}]}")),
    Bomb("an id", V2, repeated(b'{"id": "', b"a", b'"}')),
    Bomb("a name", V2, repeated(b'{"inputs": [{"name": "', b"a", b'"}]}')),
    Bomb("inputs", V2, repeated(b'{"inputs": [{}', b",{}", b"]}")),
    Bomb("outputs", V2, repeated(b'{"outputs": [{}', b',{"name":"y"}', b"]}")),
    Bomb("keys", V2, lambda size: b"{%b}" % b",".join(b'"%x":0' % i for i in range(size // 11))),
    Bomb("blanks", V2, repeated(b"{", b" ", b"}")),
    Bomb("numbers of a digit", V2, values(b"0")),
    Bomb("short numbers", V2, values(b"1.5")),
    Bomb("long numbers", V2, values(b"0.12345678901")),
    Bomb("rows of TensorFlow", TF, repeated(b'{"instances": [[1.5]', b",[1.5]", b"]}")),
    Bomb(
        "named rows of TensorFlow", TF, repeated(b'{"instances": [{"x":[1]}', b',{"x":[1]}', b"]}")
    ),
    Bomb("rows of TorchServe", TORCH, repeated(b"[[1.5,2]", b",[1.5,2]", b"]")),
    Bomb("a plain row", PLAIN, repeated(b'{"input": [1.5', b",1.5", b"]}")),
    Bomb(
        "packed lists",
        V2,
        lambda size: gzip.compress(repeated(DATA + b"1", b",[]", b"]}]}")(size), 1),
        PACKED,
    ),
    Bomb("packed nothing", V2, lambda size: gzip.compress(bytes(16 * size), 1), PACKED),
    Bomb("binary, and text back", V2, binary, BINARY),
    Bomb(
        "binary both ways",
        V2,
        lambda size: binary(size, parameters={"binary_data_output": True}),
        BINARY,
    ),
]


class Seen(NamedTuple):
    """What became of a bomb: its status, the longest wait for health, and by what the front grew.

    `busy_s` is the most that the front's loop computed while health waited: on a machine that others
    use as well, the rest of the wait was for them.
    """

    status: int
    sent: int
    received: int
    took_s: float
    wait_s: float
    busy_s: float
    growth: int


class Watch:
    """Asks for health on a connection of its own until the block ends; the longest wait."""

    def __init__(self, port: int, pid: int) -> None:
        self._port, self._memory = port, Path(f"/proc/{pid}/statm")
        self._loop = Path(f"/proc/{pid}/task/{pid}/schedstat")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._main_loop)
        self.waits: list[float] = []
        self.busy: list[float] = []
        self.peak = self.first = 0

    def __enter__(self) -> Watch:
        self.first = self.rss()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def rss(self) -> int:
        return int(self._memory.read_text().split()[1]) * PAGE

    def _computed_s(self) -> float:
        return int(self._loop.read_text().split()[0]) / 1e9

    def _main_loop(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), PATIENCE_S) as connection:
            while not self._over.is_set():
                began, computed = time.perf_counter(), self._computed_s()
                connection.sendall(LIVE)
                answer = connection.recv(65536)
                self.waits.append(time.perf_counter() - began)
                self.busy.append(self._computed_s() - computed)
                assert answer.startswith(b"HTTP/1.1 200"), answer
                self.peak = max(self.peak, self.rss())
                time.sleep(0.001)


def explode(bomb: Bomb, size: int, port: int, pid: int) -> Seen:
    """Send a bomb and read its answer to the end."""
    head, body = bomb.request(size)
    with Watch(port, pid) as watch:
        time.sleep(0.05)
        began = time.perf_counter()
        status, received = exchange(port, head, body)
        took = time.perf_counter() - began
        time.sleep(0.05)
    return Seen(
        status,
        len(body),
        received,
        took,
        max(watch.waits),
        max(watch.busy),
        watch.peak - watch.first,
    )


def exchange(port: int, head: bytes, body: bytes) -> tuple[int, int]:
    """The reply's status and how many bytes it had."""
    received = 0
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
        try:
            connection.sendall(head)
            connection.sendall(body)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is refused before it is there
        first, room = b"", bytearray(1 << 20)
        while count := connection.recv_into(room):
            first = first or bytes(room[:count]).removeprefix(INTERIM)
            received += count
    return int(first.split()[1]), received


def unfinished(port: int, pid: int, count: int, size: int) -> tuple[int, int]:
    """So many bodies that never end: how many were refused, and the most that the front grew by."""
    head = f"POST {V2} HTTP/1.1\r\nHost: h\r\nContent-Length: {size + 1}\r\n\r\n".encode()
    body, connections, refused = bytes(size), [], 0
    with Watch(port, pid) as watch:
        try:
            for _ in range(count):
                connections.append(socket.create_connection(("127.0.0.1", port), PATIENCE_S))
                with suppress(OSError):  # it has said no already
                    connections[-1].sendall(head + body)
            for connection in connections:
                connection.setblocking(False)
                with suppress(OSError):
                    refused += connection.recv(65536).startswith(b"HTTP/1.1 503 ")
        finally:
            for connection in connections:
                connection.close()
    return refused, watch.peak - watch.first


@contextmanager
def running(model: Path, **settings: object) -> Iterator[tuple[int, int]]:
    """A proxy of its own for the model: its port and the process of its front."""
    ours, theirs = socket.socketpair()
    own = {"model": str(model), "port": 0, "device": "cpu", "allowed_hosts": ["h"]}
    options = {**own, **settings}
    command = [sys.executable, "-m", "dlbench.proxy.main", "--settings", json.dumps(options)]
    command += ["--config", json.dumps({"workers": 1}), "--control-fd", "0"]
    process = subprocess.Popen(command, stdin=theirs.fileno())
    theirs.close()
    try:
        with ours, ours.makefile() as lines:
            first = json.loads(lines.readline())
            yield int(first["url"].rpartition(":")[2]), first["pids"]["front"]
    finally:
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()
    if process.returncode:
        raise SystemExit(f"the proxy ended with {process.returncode}")


def check(bomb: Bomb, found: Seen) -> None:
    """Raise AssertionError if the front was hurt: it answers by design, and holds a few bodies."""
    assert found.status in (200, 400, 413, 503), (bomb.title, found)
    large = max(found.sent, UNPACKED if bomb.headers == PACKED else 0)
    assert found.growth <= 4 * large + SLACK, (bomb.title, found)


def main() -> None:
    """Bombs of any size until the time is up, then unfinished bodies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=10**9)
    parser.add_argument("--largest-mb", type=float, default=8)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance, ends, sent = random.Random(options.seed), time.monotonic() + options.seconds, 0
    with tempfile.TemporaryDirectory() as folder:
        model = echo_model(Path(folder))
        with running(model, max_body_mb=UNPACKED >> 20, max_memory_mb=BOUND >> 20) as (port, pid):
            while time.monotonic() < ends and sent < options.rounds:
                for bomb in chance.sample(BOMBS, len(BOMBS)):
                    size = int(options.largest_mb * 1e6 * 10 ** -chance.uniform(0, 3))
                    check(bomb, explode(bomb, size, port, pid))
                    if time.monotonic() > ends:
                        break
                sent += 1
            refused, growth = unfinished(port, pid, 20, 8_000_000)
            assert refused > 0, "twenty unfinished bodies were all taken"
            assert growth <= BOUND + SLACK, (refused, growth)
    print(f"{sent} rounds of {len(BOMBS)} bombs with seed {options.seed}: nothing found")


if __name__ == "__main__":
    main()
