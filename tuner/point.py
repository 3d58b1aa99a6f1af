"""An operating point as the study keeps it: a configuration at an offered load, measured. Pure."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

from dlbench.loadgen.measurement import Measurement
from dlbench.proxy.config import ServingConfig
from dlbench.tuner.front import Outcome

Phase = Literal["baseline", "probe", "screen", "verify", "drift"]

# A point that loses more than one request in a thousand is not a way to serve anything.
ERROR_RATE_LIMIT = 0.001


class Resources(BaseModel):
    """What the server used during a measurement; None means it was not measured."""

    model_config = ConfigDict(frozen=True)

    server_cpu: float | None = None  # cores kept busy, summed over front and workers
    server_rss_mb: float | None = None
    gpu_util: float | None = None
    gpu_mem_mb: float | None = None
    cache_hit_ratio: float | None = None
    mean_batch_size: float | None = None


class Point(BaseModel):
    """One record. `measurement` is None where the configuration failed; `failure` then says how."""

    model_config = ConfigDict(frozen=True)

    configuration: str  # "naive", "default", "c01", …
    phase: Phase
    config: ServingConfig
    share: float | None = None  # offered load over the capacity that the probe found
    repeat: int = 0
    measurement: Measurement | None = None
    resources: Resources = Resources()
    disturbances: tuple[str, ...] = ()  # what else happened on the machine meanwhile
    failure: str = ""
    log_tail: str = ""
    cost_s: float = 0.0  # wall time spent, start-up of the server included
    spent_s: float | None = None  # wall time of the whole study when this was recorded
    on_front: bool = False
    recommended: bool = False

    @property
    def name(self) -> str:
        """What people and the CSV call it: the configuration and the share of its capacity."""
        return self.configuration if self.share is None else f"{self.configuration}@{self.share:g}"

    @property
    def measured(self) -> Measurement:
        """The measurement of a point that is known to have one."""
        assert self.measurement is not None
        return self.measurement

    @property
    def outcome(self) -> Outcome | None:
        """Throughput and p99, or None where the point may not be on a front."""
        measured = self.measurement
        if measured is None or measured.p99_ms is None or self.share is None:
            return None
        if math.isinf(measured.p99_ms):
            return None
        if measured.verdict in ("invalid", "saturated") or measured.error_rate > ERROR_RATE_LIMIT:
            return None
        return Outcome(measured.throughput_rps, measured.p99_ms)


def with_outcome(points: list[Point]) -> list[tuple[Point, Outcome]]:
    """The points that may be on a front, each with its outcome."""
    return [(point, point.outcome) for point in points if point.outcome is not None]
