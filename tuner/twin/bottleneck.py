"""What keeps a configuration from taking more, in words, after the twin. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.twin.calibration import Calibration
    from dlbench.tuner.twin.twin import Prediction

# A part that has more to do than this at full load is what the others wait for.
BUSY = 0.85


def bottleneck(
    config: ServingConfig, calibration: Calibration, capacity_rps: float, full: Prediction
) -> str:
    """What is short at capacity; `full` is what the twin expects near it.

    The first that applies: the load generator cannot ask for more; the front, one thread, has no
    time left; workers, front and client want more cores than there are; the workers are busy. Where
    nothing is, requests wait for each other: batches fill up, or a limit keeps them out.
    """
    front, client = shares(calibration, capacity_rps, full)
    cores = full.utilisation * config.workers * config.intra_op_threads + front + client
    reasons = {
        "the load generator: it cannot send more": capacity_rps >= calibration.drivable_rps,
        f"the front: one thread, {front:.0%} busy": front > BUSY,
        f"the cores: {cores:.1f} wanted of {calibration.cores}": cores > calibration.cores,
        f"the workers: {config.workers}, {full.utilisation:.0%} busy": full.utilisation > BUSY,
        f"no part alone: front {front:.0%}, workers {full.utilisation:.0%} busy": True,
    }
    return next(text for text, applies in reasons.items() if applies)


def shares(calibration: Calibration, rate_rps: float, seen: Prediction) -> tuple[float, float]:
    """Shares of a core that front and client take at a rate."""
    front_s = calibration.hit_s * seen.hit_ratio + calibration.front_s * (1 - seen.hit_ratio)
    return min(1.0, rate_rps * front_s), min(1.0, rate_rps * calibration.client_s)
