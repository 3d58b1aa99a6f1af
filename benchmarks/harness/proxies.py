"""Our proxy as a benchmark watches it: with its control line and its processes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from benchmarks.harness.process import READY_TIMEOUT_S, BenchmarkError, running
from benchmarks.peers import wrk
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np

    from dlbench.loadgen.control.generator import Generator, Run

MODULE = ("-m", "dlbench.proxy.main")
DATATYPES = {"float32": "FP32", "int32": "INT32"}


class Cpu(NamedTuple):
    """Processor seconds of one process."""

    user_s: float
    system_s: float


@contextmanager
def beside(work: Callable[[], None], over: threading.Event) -> Iterator[None]:
    """Runs `work` in a thread meanwhile; it has to end soon after `over` is set."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Watched:
    """A running proxy, and what can be asked of it."""

    def __init__(self, control: socket.socket) -> None:
        control.settimeout(READY_TIMEOUT_S)
        self._control, self._lines = control, control.makefile("r", encoding="utf-8")
        self._lock = threading.Lock()
        first = self._read()
        if first.get("event") != "ready":
            raise BenchmarkError(f"the proxy did not start: {first}")
        self.url: str = first["url"]
        self.name: str = first["name"]
        self.port = int(self.url.rpartition(":")[2])
        self.front: int = first["pids"]["front"]

    @property
    def path(self) -> str:
        """Where requests go."""
        return f"/v2/models/{self.name}/infer"

    @property
    def workers(self) -> list[int]:
        """Processes of the live workers."""
        return self.counters()["pids"]["workers"]

    def counters(self) -> dict[str, Any]:
        """Sums since the start."""
        return self._ask({"op": "counters"})

    def configure(self, **knobs: Any) -> None:
        """Change knobs in place; the cache is empty afterwards."""
        self._ask({"op": "configure", "knobs": knobs})

    def cpu(self) -> Cpu:
        """What the front's process has used."""
        times = psutil.Process(self.front).cpu_times()
        return Cpu(times.user, times.system)

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._control.sendall(json.dumps(command).encode() + b"\n")
            answer = self._read()
        if "error" in answer:
            raise BenchmarkError(f"{command}: {answer['error']}")
        return answer

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise BenchmarkError("the proxy hung up")
        return json.loads(line)


@contextmanager
def proxy(
    model: Path, *, program: Sequence[str | Path] = MODULE, **config: Any
) -> Iterator[Watched]:
    """A fresh proxy for `model`, ended with the block; `program` takes the same options."""
    ours, theirs = socket.socketpair()
    settings = {"model": str(model), "port": 0, "device": "cpu"}
    command = [sys.executable, *program, "--settings", json.dumps(settings)]
    command += ["--config", json.dumps(config), "--control-fd", "0"]
    with ours, theirs, running(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL):
        theirs.close()
        yield Watched(ours)


def offer(generator: Generator, front: Watched, rate: float, seconds: float, **load: Any) -> Run:
    """`rate` requests a second for so long, open loop, every input new unless `load` says otherwise."""
    profile = LoadProfile(rate=rate, duration_s=seconds, **load)
    return generator.measure(discover(front.url, profile), profile)


def refused(errors: dict[str, int]) -> int:
    """How many of the errors are the proxy's word that it has too much to do."""
    return errors.get("status_503", 0)


def requests_for(path: str, inputs: Sequence[dict[str, np.ndarray]]) -> list[bytes]:
    """V2 requests with binary tensors both ways, one for each set of inputs."""
    return [request_for(path, tensors) for tensors in inputs]


def request_for(path: str, tensors: dict[str, np.ndarray]) -> bytes:
    described = [
        {
            "name": name,
            "shape": value.shape,
            "datatype": DATATYPES[value.dtype.name],
            "parameters": {"binary_data_size": value.nbytes},
        }
        for name, value in tensors.items()
    ]
    document = {"inputs": described, "parameters": {"binary_data_output": True}}
    header = json.dumps(document).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(header)),
    }
    body = b"".join(value.tobytes() for value in tensors.values())
    return wrk.request_bytes(path, header + body, headers)
