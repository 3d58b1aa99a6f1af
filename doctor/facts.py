"""Everything that a judgement is based on, gathered once; some three seconds, without a GPU."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, field_serializer

from dlbench.doctor import cuda, idle, kernel, timing
from dlbench.doctor import devices as providers
from dlbench.doctor.cuda import Cuda
from dlbench.doctor.devices import Provider
from dlbench.doctor.idle import Idle
from dlbench.doctor.kernel import CPUS, Kernel
from dlbench.doctor.timing import Timing
from dlbench.loadgen.analysis import machine
from dlbench.loadgen.analysis.machine import MachineFacts
from dlbench.loadgen.engine import sockets as budget
from dlbench.loadgen.engine.sockets import SystemLimits
from dlbench.proxy.cores import hyperthreads, usable_cores
from dlbench.proxy.telemetry.resources import GpuUsage, find_gpus

ROOT = Path("/")
MIB = 1 << 20


class Facts(BaseModel):
    """The machine, as far as it matters to who serves and measures on it.

    `cores` are the usable logical cores in groups that share a physical one; `free_mb` is the room
    in the folder that samples would be kept in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: MachineFacts
    cores: tuple[tuple[int, ...], ...]
    kernel: Kernel
    limits: SystemLimits
    idle: Idle
    timing: Timing
    providers: tuple[Provider, ...]
    cuda: Cuda
    gpus: tuple[GpuUsage, ...]
    free_mb: float

    @field_serializer("limits")
    def _named(self, limits: SystemLimits) -> dict[str, int]:
        """In JSON a tuple would be numbers without names."""
        return limits._asdict()

    @field_serializer("gpus")
    def _all_named(self, gpus: tuple[GpuUsage, ...]) -> list[dict[str, float | None]]:
        return [one._asdict() for one in gpus]


def gather(folder: Path, root: Path = ROOT) -> Facts:
    """Gather all facts; the idle machine is watched first, since the rest causes load."""
    watched = idle.watch()
    return Facts(
        idle=watched,
        timing=timing.measure(),
        machine=machine.facts(root),
        cores=tuple(hyperthreads(usable_cores() or range(os.cpu_count() or 1), root / CPUS)),
        kernel=kernel.kernel(root),
        limits=budget.limits(root),
        cuda=cuda.cuda(root),
        gpus=tuple(find_gpus().usage()),
        free_mb=shutil.disk_usage(folder).free / MIB,
        providers=providers.try_all(),
    )
