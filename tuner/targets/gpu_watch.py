"""What the GPUs of a server did while somebody looked at them now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.proxy.telemetry.resources import NoGpus, find_gpus

if TYPE_CHECKING:
    from collections.abc import Collection

    from dlbench.proxy.telemetry.resources import Gpus, GpuUsage

BYTES_PER_MB = 1e6


def gpus_of(device: str) -> Gpus:
    """Those that a server on this device may use."""
    return NoGpus() if device == "cpu" else find_gpus()


class GpuWatch:
    """Figures of some GPUs over all looks; None where there is no GPU or it does not tell."""

    def __init__(self, gpus: Gpus, numbers: Collection[int]) -> None:
        """`numbers` are those of the GPUs that count, as the driver numbers them.

        CUDA has the same numbers unless CUDA_VISIBLE_DEVICES or CUDA_DEVICE_ORDER changes them.
        """
        self._gpus, self._numbers = gpus, numbers
        self._looks: list[list[GpuUsage]] = []

    def look(self) -> None:
        """Note what they do now."""
        found = [gpu for gpu in self._gpus.usage() if gpu.number in self._numbers]
        if found:
            self._looks.append(found)

    @property
    def utilisation(self) -> float | None:
        """The mean over looks and GPUs, 0 to 1."""
        shares = [g.utilization for look in self._looks for g in look if g.utilization is not None]
        return sum(shares) / len(shares) if shares else None

    @property
    def most_mb(self) -> float | None:
        """The most memory in use on all of them together, whoever uses it."""
        sums = [sum(gpu.used_bytes for gpu in look) for look in self._looks]
        return max(sums) / BYTES_PER_MB if sums else None
