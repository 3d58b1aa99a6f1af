"""The servers that are compared: how each is started, asked, and understood."""

from __future__ import annotations

import http.client
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, NamedTuple

import models
import numpy as np
import venvs
import wrk
from peers.model import SIGNATURES, Model
from process import READY_TIMEOUT_S, BenchmarkError, free_port, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import Popen

PEERS = Path(__file__).parent / "peers"
DISTINCT = 64
CHECK_AT_ONCE = 16


@dataclass(frozen=True)
class Side:
    """One server with its settings, and the requests that it is sent."""

    server: str
    settings: str
    kind: str
    requests: list[bytes] = field(repr=False)
    command: Callable[[int], list[str | Path]] = field(repr=False)
    understand: Callable[[dict[str, str], bytes], bytes] = field(repr=False)
    env: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return f"{self.server} {self.settings}"


class Reply(NamedTuple):
    """A whole reply."""

    status: int
    headers: dict[str, str]
    body: bytes


def dlbench(kind: str, workers: int, batch: int) -> Side:
    """Our proxy, asked in V2 with binary tensors both ways."""
    settings = {"model": str(models.fetch(kind)), "name": kind, "device": "cpu"}
    config = {"workers": workers, "max_batch_size": batch}

    def command(port: int) -> list[str | Path]:
        full = json.dumps(settings | {"port": port})
        module = [sys.executable, "-m", "dlbench.proxy.main"]
        return [*module, "--settings", full, "--config", json.dumps(config)]

    path = f"/v2/models/{kind}/infer"
    requests = [v2_request(kind, path, body) for body in bodies(kind)]
    return Side("dlbench", f"{workers} x {batch}", kind, requests, command, v2_outputs)


def mosec(kind: str, workers: int, batch: int, wait_ms: int) -> Side:
    """mosec with raw bodies; it serves one batch size and one wait for all workers."""
    settings = {"WORKERS": str(workers), "BATCH": str(batch), "WAIT_MS": str(wait_ms)}
    python = venvs.python_of("mosec")

    def command(port: int) -> list[str | Path]:
        return [python, "mosec_server.py", "--address", "127.0.0.1", "--port", str(port)]

    chosen = f"{workers} x {batch}, {wait_ms} ms"
    env = environment(kind) | settings | {"MOSEC_LOG_LEVEL": "error"}
    return Side("mosec", chosen, kind, raw_requests(kind), command, as_it_is, env)


def fastapi(kind: str, processes: int) -> Side:
    """FastAPI under uvicorn with its fast loop and parser, raw bodies, no access log."""
    python = venvs.python_of("fastapi")
    quiet = ["--log-level", "warning", "--no-access-log"]
    fast = ["--loop", "uvloop", "--http", "httptools"]

    def command(port: int) -> list[str | Path]:
        served = [python, "-m", "uvicorn", "fastapi_server:app", "--port", str(port)]
        return [*served, "--workers", str(processes), *fast, *quiet]

    env = environment(kind)
    return Side(
        "FastAPI", f"{processes} processes", kind, raw_requests(kind), command, as_it_is, env
    )


def environment(kind: str) -> dict[str, str]:
    return {**os.environ, "MODEL": str(models.fetch(kind)), "KIND": kind}


@contextmanager
def serving(side: Side) -> Iterator[int]:
    """The port of `side`, which answers rightly; ended with the block."""
    port = free_port()
    with running(side.command(port), cwd=PEERS, env=side.env or None) as process:
        wait_for_answer(process, port, side)
        yield port


def wait_for_answer(process: Popen[str], port: int, side: Side) -> None:
    """Ready is who answers a real request; before that, servers refuse or say 503."""
    deadline = monotonic() + READY_TIMEOUT_S
    while monotonic() < deadline:
        if process.poll() is not None:
            raise BenchmarkError(f"{side.name} ended with {process.returncode}")
        try:
            if ask(port, side.requests[0]).status == 200:
                return
        except OSError:
            pass
        sleep(0.1)
    raise BenchmarkError(f"{side.name} was not ready within {READY_TIMEOUT_S:.0f} s")


def check(side: Side) -> None:
    """Every answer, asked for in parallel so that batches form, equals onnxruntime's own."""
    model = Model(str(models.fetch(side.kind)), side.kind)
    expected = [model.run([body])[0] for body in bodies(side.kind)]
    with serving(side) as port, ThreadPoolExecutor(CHECK_AT_ONCE) as pool:
        replies = list(pool.map(lambda request: ask(port, request), side.requests))
    for reply, wanted in zip(replies, expected, strict=True):
        if reply.status != 200:
            raise BenchmarkError(f"{side.name}: {reply.status} {reply.body[:200]!r}")
        got = side.understand(reply.headers, reply.body)
        if len(got) != len(wanted) or not close(got, wanted):
            raise BenchmarkError(f"{side.name} does not answer what onnxruntime answers")


def close(got: bytes, wanted: bytes) -> bool:
    """Equal but for what another batch size does to the last bits."""
    left, right = np.frombuffer(got, "<f4"), np.frombuffer(wanted, "<f4")
    return bool(np.allclose(left, right, rtol=1e-4, atol=1e-5))


def ask(port: int, request: bytes) -> Reply:
    """Send one ready-made request."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = dict(line.split(": ", 1) for line in lines)
        connection.request("POST", first.split(" ")[1], body, headers)
        reply = connection.getresponse()
        names = {name.lower(): value for name, value in reply.getheaders()}
        return Reply(reply.status, names, reply.read())
    finally:
        connection.close()


def bodies(kind: str) -> list[bytes]:
    """Distinct seeded inputs, as raw tensors one after the other."""
    random = np.random.default_rng(0)
    if kind == "magika":
        tokens = [random.integers(0, 257, 2048, dtype=np.int32) for _ in range(DISTINCT)]
        return [row.tobytes() for row in tokens]
    sizes = sum(int(np.prod(shape)) for _, shape, _ in SIGNATURES[kind])
    rows = [random.standard_normal(sizes, dtype=np.float32) for _ in range(DISTINCT)]
    return [row.tobytes() for row in rows]


def raw_requests(kind: str) -> list[bytes]:
    headers = {"Content-Type": "application/octet-stream"}
    return [wrk.request_bytes("/inference", body, headers) for body in bodies(kind)]


def v2_request(kind: str, path: str, body: bytes) -> bytes:
    """The same tensors with the V2 header that names them."""
    datatype = "INT32" if kind == "magika" else "FP32"
    inputs = [
        {
            "name": name,
            "shape": shape,
            "datatype": datatype,
            "parameters": {"binary_data_size": 4 * int(np.prod(shape))},
        }
        for name, shape, _ in SIGNATURES[kind]
    ]
    parameters = {"binary_data_output": True}
    header = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(header)),
    }
    return wrk.request_bytes(path, header + body, headers)


def v2_outputs(headers: dict[str, str], body: bytes) -> bytes:
    """The raw outputs of a V2 reply, in the model's order."""
    length = int(headers["inference-header-content-length"])
    return body[length:]


def as_it_is(_headers: dict[str, str], body: bytes) -> bytes:
    return body
