"""Which devices a model really runs on here: each is tried in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from dlbench.proxy.workers.providers import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = (sys.executable, "-P", "-m", "dlbench.doctor.probe")
# TensorRT builds an engine first, which takes it some ten seconds for a small model.
TIMEOUT_S = 120.0


class Provider(BaseModel):
    """A device and whether a model ran on it; `reason` says why not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    works: bool
    reason: str


def try_all() -> tuple[Provider, ...]:
    """Every device that `--device` can name, side by side."""
    with ThreadPoolExecutor(len(PROVIDERS)) as pool:
        return tuple(pool.map(try_device, PROVIDERS))


def try_device(
    device: str, command: Sequence[str] = COMMAND, timeout_s: float = TIMEOUT_S
) -> Provider:
    """Run the probe in its own process; return a result even if it crashes."""
    try:
        done = subprocess.run(
            [*command, device], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        reason = f"did not answer within {timeout_s:g} s"
        return Provider(device=device, works=False, reason=reason)
    try:
        return Provider.model_validate_json(done.stdout.rstrip().rpartition("\n")[2])
    except ValidationError:
        return Provider(device=device, works=False, reason=_end(done))


def _end(done: subprocess.CompletedProcess[str]) -> str:
    """How a process ended that printed no result."""
    if done.returncode < 0:
        return f"its process crashed ({signal.Signals(-done.returncode).name})"
    return done.stderr.rstrip().rpartition("\n")[2] or f"its process ended with {done.returncode}"
