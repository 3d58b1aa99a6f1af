"""The servers that are compared: how each is started, asked, and checked."""

from __future__ import annotations

import http.client
import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.harness import models, venvs
from benchmarks.harness.process import PEERS, READY_TIMEOUT_S, BenchmarkError, free_port, running
from benchmarks.peers import formats

# What the proxy's own benchmarks ask for here.
from benchmarks.peers.formats import DISTINCT, SIGNATURES, bodies, v2_request
from benchmarks.peers.model import Model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import Popen

    from benchmarks.peers.formats import Format

__all__ = ["DISTINCT", "SIGNATURES", "Side", "bodies", "serving", "v2_request"]

CHECK_AT_ONCE = 16
LITSERVE_FORMS = {"base64": formats.base64_json, "raw": formats.raw}
# How it is asked, and what in peers/mlserver_model.py understands that.
MLSERVER_FORMS = {
    "V2 JSON": (formats.v2_json, "Tensors"),
    "V2 base64": (formats.v2_base64, "Bodies"),
}


@dataclass(frozen=True, eq=False)
class Side:
    """One server with its settings, and the requests that it is sent."""

    server: str
    settings: str
    kind: str
    format: Format = field(repr=False)
    command: Callable[[int], list[str | Path]] = field(repr=False)
    env: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return f"{self.server} {self.format.name} {self.settings}"

    @property
    def requests(self) -> list[bytes]:
        return self.format.requests


class Reply(NamedTuple):
    """A whole reply."""

    status: int
    headers: dict[str, str]
    body: bytes


# --- the servers -----------------------------------------------------------------------------------


def dlbench(kind: str, workers: int, batch: int) -> Side:
    """Our proxy, asked in V2 with binary tensors both ways."""
    settings = {"model": str(models.fetch(kind)), "name": kind, "device": "cpu"}
    config = {"workers": workers, "max_batch_size": batch}

    def command(port: int) -> list[str | Path]:
        full = json.dumps(settings | {"port": port})
        module = [sys.executable, "-m", "dlbench.proxy.main"]
        return [*module, "--settings", full, "--config", json.dumps(config)]

    return Side("dlbench", f"{workers} x {batch}", kind, formats.v2_binary(kind), command)


def mosec(kind: str, workers: int, batch: int, wait_ms: int = 1) -> Side:
    """mosec with raw bodies; it serves one batch size and one wait for all workers."""
    env = {**environment(kind, workers, batch, wait_ms), "MOSEC_LOG_LEVEL": "error"}

    def command(port: int) -> list[str | Path]:
        script = [venvs.python_of("mosec"), "mosec_server.py"]
        return [*script, "--address", "127.0.0.1", "--port", str(port)]

    chosen = f"{workers} x {batch}, {wait_ms} ms"
    return Side("mosec", chosen, kind, formats.raw(kind, "/inference"), command, env)


def fastapi(kind: str, processes: int) -> Side:
    """FastAPI under uvicorn with its fast loop and parser, raw bodies, no access log."""
    quiet = ["--log-level", "warning", "--no-access-log"]
    fast = ["--loop", "uvloop", "--http", "httptools"]

    def command(port: int) -> list[str | Path]:
        served = [venvs.python_of("fastapi"), "-m", "uvicorn", "fastapi_server:app"]
        return [*served, "--port", str(port), "--workers", str(processes), *fast, *quiet]

    made = formats.raw(kind, "/inference")
    return Side("FastAPI", f"{processes} processes", kind, made, command, environment(kind))


def litserve(form: str, kind: str, workers: int, batch: int, wait_ms: int = 1) -> Side:
    """LitServe on the CPU, in its examples' `base64` JSON or with `raw` bodies."""
    env = environment(kind, workers, batch, wait_ms) | {"FORM": form}

    def command(port: int) -> list[str | Path]:
        return [venvs.python_of("litserve"), "litserve_server.py", str(port)]

    chosen = f"{workers} x {batch}, {wait_ms} ms"
    return Side("LitServe", chosen, kind, LITSERVE_FORMS[form](kind, "/predict"), command, env)


def mlserver(form: str, kind: str, workers: int, batch: int, wait_ms: int = 5) -> Side:
    """MLServer, asked in `V2 JSON` or `V2 base64`; 0 workers: the model in the server's process."""
    made, runtime = MLSERVER_FORMS[form]
    settings = {
        "MODEL_IMPLEMENTATION": f"mlserver_model.{runtime}",
        "MODEL_NAME": kind,
        "MODEL_MAX_BATCH_SIZE": batch,
        "MODEL_MAX_BATCH_TIME": wait_ms / 1000,
        "PARALLEL_WORKERS": workers,
        "HOST": "127.0.0.1",
        "GRPC_PORT": 0,
        "DEBUG": "false",  # else every request is logged
        "METRICS_ENDPOINT": "",
        "GZIP_ENABLED": "false",
        "ENVIRONMENTS_DIR": tempfile.gettempdir(),
    }
    env = environment(kind) | {f"MLSERVER_{name}": str(value) for name, value in settings.items()}

    def command(port: int) -> list[str | Path]:
        program = venvs.python_of("mlserver").with_name("mlserver")
        return ["env", f"MLSERVER_HTTP_PORT={port}", program, "start", "."]

    chosen = f"{workers} x {batch}, {wait_ms} ms"
    return Side("MLServer", chosen, kind, made(kind), command, env)


def environment(kind: str, workers: int = 1, batch: int = 1, wait_ms: int = 0) -> dict[str, str]:
    """What the peers' small servers read."""
    chosen = {"WORKERS": str(workers), "BATCH": str(batch), "WAIT_MS": str(wait_ms)}
    return {**os.environ, "MODEL": str(models.fetch(kind)), "KIND": kind, **chosen}


# --- started, asked and checked --------------------------------------------------------------------


@contextmanager
def serving(side: Side) -> Iterator[int]:
    """The port of `side`, which answers rightly; ended with the block."""
    port = free_port()
    with running(side.command(port), cwd=PEERS, env=side.env or None) as process:
        wait_for_answer(process, port, side)
        check(side, port)
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


def check(side: Side, port: int) -> None:
    """Every answer, asked for in parallel so that batches form, equals onnxruntime's own."""
    with ThreadPoolExecutor(CHECK_AT_ONCE) as pool:
        replies = list(pool.map(lambda request: ask(port, request), side.format.requests))
    for reply, wanted in zip(replies, expected(side.kind), strict=True):
        if reply.status != 200:
            raise BenchmarkError(f"{side.name}: {reply.status} {reply.body[:200]!r}")
        got = side.format.understand(reply.headers, reply.body)
        if len(got) != len(wanted) or not close(got, wanted):
            raise BenchmarkError(f"{side.name} does not answer what onnxruntime answers")


@cache
def expected(kind: str) -> list[bytes]:
    """What onnxruntime answers, one request at a time."""
    model = Model(str(models.fetch(kind)), kind)
    return [model.run([body])[0] for body in bodies(kind)]


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
