"""Who offers a load: one process, several, or workers on other machines."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """How the generator's process is started; `master` and `web` are `[HOST:]PORT`."""

    processes: int = 1
    master: str | None = None
    expect_workers: int = 1
    web: str | None = None

    def arguments(self) -> list[str]:
        """Its command line."""
        found: list[str] = []
        if self.processes > 1:
            found += ["--processes", str(self.processes)]
        if self.master:
            found += ["--master-bind", self.master, "--expect-workers", str(self.expect_workers)]
        if self.web:
            found += ["--web", self.web]
        return found


ALONE = Role()


def work_for(master: str) -> int:
    """Work for the master at `HOST:PORT` until it goes; gives the exit code."""
    host, _, port = master.rpartition(":")
    place = ["--master-host", host or "127.0.0.1", "--master-port", port]
    command = [sys.executable, "-m", "dlbench.loadgen.locust.worker", *place]
    # Its leash: it ends with this pipe, and so with us.
    with subprocess.Popen(command, stdin=subprocess.PIPE) as worker:
        return worker.wait()
