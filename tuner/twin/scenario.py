"""One simulated run, drawn beforehand: who comes when, with which input, and how long batches take.

Both twins are given the same scenario, so that they differ in nothing but their code. Everything is
drawn for a rate of one and a mean of one, and the same for all configurations: what differs between
two predictions is then the configurations, hardly the chance (common random numbers; A. M. Law,
Simulation Modeling and Analysis, 5th ed., 2015, ch. 11.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dlbench.loadgen.schedule.popularity import shares, weights
from dlbench.loadgen.schedule.schedule import ARRIVALS
from dlbench.proxy.cache.cache import ENTRY_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.twin.calibration import Calibration

NS = 1e9
# What is drawn from a load's seed: independent streams.
TIMES, INPUTS, SERVICES, BESIDE = range(4)
# A cache is warmed by so many look-ups per entry, within a bound: `tune` too stops being patient.
WARM_LOOKUPS_PER_ENTRY = 10
MOST_WARM_LOOKUPS = 200_000


class Load(BaseModel):
    """Requests as a load profile draws them; `distinct` 0: every input is another one.

    `cyclic`: the inputs come in their order, round and round, as the rows of a data file do.
    """

    model_config = ConfigDict(frozen=True)

    rate_rps: float = Field(gt=0)
    arrivals: Literal["poisson", "constant", "gamma"] = "poisson"
    gamma_cv: float = Field(default=2.0, gt=0)
    distinct: int = Field(default=0, ge=0)
    zipf: float = Field(default=0.0, ge=0)
    churn: float = Field(default=0.0, ge=0, le=1)
    cyclic: bool = False
    seed: int = 0
    requests: int = Field(default=10_000, ge=100)


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs by number, below `distinct`, of the warm-up and of the run; empty where none repeats."""

    distinct: int
    warm: NDArray[np.int32]
    keys: NDArray[np.int32]


class Costs(NamedTuple):
    """What the front takes, by the number of busy workers, 0 first: whole nanoseconds.

    A request costs the front `in_ns` until it is in a queue and `out_ns` once its result is there, or
    `hit_ns` in all if no worker is needed. Whatever finds the front asleep waits for `wake_ns` too.
    """

    wake_ns: NDArray[np.int64]
    in_ns: NDArray[np.int64]
    out_ns: NDArray[np.int64]
    hit_ns: NDArray[np.int64]


class Scenario(NamedTuple):
    """What a twin is given beside the configuration.

    `service_ns` has the shape (busy workers, rows of a batch), and the n-th batch takes `factors[n]`
    times as long. There are as many users as may have a request in flight, each of whom asks again
    `turn_ns` after an answer.
    """

    arrivals_ns: NDArray[np.int64]
    inputs: Inputs
    service_ns: NDArray[np.float64]
    factors: NDArray[np.float64]
    users: int
    costs: Costs
    turn_ns: int
    way_ns: int
    result_bytes: int


class SimulatedRun(NamedTuple):
    """What came of it: when each request was answered (-1: refused), and sums over the run."""

    done_ns: NDArray[np.int64]
    batches: int
    rows: int
    busy_ns: int
    wakes: int
    hits: int
    joined: int


class Others(NamedTuple):
    """Shares of a core that front and client keep busy beside the workers."""

    front: float = 0.0
    client: float = 0.0


def scenario(
    config: ServingConfig,
    load: Load,
    calibration: Calibration,
    users: int = 0,
    others: Others | None = None,
) -> Scenario:
    """The scenario of a configuration under a load, or of a closed loop of so many users.

    Without `others` they are what the load's rate lets expect.
    """
    warm = min(MOST_WARM_LOOKUPS, WARM_LOOKUPS_PER_ENTRY * cache_entries(config, calibration))
    count = load.requests
    unit = _unit_arrivals(load.arrivals, load.gamma_cv, load.seed, count)
    beside = others or expected_others(calibration, load.rate_rps, bool(users))
    return Scenario(
        np.zeros(count, np.int64) if users else (unit * (NS / load.rate_rps)).astype(np.int64),
        _inputs(load, warm),
        service_ns(config, calibration, beside),
        _factors(calibration.service_cv, load.seed, count),
        users or count,
        costs(config, calibration, beside),
        int(calibration.turn_s * NS),
        int(calibration.way_s * NS),
        calibration.result_bytes,
    )


def expected_others(calibration: Calibration, rate_rps: float, closed: bool) -> Others:
    """At a rate: a front that is busy is not woken, so r = rate (front + 2 wake (1 - r))."""
    wakes = 2 * rate_rps * calibration.wake_s
    front = (rate_rps * calibration.front_s + wakes) / (1 + wakes)
    client_s = calibration.client_s if closed else calibration.client_open_s
    return Others(min(1.0, front), min(1.0, rate_rps * client_s))


def cache_entries(config: ServingConfig, calibration: Calibration) -> int:
    """Entries that fit both bounds of the cache; 0 without one."""
    if config.cache_policy == "none":
        return 0
    fits = int(config.cache_max_mb * 2**20) // (ENTRY_BYTES + calibration.result_bytes)
    return min(config.cache_size, fits)


def service_ns(
    config: ServingConfig, calibration: Calibration, others: Others
) -> NDArray[np.float64]:
    """Service times of all batches, while front and client take their part of the cores."""
    threads = config.intra_op_threads
    busy = np.arange(1.0, config.workers + 1) + (others.front + others.client) / threads
    found = calibration.services_among(config.max_batch_size, threads, busy)
    scaled: NDArray[np.float64] = np.ascontiguousarray(found * NS)
    return scaled


def costs(config: ServingConfig, calibration: Calibration, others: Others) -> Costs:
    """What the front takes while workers and client take their part of the cores."""
    among = 1 + np.arange(config.workers + 1.0) * config.intra_op_threads + others.client
    slower = calibration.slowdown(among) * NS
    halves = calibration.front_s / 2
    parts = (calibration.wake_s, halves, halves, calibration.hit_s)
    return Costs(*((part * slower).astype(np.int64) for part in parts))


NO_INPUTS = Inputs(0, np.empty(0, np.int32), np.empty(0, np.int32))


@lru_cache(8)
def _unit_arrivals(kind: str, cv: float, seed: int, count: int) -> NDArray[np.float64]:
    """Arrival times of a process of unit rate."""
    rng = np.random.default_rng((seed, TIMES))
    found: NDArray[np.float64] = np.cumsum(ARRIVALS[kind].gaps(rng, cv, count))
    return found


def _inputs(load: Load, warm: int) -> Inputs:
    """Those of a warm-up and of the run after it."""
    if not load.distinct:
        return NO_INPUTS
    if load.cyclic:
        return _in_turn(load.distinct, warm, load.requests)
    return _popular(load.distinct, load.zipf, load.churn, load.seed, warm, load.requests)


def _in_turn(distinct: int, warm: int, count: int) -> Inputs:
    keys = (np.arange(warm + count) % distinct).astype(np.int32)
    return Inputs(distinct, keys[:warm], keys[warm:])


@lru_cache(16)
def _popular(
    distinct: int, exponent: float, churn: float, seed: int, warm: int, count: int
) -> Inputs:
    """Inputs by popularity, the most popular one being 0 unless some are replaced."""
    rng = np.random.default_rng((seed, INPUTS))
    cumulative = shares(weights(distinct, exponent))
    keys = np.searchsorted(cumulative, rng.random(warm + count), side="right").astype(np.int32)
    if churn:
        keys = _replaced(keys, rng.random(warm + count) < churn)
        distinct = int(keys.max()) + 1
    return Inputs(distinct, keys[:warm], keys[warm:])


def _replaced(ranks: NDArray[np.int32], anew: NDArray[np.bool_]) -> NDArray[np.int32]:
    """A number for each input that ever held a rank, where a request `anew` brings the rank's next."""
    order = np.argsort(ranks, kind="stable")
    is_next = anew[order]
    is_next[1:] |= np.diff(ranks[order]) != 0
    is_next[0] = False
    found = np.empty_like(ranks)
    found[order] = np.cumsum(is_next)
    return found


@lru_cache(8)
def _factors(cv: float, seed: int, count: int) -> NDArray[np.float64]:
    """Gamma-distributed with mean 1: exponential for a cv of 1, all alike for 0."""
    if not cv:
        return np.ones(count)
    return np.random.default_rng((seed, SERVICES)).gamma(cv**-2, cv**2, count)


def beside_ms(calibration: Calibration, load: Load) -> NDArray[np.float64]:
    """What comes to each latency beside the proxy's own."""
    quantiles = calibration.beside_ms
    if not quantiles:
        return np.zeros(load.requests)
    ranks = np.linspace(0, 1, len(quantiles))
    return np.interp(_ranks(load.seed, load.requests), ranks, quantiles)


@lru_cache(8)
def _ranks(seed: int, count: int) -> NDArray[np.float64]:
    return np.random.default_rng((seed, BESIDE)).random(count)
