"""What the client can do on this machine: its closed loop against a server that does nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dlbench.tuner.errors import TuneError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlbench.loadgen.generator import Generator
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.target import Target

USERS = 64
DURATION_S = 1.5
STOP_TIMEOUT_S = 5.0


def client_rps(generator: Generator, target: Target, profile: LoadProfile) -> float:
    """Requests per second that the generator reaches with this model's requests and no server work."""
    closed = profile.model_copy(
        update={"users": USERS, "rate": None, "duration_s": DURATION_S, "warmup_s": 0.3}
    )
    with null_server() as url:
        return generator.measure(target.at(url), closed).measurement.throughput_rps


@contextmanager
def null_server() -> Iterator[str]:
    """A V2 server that answers at once with a fixed reply; yields its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dlbench.loadgen.null_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise TuneError("the null server that calibrates the client did not start")
        yield f"http://127.0.0.1:{json.loads(line)['port']}"
    finally:
        process.stdin.close()  # its leash
        process.wait(STOP_TIMEOUT_S)
        process.stdout.close()
