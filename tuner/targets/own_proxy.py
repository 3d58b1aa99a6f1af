"""A proxy as a child process: started, reconfigured and watched over a private Unix socket.

The socket is also the leash: when this process dies, however it dies, the proxy reads its end and
stops with all its workers.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

import psutil

from dlbench.proxy.knob import KNOBS
from dlbench.tuner.errors import ServerFailed
from dlbench.tuner.point import Resources
from dlbench.tuner.targets.gpu_watch import GpuWatch, gpus_of
from dlbench.tuner.targets.littles_law import NS, Held
from dlbench.tuner.targets.pin import on_cores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.knob import Knob
    from dlbench.proxy.settings import ServerSettings
    from dlbench.tuner.targets.server_under_test import ServerUnderTest

START_TIMEOUT_S = 120.0
REPLY_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0
LOG_TAIL_LINES = 20


class OwnProxy:
    """One proxy at a time, with whatever configuration was applied last."""

    knobs: Mapping[str, Knob] = KNOBS

    def __init__(
        self, settings: ServerSettings, log_path: Path, cores: Sequence[int] | None = None
    ) -> None:
        """`cores` are those that the proxy and its workers run on; None: any."""
        self._settings = settings.model_copy(update={"port": 0, "host": "127.0.0.1"})
        self._log_path = log_path
        self._cores = cores
        self._child: _Child | None = None
        self._config: ServingConfig | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, config: ServingConfig) -> dict[str, Any]:
        """Serve with `config` in new processes, and say what the proxy said when ready.

        Raises:
            ServerFailed: the proxy did not come up, with the tail of its log.
        """
        self.stop()
        with on_cores(self._cores):
            self._child = _Child(self._settings, config, self._log_path)
        self._config = config
        return self._child.ready

    def apply(self, config: ServingConfig) -> dict[str, Any]:
        """Serve with `config`, in place if its knobs allow, and say what the proxy said when ready.

        The result cache is empty afterwards.

        Raises:
            ServerFailed: the proxy did not come up, with the tail of its log.
        """
        if self._child is None or self._needs_restart(config):
            return self.start(config)
        in_place = {n: v for n, v in config.model_dump().items() if not self.knobs[n].restart}
        self._child.ask({"op": "configure", "knobs": in_place})
        self._config = config
        return self._child.ready

    def counters(self) -> dict[str, Any]:
        """The proxy's cumulative counters.

        Raises:
            ServerFailed: it no longer answers.
        """
        assert self._child is not None, "apply() comes first"
        return self._child.ask({"op": "counters"})

    def gpu_watch(self) -> GpuWatch:
        """For the GPUs that it uses, if any."""
        assert self._child is not None, "apply() comes first"
        return GpuWatch(gpus_of(self._child.ready["device"]), self._settings.device_ids)

    def failure(self, reason: str) -> ServerFailed:
        """The error that says why this configuration will not do, with what the proxy wrote."""
        return ServerFailed(reason, _tail(self._log_path))

    def stop(self) -> None:
        """End the proxy and its workers; safe to call twice."""
        child, self._child, self._config = self._child, None, None
        if child is not None:
            child.stop()

    def _needs_restart(self, config: ServingConfig) -> bool:
        old = self._config
        return old is None or any(
            knob.restart and getattr(old, name) != getattr(config, name)
            for name, knob in self.knobs.items()
        )


class _Child:
    """The process itself and the control socket to it."""

    def __init__(self, settings: ServerSettings, config: ServingConfig, log_path: Path) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._lines = ours.makefile("r", encoding="utf-8")
        self._log_path = log_path
        with theirs, log_path.open("w") as log:
            self._process = _spawn(settings, config, theirs.fileno(), log)
        self.ready = self._startup()

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send one command and return its reply."""
        try:
            self._socket.sendall(json.dumps(command).encode() + b"\n")
        except OSError as error:
            raise self._failure("the proxy died") from error
        reply = self._read(REPLY_TIMEOUT_S)
        if "error" in reply:
            raise self._failure(str(reply["error"]))
        return reply

    def stop(self) -> None:
        """Close the leash and wait; a proxy that does not obey is killed."""
        self._lines.close()
        self._socket.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _startup(self) -> dict[str, Any]:
        """Wait for the proxy's own word that it is ready."""
        try:
            first = self._read(START_TIMEOUT_S)
            if first.get("event") != "ready":
                self.stop()  # only then is its log complete
                raise self._failure(str(first.get("error", "the proxy did not start")))
        except BaseException:
            self.stop()
            raise
        return first

    def _read(self, timeout_s: float) -> dict[str, Any]:
        if not select.select([self._socket], [], [], timeout_s)[0]:
            raise self._failure(f"the proxy did not answer within {timeout_s:g} s")
        line = self._lines.readline()
        if not line:
            raise self._failure("the proxy died")
        return dict(json.loads(line))

    def _failure(self, reason: str) -> ServerFailed:
        return ServerFailed(reason, _tail(self._log_path))


def _tail(log_path: Path) -> str:
    lines = log_path.read_text(errors="replace").splitlines()
    return "\n".join(lines[-LOG_TAIL_LINES:])


def _spawn(
    settings: ServerSettings, config: ServingConfig, control_fd: int, log: IO[str]
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dlbench.proxy.main"]
    command += ["--settings", settings.model_dump_json(), "--config", config.model_dump_json()]
    return subprocess.Popen(
        [*command, "--control-fd", str(control_fd)],
        pass_fds=[control_fd],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for us: we close the leash when we are done
    )


class Use(NamedTuple):
    """What a server used, what Little's law asks of it, and how many of its workers are gone."""

    resources: Resources
    held: Held
    lost: int


class Meter:
    """What a server used between two moments: processor time, memory, cache, batches and GPUs."""

    def __init__(self, server: ServerUnderTest) -> None:
        self._server = server
        self._counters = server.counters()
        self._cpu_s = _cpu_seconds(self._counters)
        self._gpus = server.gpu_watch()
        self._began = time.perf_counter()

    def look(self) -> None:
        """Note what GPUs do now, of which nobody keeps a sum. Call it now and then under load."""
        self._gpus.look()

    def read(self) -> Use:
        """The use since this meter was made."""
        now = self._server.counters()
        elapsed_s = time.perf_counter() - self._began
        hits, misses, batches, rows, latency_ns = (
            now[name] - self._counters[name]
            for name in ("cache_hits", "cache_misses", "batches", "rows", "latency_ns")
        )
        cpu_s = _cpu_seconds(now)
        resources = Resources(
            server_cpu=max(0.0, sum(cpu_s) - sum(self._cpu_s)) / elapsed_s,
            server_rss_mb=_rss_mb(now),
            gpu_util=self._gpus.utilisation,
            gpu_mem_mb=self._gpus.most_mb,
            cache_hit_ratio=hits / (hits + misses) if hits + misses else None,
            mean_batch_size=rows / batches if batches else None,
        )
        lost = set(self._counters["pids"]["workers"]) - set(now["pids"]["workers"])
        held = Held(latency_ns / NS, cpu_s[0] - self._cpu_s[0], hits)
        return Use(resources, held, len(lost))


def _processes(counters: dict[str, Any]) -> list[psutil.Process]:
    pids = counters["pids"]
    return [psutil.Process(pid) for pid in (pids["front"], *pids["workers"])]


def _cpu_seconds(counters: dict[str, Any]) -> list[float]:
    """Processor time of each process, the front's first."""
    times = [process.cpu_times() for process in _processes(counters)]
    return [float(t.user + t.system) for t in times]


def _rss_mb(counters: dict[str, Any]) -> float:
    return float(sum(p.memory_info().rss for p in _processes(counters))) / 1e6
