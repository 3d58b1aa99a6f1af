"""Processes of a benchmark: started, known to be ready, measured, and ended by their id."""

from __future__ import annotations

import http.client
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Scripts that run with what the peers import, each in an environment of its own.
PEERS = Path(__file__).parents[1] / "peers"
READY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
CHILD_TIMEOUT_S = 0.5


class BenchmarkError(Exception):
    """A side of the comparison could not be run; the message says which and why."""


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    **pipes: int,
) -> Iterator[subprocess.Popen[str]]:
    """Run `command` for the length of the block; it and its children are ended by their ids."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env=env,
            text=True,
            **{"stdin": subprocess.DEVNULL, "stdout": log, **pipes},
            stderr=log,
        )
        try:
            yield process
        except BenchmarkError as error:
            log.seek(0)
            raise BenchmarkError(f"{error}\n{log.read()[-2000:]}") from error
        finally:
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Ask the parent, then the children that it left behind, and insist in the end."""
    try:
        parent = psutil.Process(process.pid)
        family = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_TIMEOUT_S)
    for insist in (psutil.Process.terminate, psutil.Process.kill):
        _, family = psutil.wait_procs(family, timeout=CHILD_TIMEOUT_S)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                insist(member)
    psutil.wait_procs(family, timeout=END_TIMEOUT_S)
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
    process.wait(END_TIMEOUT_S)


def wait_until_ready(process: subprocess.Popen[str], port: int, path: str) -> None:
    """Return when `path` answers 200."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchmarkError(f"{process.args} ended with {process.returncode}")
        if status_of(port, path) == 200:
            return
        time.sleep(0.05)
    raise BenchmarkError(f"{process.args} was not ready within {READY_TIMEOUT_S:.0f} s")


def status_of(port: int, path: str) -> int:
    """The status that GET `path` answers with, or 0 when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and the children that it still has."""
    parent = psutil.Process(pid)
    times = [member.cpu_times() for member in (parent, *parent.children(recursive=True))]
    return sum(time.user + time.system for time in times)
