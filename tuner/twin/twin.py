"""What a configuration will do under a load, predicted from a calibration before it is measured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlbench.proxy.cache.cache import ENTRY_BYTES
from dlbench.proxy.config import THREADS_PER_CORE
from dlbench.tuner.twin import fast_twin, reference_twin
from dlbench.tuner.twin.scenario import (
    NS,
    Load,
    Others,
    Scenario,
    SimulatedRun,
    beside_ms,
    cache_entries,
    scenario,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.twin.calibration import Calibration

__all__ = ["SHARES", "Curve", "Load", "Prediction", "capacity_rps", "curve", "infeasible", "predict", "sweep"]  # fmt: skip

SHARES = (0.3, 0.5, 0.7, 0.9)
# Distinct inputs, at no rate in particular: a curve finds its own.
DISTINCT = Load(rate_rps=1.0)
# Part of a run during which the queue, empty at first, finds its usual length.
SETTLING_SHARE = 0.1
# Front and client take their part of the cores, the more the faster the workers are: after so many
# rounds capacity and shares agree within a per cent or two.
ROUNDS = 3
# Users of a closed loop, beyond a running and a committed batch for every worker.
SPARE_USERS = 16
MOST_USERS = 512
MS_PER_NS = 1e-6


class Prediction(NamedTuple):
    """What is expected of an operating point; the hit ratio counts joined requests, as the proxy does."""

    throughput_rps: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    mean_batch: float
    hit_ratio: float
    utilisation: float
    rejected_share: float


class Curve(NamedTuple):
    """A configuration's capacity, and what is expected at shares of it."""

    capacity_rps: float
    predictions: tuple[Prediction, ...]


def predict(config: ServingConfig, load: Load, calibration: Calibration) -> Prediction:
    """What is expected at an offered load; `config` names its number of workers."""
    drawn = scenario(config, load, calibration)
    return _summed_up(config, load, drawn, simulate(config, drawn, calibration), calibration)


def capacity_rps(
    config: ServingConfig, calibration: Calibration, load: Load = DISTINCT, users: int = 0
) -> float:
    """Requests per second of a closed loop of so many users, within what the client can drive.

    That is what a probe measures. 0 users: enough to fill every batch. They never fill the queue.
    """
    users = min(users or _probe_users(config), config.max_queue_size)
    run_load = load.model_copy(update={"requests": max(load.requests, 4 * users)})
    others, found = Others(), 0.0
    for _ in range(ROUNDS if calibration.front_s or calibration.client_s else 1):
        drawn = scenario(config, run_load, calibration, users, others)
        run = simulate(config, drawn, calibration)
        found = min(_closed_loop_rps(run, users), calibration.drivable_rps)
        others = others_in(run, calibration, calibration.client_s)
    return found


def curve(
    config: ServingConfig,
    calibration: Calibration,
    shares: tuple[float, ...] = SHARES,
    load: Load = DISTINCT,
) -> tuple[Prediction, ...]:
    """What is expected at shares of the configuration's own capacity."""
    return _whole_curve(config, calibration, shares, load).predictions


def sweep(
    configs: Iterable[ServingConfig],
    calibration: Calibration,
    shares: tuple[float, ...] = SHARES,
    load: Load = DISTINCT,
    threads: int = 0,
) -> list[Curve]:
    """The curves of many configurations, on so many threads (0: one per core)."""
    one = partial(_whole_curve, calibration=calibration, shares=shares, load=load)
    with ThreadPoolExecutor(threads or calibration.cores) as pool:
        return list(pool.map(one, configs))


def infeasible(config: ServingConfig, calibration: Calibration) -> str:
    """Why a configuration cannot work on this machine, "" if nothing speaks against it."""
    threads, most = config.workers * config.intra_op_threads, THREADS_PER_CORE * calibration.cores
    if threads > most:
        return f"{threads} threads on {calibration.cores} cores, more than {most} only take turns"
    needed_mb = _memory_mb(config, calibration)
    if calibration.memory_mb is not None and needed_mb > calibration.memory_mb:
        return f"needs {needed_mb:,.0f} MB of {calibration.memory_mb:,.0f} MB"
    return ""


def others_in(run: SimulatedRun, calibration: Calibration, client_s: float) -> Others:
    """What front and client took of a core during a run, the client so much per request."""
    computed = len(run.done_ns) - run.hits
    front_s = computed * calibration.front_s + run.hits * calibration.hit_s
    span_s = max(int(run.done_ns.max()), 1) / NS
    front, client = front_s + run.wakes * calibration.wake_s, len(run.done_ns) * client_s
    return Others(min(1.0, front / span_s), min(1.0, client / span_s))


def simulate(config: ServingConfig, drawn: Scenario, calibration: Calibration) -> SimulatedRun:
    """The compiled twin, or the reference where something is asked that only that one knows."""
    if fast_twin.knows(config):
        return fast_twin.simulate(config, drawn, cache_entries(config, calibration))
    return reference_twin.simulate(config, drawn)


def _whole_curve(
    config: ServingConfig, calibration: Calibration, shares: tuple[float, ...], load: Load
) -> Curve:
    capacity = capacity_rps(config, calibration, load)
    loads = [load.model_copy(update={"rate_rps": share * capacity}) for share in shares]
    return Curve(capacity, tuple(predict(config, load, calibration) for load in loads))


def _summed_up(
    config: ServingConfig, load: Load, drawn: Scenario, run: SimulatedRun, calibration: Calibration
) -> Prediction:
    first = int(SETTLING_SHARE * load.requests)
    arrivals, done = drawn.arrivals_ns[first:], run.done_ns[first:]
    served = done >= 0
    latency_ms = (done - arrivals)[served] * MS_PER_NS + beside_ms(calibration, load)[first:][
        served
    ]
    p50, p99 = np.percentile(latency_ms, (50, 99))
    # Both counts are of the same stretch of time, so that chance in the arrivals cancels.
    in_time = np.count_nonzero((run.done_ns >= arrivals[0]) & (run.done_ns <= arrivals[-1]))
    span_ns = max(int(run.done_ns.max()), int(arrivals[-1]), 1)
    return Prediction(
        throughput_rps=load.rate_rps * min(1.0, in_time / len(arrivals)),
        mean_ms=float(np.mean(latency_ms)),
        p50_ms=float(p50),
        p99_ms=float(p99),
        mean_batch=run.rows / max(1, run.batches),
        hit_ratio=(run.hits + run.joined) / load.requests,
        utilisation=run.busy_ns / (config.workers * span_ns),
        rejected_share=1 - float(np.mean(served)),
    )


def _probe_users(config: ServingConfig) -> int:
    return min(MOST_USERS, SPARE_USERS + 2 * config.workers * config.max_batch_size)


def _closed_loop_rps(run: SimulatedRun, users: int) -> float:
    """Between the settling and the moment when the last users find nothing more to send."""
    done = np.sort(run.done_ns[run.done_ns >= 0])
    first, last = int(SETTLING_SHARE * len(done)), len(done) - users - 1
    return float((last - first) * NS / (done[last] - done[first]))


def _memory_mb(config: ServingConfig, calibration: Calibration) -> float:
    """What workers and result cache take at most."""
    cached = cache_entries(config, calibration) * (ENTRY_BYTES + calibration.result_bytes)
    return config.workers * (calibration.worker_rss_mb or 0.0) + cached / 2**20
