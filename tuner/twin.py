"""What a configuration will do under a load, predicted from a calibration before it is measured."""

from __future__ import annotations

from typing import NamedTuple

from dlbench.tuner.scenario import Load

__all__ = ["SHARES", "Load", "Prediction"]

SHARES = (0.3, 0.5, 0.7, 0.9)


class Prediction(NamedTuple):
    """What is expected of an operating point; the hit ratio counts joined requests, as the proxy does."""

    throughput_rps: float
    p50_ms: float
    p99_ms: float
    mean_batch: float
    hit_ratio: float
    utilisation: float
    rejected_share: float
