"""The table of all checks, in the order of the report, and what they find. Pure."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from dlbench.doctor import connections, hardware, quiet
from dlbench.doctor import runtimes as inference
from dlbench.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.doctor.facts import Facts
    from dlbench.doctor.finding import Assessment


class Check(NamedTuple):
    """A named judgement; None where the machine has nothing to judge."""

    group: str
    name: str
    judge: Callable[[Facts], Assessment | None]


CHECKS = (
    Check("models", "onnxruntime", inference.runtime),
    Check("models", "CPU", partial(inference.provider, device="cpu")),
    Check("models", "CUDA", partial(inference.provider, device="cuda")),
    Check("models", "TensorRT", partial(inference.provider, device="tensorrt")),
    Check("models", "driver", inference.driver),
    Check("models", "CUDA libraries", inference.cuda_libraries),
    Check("models", "GPUs", inference.gpus),
    Check("processor", "cores", hardware.cores),
    Check("processor", "hyperthreads", hardware.hyperthreads),
    Check("processor", "CPU limit", hardware.cpu_limit),
    Check("processor", "governor", hardware.governor),
    Check("processor", "turbo", hardware.turbo),
    Check("memory", "memory", hardware.memory),
    Check("memory", "swap", hardware.swap),
    Check("memory", "huge pages", hardware.huge_pages),
    Check("memory", "disk", hardware.disk),
    Check("time", "others", quiet.others),
    Check("time", "stolen", quiet.stolen),
    Check("time", "clock", quiet.clock),
    Check("time", "wake-ups", quiet.wakeups),
    Check("time", "real time", quiet.real_time),
    Check("connections", "descriptors", connections.descriptors),
    Check("connections", "ports", connections.ports),
    Check("connections", "port reuse", connections.reuse),
    Check("connections", "backlog", connections.backlog),
)


def examine(facts: Facts) -> tuple[Finding, ...]:
    """What every check says of these facts."""
    judgements = ((check, check.judge(facts)) for check in CHECKS)
    return tuple(
        Finding(group=check.group, name=check.name, **said._asdict())
        for check, said in judgements
        if said is not None
    )
