"""Executors: what to ask onnxruntime for, by device. Pure; only a session can tell what it got."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.settings import ServerSettings

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
# Device -> providers, the preferred one first: what it cannot run falls to the next.
PROVIDERS = {"cpu": (CPU,), "cuda": (CUDA, CPU), "tensorrt": (TENSORRT, CUDA, CPU)}
# Device asked for -> devices to try. TensorRT builds engines for minutes, so nobody gets it unasked.
TRIED = {"auto": ("cuda", "cpu"), "cpu": ("cpu",), "cuda": ("cuda",), "tensorrt": ("tensorrt",)}
# Why it is the device that it is, where the first that was tried was there.
REASONS = {
    "auto": "CUDA works here",
    "cpu": "asked for",
    "cuda": "asked for",
    "tensorrt": "asked for",
}
# What to do about a device that onnxruntime could not start.
HINTS = {
    "cuda": "pip install 'dlbench[cuda]' brings its libraries",
    "tensorrt": "it needs NVIDIA's TensorRT libraries besides those of 'dlbench[cuda]'",
}


@dataclass(frozen=True)
class Executor:
    """How one worker's session is to run; the fields are those of settings and configuration."""

    device: str
    device_id: int
    provider_option: Mapping[str, str]
    io_binding: bool
    intra_op_threads: int
    graph_optimization: str
    memory_arena: bool
    allow_spinning: bool

    def providers(self, device: str) -> list[tuple[str, dict[str, str]]]:
        """Providers with their options, as a session takes them; the first one gets the user's."""
        place = {} if device == "cpu" else {"device_id": str(self.device_id)}
        first, *others = PROVIDERS[device]
        return [
            (first, {**place, **self.provider_option}),
            *((other, {} if other == CPU else place) for other in others),
        ]


def executor_of(settings: ServerSettings, config: ServingConfig, index: int) -> Executor:
    """The executor of worker number `index`: devices are dealt out in turn."""
    return Executor(
        device=settings.device,
        device_id=settings.device_ids[index % len(settings.device_ids)],
        provider_option=settings.provider_option,
        io_binding=settings.io_binding,
        intra_op_threads=config.intra_op_threads,
        graph_optimization=config.graph_optimization,
        memory_arena=config.memory_arena,
        allow_spinning=config.allow_spinning,
    )


def missing(device: str, built_in: Collection[str], has_gpu: bool) -> str:
    """Why a device cannot even be tried, "" if it can; `built_in` are onnxruntime's providers."""
    if PROVIDERS[device][0] not in built_in:
        return f"this onnxruntime is built without {device}"
    if device != "cpu" and not has_gpu:
        return "no NVIDIA device"
    return ""


def got(device: str, providers: Collection[str]) -> bool:
    """Whether a session with these providers runs on the device that was meant."""
    return PROVIDERS[device][0] in providers


def blamed_option(text: str, options: Mapping[str, str]) -> str:
    """The provider option that an error speaks of, "" if it is about something else."""
    named = (key for key in options if re.search(rf"(?<!\w){re.escape(key)}(?!\w)", text))
    return next(named, "")
