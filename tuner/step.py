"""One measurement of a study, to be made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.point import Phase


@dataclass(frozen=True)
class Step:
    """One measurement to make. `rate` is None for a probe, which is a closed loop."""

    configuration: str
    config: ServingConfig
    phase: Phase
    duration_s: float
    share: float | None = None
    rate: float | None = None
    repeat: int = 0
