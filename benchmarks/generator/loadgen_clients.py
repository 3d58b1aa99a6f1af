"""The clients that load the null server, and what each reports of one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from benchmarks.harness.process import PEERS, BenchmarkError, running
from benchmarks.peers import wrk
from dlbench.loadgen.control.generator import Generator
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover

if TYPE_CHECKING:
    from dlbench.loadgen.target import Target

INFER = "/v2/models/null/infer"
# What our generator makes of the null server's metadata: x, FP32, [1, 16], binary both ways.
TENSOR = bytes(64)
HEADER = json.dumps(
    {
        "inputs": [
            {
                "name": "x",
                "shape": [1, 16],
                "datatype": "FP32",
                "parameters": {"binary_data_size": len(TENSOR)},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
).encode()
HEADERS = {
    "Content-Type": "application/octet-stream",
    "Inference-Header-Content-Length": str(len(HEADER)),
}


@dataclass(frozen=True)
class Run:
    """What one client reported of one run."""

    requests: int
    duration_s: float
    cpu_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float | None = None
    lateness_p99_ms: float | None = None
    verdict: str = ""

    @property
    def rate(self) -> float:
        return self.requests / self.duration_s

    @property
    def per_core(self) -> float:
        return self.requests / self.cpu_s


def dlbench(port: int, users: int, warm_s: float, seconds: float) -> Run:
    """Closed loop of our generator; every input is new, which the others do not do."""
    return ours(port, LoadProfile(users=users, warmup_s=warm_s, duration_s=seconds))


def ours(port: int, profile: LoadProfile) -> Run:
    return measured(discover(f"http://127.0.0.1:{port}", profile), profile)


def measured(target: Target, profile: LoadProfile) -> Run:
    """One run of our generator; a reply that is not right is an error."""
    with Generator() as generator:
        found = generator.measure(target, profile).measurement
    if found.error_rate:
        raise BenchmarkError(f"dlbench met errors: {found.errors}")
    return Run(
        requests=round(found.throughput_rps * found.duration_s),
        duration_s=found.duration_s,
        cpu_s=found.client_cpu * found.duration_s,
        p50_ms=found.p50_ms,
        p99_ms=found.p99_ms,
        lateness_p99_ms=found.lateness_p99_ms,
        verdict=found.verdict,
    )


def locust(
    where: int | str, users: int, warm_s: float, seconds: float, rate: float | None = None
) -> Run:
    """Stock Locust's FastHttpUser; `where`: a port, or a whole origin."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(HEADER + TENSOR)
        body.flush()
        settings = [where, INFER, body.name, json.dumps(HEADERS), users, warm_s, seconds]
        return peer("locust_user.py", *settings, *([rate] if rate else []))


def peer(script: str, *settings: object) -> Run:
    """A script of `peers/` that prints a Run as JSON, in a process of its own."""
    text = subprocess.run(
        [sys.executable, PEERS / script, *map(str, settings)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    found = json.loads(text.splitlines()[-1])
    if found.pop("errors"):
        raise BenchmarkError(f"{script} met errors")
    return Run(**found)


def wrk_client(port: int, users: int, _warm_s: float, seconds: float) -> Run:
    """wrk with one thread and one request that never changes; its start-up counts, and is 1 ms."""
    request = wrk.request_bytes(INFER, HEADER + TENSOR, HEADERS)
    found = asdict(wrk.run(port, [request], users, seconds))
    del found["connections"]
    return Run(**found)


# (port, users, warm-up, seconds) -> Run
Client = Callable[[int, int, float, float], Run]
CLIENTS: dict[str, Client] = {"dlbench": dlbench, "FastHttpUser": locust, "wrk": wrk_client}


@contextmanager
def serving(*command: object, core: int | None = None) -> Iterator[int]:
    """The port that a server of Python's prints, on a core of its own if one is named."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running([sys.executable, *map(str, command)], **pipes) as process:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        yield json.loads(process.stdout.readline())["port"]


def null_server(*arguments: str, core: int | None = None):
    return serving("-m", "dlbench.loadgen.null_server", *arguments, core=core)


def span(values: list[float], form: str) -> str:
    return f"{min(values):{form}}-{max(values):{form}}"
