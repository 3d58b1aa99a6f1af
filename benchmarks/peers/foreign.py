"""`dlbench load`, the command itself, against servers of other makers.

    .venv/bin/python -m benchmarks.peers.foreign [--quick] [--json FILE]

MLServer (V2), mosec and LitServe (plain JSON), TorchServe (its inference API; needs Java 17) and
nginx (a file as the answer; Debian's nginx-light) add up four numbers, or pretend to. Beside the
closed loop wrk, with as many connections and one request that never changes. A server that cannot
be started is named with its reason, and left out.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from benchmarks.harness import venvs
from benchmarks.harness.process import PEERS, READY_TIMEOUT_S, BenchmarkError, free_port, running
from benchmarks.harness.report import Report, console, note, spread, table
from benchmarks.peers import wrk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import Popen

# Its frontend is Java, its workers import torch whatever they run.
venvs.REQUIREMENTS["torchserve"] = (
    *("torchserve==0.12.0", "torch-model-archiver==0.12.0", "torch==2.13.0", "pyyaml==6.0.3"),
    *venvs.RUNTIME,
)
DLBENCH = (sys.executable, "-m", "dlbench.cli.main", "load")
TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0.1, 0.2, 0.3, 0.4]}
ROW = "[0.1,0.2,0.3,0.4]"
HEADERS = {"Content-Type": "application/json"}
USERS = 8
# 3: the measurement cannot be trusted, which is a result.
SAID = (0, 3)


@dataclass(frozen=True)
class Plan:
    """How long and how often; `--quick` only shows that everything works."""

    repeats: int = 3
    seconds: int = 5
    warm_s: int = 1


QUICK = Plan(repeats=1, seconds=1)


@dataclass(frozen=True)
class Foreign:
    """How a server is started, what our command is told of it, and what wrk sends."""

    command: Callable[[int, Path], list[str | Path]]
    path: str
    body: str
    options: tuple[str, ...]
    rate: int


# --- the servers -----------------------------------------------------------------------------------


def mlserver(port: int, folder: Path) -> list[str | Path]:
    """V2 REST, the model in the server's own process."""
    numbers = {"datatype": "FP32"}
    model = {
        "name": "sum",
        "implementation": "sum_mlserver.Sum",
        "inputs": [{"name": "x", "shape": [-1, 4], **numbers}],
        "outputs": [{"name": "y", "shape": [-1, 1], **numbers}],
    }
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port()}
    settings |= {"parallel_workers": 0, "debug": False, "metrics_endpoint": None}
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "settings.json").write_text(json.dumps(settings))
    return [venvs.python_of("mlserver").with_name("mlserver"), "start", folder]


def mosec(port: int, _: Path) -> list[str | Path]:
    address = ["--address", "127.0.0.1", "--port", str(port)]
    return [venvs.python_of("mosec"), PEERS / "sum_mosec.py", *address]


def litserve(port: int, _: Path) -> list[str | Path]:
    return [venvs.python_of("litserve"), PEERS / "sum_litserve.py", str(port)]


def torchserve(port: int, folder: Path) -> list[str | Path]:
    """One worker; the archive is made on the spot."""
    if not shutil.which("java"):
        raise BenchmarkError("TorchServe needs Java: apt install openjdk-17-jre-headless")
    program = venvs.python_of("torchserve").with_name("torchserve")
    named = ("--model-name", "sum", "--version", "1.0", "--export-path", folder)
    archiver = program.with_name("torch-model-archiver")
    handler = PEERS / "sum_torchserve.py"
    subprocess.run([archiver, *named, "--handler", handler], check=True, capture_output=True)
    local = {"inference": port, "management": free_port(), "metrics": free_port()}
    lines = [f"{name}_address=http://127.0.0.1:{at}" for name, at in local.items()]
    config = folder / "config.properties"
    config.write_text("\n".join([*lines, "default_workers_per_model=1", ""]))
    found = ("--models", "sum=sum.mar", "--model-store", folder, "--ts-config", config)
    return [program, "--foreground", "--disable-token-auth", *found]


def nginx(port: int, folder: Path) -> list[str | Path]:
    """A file of JSON for whoever posts: what a server costs that computes nothing."""
    if not shutil.which("nginx"):
        raise BenchmarkError("nginx is missing: apt install nginx-light")
    (folder / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr; user root;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {folder}; keepalive_requests 1000000000; server {{
  listen 127.0.0.1:{port};
  location / {{ default_type application/json; return 200 '{{"y": 1.0}}'; }}
}} }}""")
    return ["nginx", "-p", folder, "-c", folder / "nginx.conf"]


def plain(template: str) -> tuple[str, ...]:
    return ("--protocol", "plain", "--template", template, "--shape", "x=1,4")


SERVERS = {
    "MLServer": Foreign(
        mlserver, "/v2/models/sum/infer", json.dumps({"inputs": [TENSOR]}), (), rate=200
    ),
    "mosec": Foreign(mosec, "/inference", f'{{"x":[{ROW}]}}', plain('{"x": $x}'), rate=500),
    "LitServe": Foreign(
        litserve, "/predict", f'{{"input":[{ROW}]}}', plain('{"input": $x}'), rate=200
    ),
    "TorchServe": Foreign(
        torchserve,
        "/predictions/sum",
        f'{{"instances":[{ROW}]}}',
        ("--protocol", "torchserve", "--shape", "x=4"),
        rate=100,
    ),
    "nginx": Foreign(nginx, "/predict", f'{{"x":[{ROW}]}}', plain('{"x": $x}'), rate=1000),
}


@contextmanager
def serving(name: str) -> Iterator[int]:
    """The port of a fresh server that has answered a request."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="foreign-") as text:
        folder = Path(text)
        command = SERVERS[name].command(port, folder)
        # Their programs call each other by name, and read their model from here.
        here = {"PATH": f"{Path(command[0]).parent}:{os.environ['PATH']}", "PYTHONPATH": str(PEERS)}
        with running(command, cwd=folder, env={**os.environ, **here}) as process:
            wait_for_answer(process, port, SERVERS[name])
            yield port


def wait_for_answer(process: Popen[str], port: int, server: Foreign) -> None:
    deadline = monotonic() + READY_TIMEOUT_S
    while monotonic() < deadline:
        if process.poll() is not None:
            raise BenchmarkError(f"it ended with {process.returncode}")
        if status_of(port, server) == 200:
            return
        sleep(0.1)
    raise BenchmarkError(f"it was not ready within {READY_TIMEOUT_S:.0f} s")


def status_of(port: int, server: Foreign) -> int:
    """What a request like wrk's is answered with; 0: not at all."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", server.path, server.body, HEADERS)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


# --- the clients -----------------------------------------------------------------------------------


def dlbench(name: str, port: int, plan: Plan, *load: str) -> dict[str, Any]:
    """The JSON of `dlbench load`."""
    server = SERVERS[name]
    times = ("--duration", f"{plan.seconds}s", "--warmup", f"{plan.warm_s}s")
    command = [*DLBENCH, f"http://127.0.0.1:{port}{server.path}", *server.options, *load, *times]
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode not in SAID:
        raise BenchmarkError(f"dlbench load ended with {done.returncode}: {done.stderr[-1000:]}")
    return json.loads(done.stdout)


def wrk_beside(name: str, port: int, plan: Plan) -> dict[str, Any]:
    """As many connections as our closed loop has users."""
    server = SERVERS[name]
    request = wrk.request_bytes(server.path, server.body.encode(), HEADERS)
    found = wrk.run(port, [request], USERS, plan.seconds)
    figures = {"throughput_rps": found.rate, "p50_ms": found.p50_ms, "p99_ms": found.p99_ms}
    return {**figures, "error_rate": 0.0, "verdict": ""}


def main() -> None:
    report = Report(__doc__ or "")
    plan = QUICK if report.quick else Plan()
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name in SERVERS:
        try:
            found[name] = measured(name, plan)
            note(f"{name} done")
        except (BenchmarkError, subprocess.CalledProcessError) as error:
            note(f"{name} is left out: {error}")
    show(found)
    report.keep({"plan": plan, "found": found})


def measured(name: str, plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """Open loop, closed loop and wrk in turns, on one server."""
    open_loop = f"dlbench, open, {SERVERS[name].rate}/s"
    closed = f"dlbench, {USERS} users"
    runs: dict[str, list[dict[str, Any]]] = {open_loop: [], closed: [], f"wrk, {USERS}": []}
    with serving(name) as port:
        for _ in range(plan.repeats):
            runs[open_loop].append(dlbench(name, port, plan, "--rate", str(SERVERS[name].rate)))
            runs[closed].append(dlbench(name, port, plan, "--users", str(USERS)))
            runs[f"wrk, {USERS}"].append(wrk_beside(name, port, plan))
    return runs


def show(found: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    made = table(
        "Servers of other makers, driven by `dlbench load`",
        *("server", "load", "requests/s", "p50 ms", "p99 ms", "errors", "verdicts"),
    )
    for name, loads in found.items():
        for load, runs in loads.items():
            made.add_row(
                *(name, load, spread([run["throughput_rps"] for run in runs], ",.0f")),
                *(spread([run[key] for run in runs]) for key in ("p50_ms", "p99_ms")),
                f"{max(run['error_rate'] for run in runs):.2%}",
                " ".join(sorted({run["verdict"] for run in runs})),
            )
    console.print(made)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmark: {error}")
