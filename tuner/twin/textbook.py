"""What queueing theory says of a configuration, and what of it that leaves out, in words. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dlbench.loadgen.quantity import digits
from dlbench.proxy.dispatch.core import PREFETCH_BELOW_NS
from dlbench.tuner.twin.queueing import MMc, mmc_quantile_s
from dlbench.tuner.twin.scenario import NS

if TYPE_CHECKING:
    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.twin.calibration import Calibration
    from dlbench.tuner.twin.scenario import Load
    from dlbench.tuner.twin.twin import Prediction

# What makes no more of a difference than this is not worth a word.
SLIGHT = 0.05


class Textbook(NamedTuple):
    """A queue in its steady state; all times are infinite where it has none.

    `utilisation` is the load offered to each worker, so without a steady state it is 1 or more.
    """

    queue: str
    mean_ms: float
    p50_ms: float
    p99_ms: float
    in_flight: float
    utilisation: float


def textbook(config: ServingConfig, load: Load, calibration: Calibration) -> Textbook:
    """M/M/c: a server for each worker, Poisson arrivals, each request computed alone."""
    queue = MMc(config.workers, load.rate_rps, calibration.service_s(1, config.intra_op_threads))
    mean_s = queue.mean_wait_s() + queue.service_s
    return Textbook(
        queue=f"M/M/{config.workers}",
        mean_ms=1000 * mean_s,
        p50_ms=1000 * mmc_quantile_s(queue, 0.5),
        p99_ms=1000 * mmc_quantile_s(queue, 0.99),
        in_flight=load.rate_rps * mean_s,
        utilisation=queue.offered / config.workers,
    )


def left_out(
    config: ServingConfig, load: Load, calibration: Calibration, seen: Prediction
) -> list[str]:
    """What the twin has and such a queue has not: why the two differ."""
    threads, cv = config.intra_op_threads, calibration.service_cv
    alone_s = calibration.service_s(1, threads)
    slower = calibration.service_s(1, threads, config.workers) / alone_s - 1
    other_ms = 1000 * (calibration.front_s + 2 * calibration.way_s) + _mean(calibration.beside_ms)
    reasons = {
        f"batches of {seen.mean_batch:.1f}": seen.mean_batch > 1 + SLIGHT,
        f"{config.max_queue_delay_ms:g} ms that a batch waits": config.max_queue_delay_ms > 0,
        "requests that wait for one worker, not for the next free one": _bound(
            config, calibration, seen
        ),
        f"{seen.hit_ratio:.0%} cache hits": seen.hit_ratio > 0,
        f"service times that vary less (cv {digits(cv, 2)}, not 1)": cv < 1 - SLIGHT,
        f"service times that vary more (cv {digits(cv, 2)}, not 1)": cv > 1 + SLIGHT,
        f"busy workers that slow each other by {slower:.0%}": slower > SLIGHT,
        f"{digits(other_ms, 2)} ms in front and client": other_ms > SLIGHT * 1000 * alone_s,
        f"{load.arrivals} arrivals": load.arrivals != "poisson",
        f"{seen.rejected_share:.0%} refused": seen.rejected_share > 0,
    }
    return [text for text, applies in reasons.items() if applies]


def _bound(config: ServingConfig, calibration: Calibration, seen: Prediction) -> bool:
    """Whether requests wait for a certain worker: by policy, or in a short batch committed ahead.

    Only full batches are committed, so where most are half empty few are.
    """
    batch = max(1, round(seen.mean_batch))
    short = calibration.service_s(batch, config.intra_op_threads) * NS < PREFETCH_BELOW_NS
    committed = short and config.queue_order == "fifo" and 2 * batch > config.max_batch_size
    return config.workers > 1 and (config.scheduling_policy != "shared_queue" or committed)


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values) if values else 0.0
