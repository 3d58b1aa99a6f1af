"""What the client can do on this machine, and what it adds to every latency: against a null server.

Measured before the first run and kept in the user's cache folder, so that a result can say how far
the client was from being the limit. The null server takes no time to speak of, but it is a server:
what is found is the lesser of what the client and it can do, and the overhead of both.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from dlbench.loadgen.analysis.machine import MachineFacts, facts
from dlbench.loadgen.control.roles import ALONE
from dlbench.loadgen.errors import GeneratorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dlbench.loadgen.control.generator import Generator
    from dlbench.loadgen.control.roles import Role
    from dlbench.loadgen.measurement import Measurement
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.target import Target
    from dlbench.loadgen.tensors import TensorSpec

# History of the file format:
#   1  {"version", "key", "headroom"}
VERSION = 1
USERS = 64
CLOSED_S = 0.8
OPEN_S = 1.2  # at OPEN_RPS more than twice the 459 requests that a p99 needs
OPEN_RPS = 1000.0
# Of what the client can do; more is no moderate rate, and overhead would be queueing.
OPEN_SHARE = 0.25
WARMUP_S = 0.2
# Requests within a factor of 4 in size are alike; those below 1 KiB all are.
SIZE_CLASS_BASE, SMALLEST_SIZE = 4, 1024
# A machine with more runnable processes than this share of its cores is busy with something else.
QUIET_SHARE = 0.5
STOP_TIMEOUT_S = 5.0
# What a profile says of arrivals, of users and of expected outputs goes back to its default.
UNDONE = (
    *("rate", "rate_to", "trace", "users", "think_s", "pattern", "arrivals", "connections"),
    "check",
)


class Headroom(BaseModel):
    """The client's own figures here, for requests of one kind; None: `missing` says why there are none.

    `max_rps` is a closed loop's rate; the overheads are an open loop's latencies at a moderate rate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_rps: float | None = None
    overhead_p50_ms: float | None = None
    overhead_p99_ms: float | None = None
    measured_at: str = ""
    missing: str = ""

    def times(self, rate_rps: float) -> float | None:
        """How many times this rate the client could have offered."""
        return self.max_rps / rate_rps if self.max_rps and rate_rps else None


class HeadroomCache:
    """One file for each kind of request on each kind of machine; what cannot be read is not there."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(platformdirs.user_cache_dir("dlbench")) / "headroom"

    def get(self, key: dict[str, Any]) -> Headroom | None:
        try:
            document = json.loads(self._path(key).read_bytes())
            known = document["version"] == VERSION and document["key"] == key
            return Headroom.model_validate(document["headroom"]) if known else None
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return None

    def put(self, key: dict[str, Any], headroom: Headroom) -> None:
        """Replace the file atomically, since other runs may read it; ignore a full disk."""
        document = {"version": VERSION, "key": key, "headroom": headroom.model_dump()}
        path = self._path(key)
        draft = path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(document, indent=1))
            draft.replace(path)

    def _path(self, key: dict[str, Any]) -> Path:
        text = json.dumps(key, sort_keys=True).encode()
        return self._folder / f"{hashlib.blake2b(text, digest_size=12).hexdigest()}.json"


def calibrate(
    generator: Generator,
    target: Target,
    profile: LoadProfile,
    *,
    role: Role = ALONE,
    machine: MachineFacts | None = None,
    fresh: bool = False,
    cache: HeadroomCache | None = None,
) -> Headroom:
    """From the cache, or measured in some 3 s (`fresh`: always measured).

    `machine` is as it was before anything ran, if the caller knows it. What was measured on a busy machine is not kept: it holds for this run alone. Raises LoadError,
    and KeyboardInterrupt for a Ctrl-C meanwhile.
    """
    if reason := missing(target, role):
        return Headroom(missing=reason)
    cache, machine = cache or HeadroomCache(), machine or facts()
    key = key_of(machine, target, profile, role)
    known = None if fresh else cache.get(key)
    if known is not None:
        return known
    found = measured(generator, target, profile)
    if not found.missing and is_quiet(machine):
        cache.put(key, found)
    return found


def missing(target: Target, role: Role) -> str:
    """What the null server lacks for this load; empty: nothing."""
    lacks = {
        "the null server does not speak gRPC": target.protocol == "grpc",
        "the null server does not speak TLS": target.tls,
        "workers on other machines cannot reach the null server": bool(role.master),
    }
    return next((f"no calibration: {reason}" for reason, is_so in lacks.items() if is_so), "")


def key_of(
    machine: MachineFacts, target: Target, profile: LoadProfile, role: Role
) -> dict[str, Any]:
    """All that the figures depend on; JSON, equal only where they may be expected to be."""
    about = {"cpu", "governor", "usable_cores", "cpu_limit", "kernel", "real_time", "versions"}
    return {
        "machine": machine.model_dump(include=about),
        "protocol": target.protocol,
        "binary": target.uses_binary(profile),
        "size_class": size_class(request_size(target)),
        "data": profile.data,
        "keep_alive": profile.keep_alive,
        "processes": role.processes,
    }


def request_size(target: Target) -> int:
    """Bytes of the tensors in one request; of strings their number, which is what is known."""
    return sum(spec.elements * spec.dtype.itemsize for spec in target.inputs)


def size_class(size: int) -> int:
    """0 for small requests, one more for every factor of 4."""
    return math.ceil(math.log(max(size, SMALLEST_SIZE) / SMALLEST_SIZE, SIZE_CLASS_BASE))


def is_quiet(machine: MachineFacts) -> bool:
    """Whether little else ran before."""
    return machine.load_average[0] <= QUIET_SHARE * machine.cores


def measured(generator: Generator, target: Target, profile: LoadProfile) -> Headroom:
    """A closed loop for the most that is possible, then an open one for the overhead."""
    defaults = {name: type(profile).model_fields[name].default for name in UNDONE}
    plain = profile.model_copy(update={**defaults, "warmup_s": WARMUP_S})
    with null_server(target.inputs, target.outputs) as url:
        there = target.at(url).model_copy(update={"statistics": False})
        closed = _run(generator, there, plain, users=USERS, duration_s=CLOSED_S)
        max_rps = closed.throughput_rps
        if closed.error_rate or not max_rps:
            return Headroom(missing=f"no calibration: the null server returned {closed.errors}")
        rate = min(OPEN_RPS, OPEN_SHARE * max_rps)
        opened = _run(generator, there, plain, rate=rate, duration_s=OPEN_S)
    return Headroom(
        max_rps=max_rps,
        overhead_p50_ms=opened.p50_ms,
        overhead_p99_ms=opened.p99_ms,
        measured_at=closed.started_at,
    )


def _run(generator: Generator, target: Target, profile: LoadProfile, **load: float) -> Measurement:
    found = generator.measure(target, profile.model_copy(update=load)).measurement
    if not found.complete:
        raise KeyboardInterrupt  # who stops a calibration does not want the run after it
    return found


@contextmanager
def null_server(
    inputs: Sequence[TensorSpec] = (), outputs: Sequence[TensorSpec] = ()
) -> Iterator[str]:
    """A server of this shape that answers at once; yields its URL. Raises GeneratorError."""
    shapes = [(f"--{name}", specs) for name, specs in (("inputs", inputs), ("outputs", outputs))]
    stated = [word for name, specs in shapes if specs for word in (name, _metadata(specs))]
    process = subprocess.Popen(
        [sys.executable, "-m", "dlbench.loadgen.null_server", *stated],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise GeneratorError("the null server that calibrates the client did not start")
        yield str(json.loads(line)["url"])
    finally:
        process.stdin.close()  # its leash
        process.wait(STOP_TIMEOUT_S)
        process.stdout.close()


def _metadata(specs: Sequence[TensorSpec]) -> str:
    return json.dumps([spec.model_dump(include={"name", "datatype", "shape"}) for spec in specs])
