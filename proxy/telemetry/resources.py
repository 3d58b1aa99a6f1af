"""Processor time and memory of the proxy's processes, and what its GPUs do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable


class ProcessUsage(NamedTuple):
    """What one process has used since its start (CPU seconds) and holds now (resident bytes)."""

    cpu_s: float
    rss_bytes: int


class GpuUsage(NamedTuple):
    """Usage of one GPU by all processes; `utilization` is 0 to 1, None if unknown."""

    number: int
    utilization: float | None
    used_bytes: int
    total_bytes: int


class Gpus(Protocol):
    """The GPUs of this machine."""

    def usage(self) -> list[GpuUsage]:
        """As they are now."""


class NoGpus:
    """The null object: no GPU, no driver or no way to query it."""

    def usage(self) -> list[GpuUsage]:
        """Nothing to tell."""
        return []


class NvmlGpus:
    """NVIDIA's GPUs, by the driver's own library.

    `nvml` is the module `pynvml` after nvmlInit; the library stays open while the process lives.
    """

    def __init__(self, nvml: Any) -> None:  # noqa: ANN401 - a module that ships no types
        self._nvml = nvml
        count = nvml.nvmlDeviceGetCount()
        self._handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]

    def usage(self) -> list[GpuUsage]:
        """As they are now; a GPU that does not answer (lost, reset) is left out."""
        return [found for i in range(len(self._handles)) if (found := self._usage(i)) is not None]

    def _usage(self, index: int) -> GpuUsage | None:
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handles[index])
        except self._nvml.NVMLError:
            return None
        return GpuUsage(index, self._utilization(index), memory.used, memory.total)

    def _utilization(self, index: int) -> float | None:
        """None on a GPU that is partitioned (MIG): NVML does not say it there."""
        try:
            rates = self._nvml.nvmlDeviceGetUtilizationRates(self._handles[index])
        except self._nvml.NVMLError:
            return None
        return float(rates.gpu) / 100


def find_gpus() -> Gpus:
    """The GPUs of this machine; none without NVIDIA's driver, or without nvidia-ml-py."""
    if not os.path.exists("/dev/nvidiactl") and not os.path.exists("/dev/dxg"):
        return NoGpus()  # importing pynvml takes a tenth of a second
    try:
        import pynvml
    except ImportError:
        return NoGpus()
    try:
        pynvml.nvmlInit()
        return NvmlGpus(pynvml)
    except pynvml.NVMLError:
        return NoGpus()


def process_usage(pids: Iterable[int]) -> dict[int, ProcessUsage]:
    """What these processes use; those that are gone are left out."""
    return {pid: usage for pid in pids if (usage := _usage(pid)) is not None}


def _usage(pid: int) -> ProcessUsage | None:
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return ProcessUsage(times.user + times.system, process.memory_info().rss)
    except psutil.Error:
        return None
