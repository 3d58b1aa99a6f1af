"""The neutral client: Debian's `wrk`, one thread, sending ready-made requests in turn."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.process import BenchmarkError

SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Run:
    """What one run of wrk saw."""

    connections: int
    requests: int
    duration_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_s: float

    @property
    def rate(self) -> float:
        return self.requests / self.duration_s

    @property
    def rate_per_core(self) -> float:
        return self.requests / self.cpu_s


def request_bytes(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A complete HTTP/1.1 POST."""
    lines = {"Host": "127.0.0.1", **headers, "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def run(port: int, requests: list[bytes], connections: int, duration_s: float) -> Run:
    """Closed loop over `connections` for `duration_s`; any error at all is fatal."""
    if not shutil.which("wrk"):
        raise BenchmarkError("wrk is missing: apt install wrk")
    if len({len(request) for request in requests}) != 1:
        raise BenchmarkError("requests must be equally long")
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(requests))
        file.flush()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        text = call(port, connections, duration_s, file.name, len(requests[0]))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(text.splitlines()[-1])
    if found.pop("status_errors") + found.pop("socket_errors"):
        raise BenchmarkError(f"wrk met errors:\n{text}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(connections, **found, cpu_s=cpu_s)


def call(port: int, connections: int, duration_s: float, file: str, size: int) -> str:
    """The output of wrk; durations are whole seconds, as wrk wants them."""
    seconds = max(1, round(duration_s))
    url = f"http://127.0.0.1:{port}/"
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(SCRIPT)]
    return subprocess.run(
        ["wrk", *options, url, "--", file, str(size)],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    ).stdout


def version() -> str:
    """As wrk names itself."""
    text = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    return text.split("[")[0].replace("wrk", "").strip()
