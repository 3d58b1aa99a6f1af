"""A short look at the machine while we do nothing: who else is at work here?"""

from __future__ import annotations

import time

from pydantic import BaseModel, ConfigDict

from dlbench.tuner.bench.disturbance import Snapshot, now

LENGTH_S = 1.0


class Idle(BaseModel):
    """What happened in `length_s` of doing nothing; cores are processor time over real time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    length_s: float
    others_cores: float
    stolen_cores: float
    swapped_mb: float


def watch(length_s: float = LENGTH_S) -> Idle:
    """Sleep, and see what others did meanwhile."""
    before = now()
    time.sleep(length_s)
    return between(before, now())


def between(before: Snapshot, after: Snapshot) -> Idle:
    """What two snapshots say; never below zero, since both are sums of coarse ticks."""
    length_s = max(1e-9, after.at_s - before.at_s)
    others_s = (after.busy_s - before.busy_s) - (after.ours_s - before.ours_s)
    return Idle(
        length_s=length_s,
        others_cores=max(0.0, others_s) / length_s,
        stolen_cores=max(0.0, after.stolen_s - before.stolen_s) / length_s,
        swapped_mb=max(0.0, after.swapped_mb - before.swapped_mb),
    )
