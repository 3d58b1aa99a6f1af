"""What a figure was measured on: kept with every result, because no figure means much without it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from dlbench.loadgen.analysis.container import limits
from dlbench.loadgen.analysis.priority import real_time

MIB = 1 << 20
ROOT = Path("/")
# Packages that a figure depends on. Of the two onnxruntimes only one is there.
VERSIONED = (
    *("dlbench", "onnxruntime-gpu", "onnxruntime", "locust", "gevent", "numpy", "uvloop"),
    *("httptools", "orjson", "grpcio", "optuna"),
)
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
# A driver that has hung answers nobody; a result without the GPU's name is better than none.
NVIDIA_SMI_S = 5.0


class MachineFacts(BaseModel):
    """The machine as this process sees it. None: unknown, or no limit.

    `usable_cores` are those that the process may run on; a container's `cpu_limit` (in cores) and
    `memory_limit_mb` may be less. `load_average` (1, 5, 15 minutes) is as it was before the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    governor: str | None
    physical_cores: int | None
    logical_cores: int
    usable_cores: int
    cpu_limit: float | None
    memory_mb: float
    memory_limit_mb: float | None
    load_average: tuple[float, float, float]
    gpus: tuple[str, ...]
    kernel: str
    real_time: bool
    versions: dict[str, str]

    @property
    def cores(self) -> float:
        """How many cores' worth of time the process can get."""
        return min(self.usable_cores, self.cpu_limit or self.usable_cores)


def facts(root: Path = ROOT) -> MachineFacts:
    """Read all facts; /proc and /sys are below `root`. Takes about 10 ms, more with GPUs."""
    container = limits(root)
    logical = os.cpu_count() or 1
    return MachineFacts(
        cpu=processor(root),
        governor=governor(root),
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=logical,
        usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical,
        cpu_limit=container.cpus,
        memory_mb=psutil.virtual_memory().total / MIB,
        memory_limit_mb=container.memory_mb,
        load_average=os.getloadavg(),
        gpus=gpus(),
        kernel=f"{platform.system()} {platform.release()}",
        real_time=permits_real_time(),
        versions=versions(),
    )


def processor(root: Path = ROOT) -> str:
    """The processor's own name, with the family: some machines say no more than "AMD EPYC"."""
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    # Each core has its lines; reversed, the first one's are what stays.
    pairs = (line.partition(":") for line in reversed(lines))
    found = {key.strip(): value.strip() for key, _, value in pairs}
    if "model name" not in found:
        return platform.processor() or platform.machine()
    family = f"family {found.get('cpu family', '?')} model {found.get('model', '?')}"
    return f"{found['model name']} ({family})"


def governor(root: Path = ROOT) -> str | None:
    """How the clock is governed; all names, when cores differ."""
    files = root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    return ", ".join(sorted({file.read_text().strip() for file in files})) or None


def gpus() -> tuple[str, ...]:
    """The names of NVIDIA's GPUs; () where there is none, or its driver does not answer."""
    try:
        answer = subprocess.run(
            NVIDIA_SMI, capture_output=True, text=True, check=True, timeout=NVIDIA_SMI_S
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())


def permits_real_time() -> bool:
    """Whether this process may be scheduled ahead of ordinary ones. Only trying tells."""
    with real_time() as permitted:
        return permitted


def versions() -> dict[str, str]:
    """Python's version and those of the packages that a figure depends on, as far as installed."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
