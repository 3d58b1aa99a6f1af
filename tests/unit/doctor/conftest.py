"""A machine with nothing wrong, to change in one place at a time."""

import pytest

from dlbench.doctor.cuda import Cuda, Library
from dlbench.doctor.devices import Provider
from dlbench.doctor.facts import Facts
from dlbench.doctor.idle import Idle
from dlbench.doctor.kernel import Kernel
from dlbench.doctor.timing import Timing
from dlbench.loadgen.analysis.machine import MachineFacts
from dlbench.loadgen.engine.sockets import SystemLimits
from dlbench.proxy.telemetry.resources import GpuUsage

GIB = 1 << 30
NEEDED = {"cuda-runtime": ("13.0", "13.0.96"), "cudnn": ("9.0", "9.13.0.50")}

SOUND = Facts(
    machine=MachineFacts(
        cpu="a processor",
        governor="performance",
        physical_cores=8,
        logical_cores=8,
        usable_cores=8,
        cpu_limit=None,
        memory_mb=32_000,
        memory_limit_mb=None,
        load_average=(0.1, 0.1, 0.1),
        gpus=("NVIDIA L4",),
        kernel="Linux 6",
        real_time=True,
        versions={"python": "3.11.7", "onnxruntime-gpu": "1.31.1"},
    ),
    cores=tuple((core,) for core in range(8)),
    kernel=Kernel(
        turbo=False,
        huge_pages="madvise",
        clock_source="tsc",
        timer_slack_us=50,
        listen_backlog=4096,
        available_mb=30_000,
        container_left_mb=None,
        swap_used_mb=0,
        stolen_share=0,
    ),
    limits=SystemLimits(65536, 65536, 28232, 2),
    idle=Idle(length_s=1, others_cores=0.02, stolen_cores=0, swapped_mb=0),
    timing=Timing(clock_step_ns=30, late_p50_ms=0.06, late_p99_ms=0.2),
    providers=tuple(
        Provider(device=device, works=True, reason="") for device in ("cpu", "cuda", "tensorrt")
    ),
    cuda=Cuda(
        has_gpu=True,
        driver="580.65.06",
        libraries=tuple(
            Library(name=name, needed=needed, found=found)
            for name, (needed, found) in NEEDED.items()
        ),
    ),
    gpus=(GpuUsage(0, 0.0, GIB // 4, 24 * GIB),),
    free_mb=50_000,
)


def _changed(model, changes):
    """A copy with `machine__cpu_limit` and the like changed."""
    for path, value in changes.items():
        name, _, inside = path.partition("__")
        new = _changed(getattr(model, name), {inside: value}) if inside else value
        model = model.model_copy(update={name: new})
    return model


@pytest.fixture(scope="session")
def machine():
    """A function that gives the facts of a sound machine but for what is named."""
    return lambda **changes: _changed(SOUND, changes)
