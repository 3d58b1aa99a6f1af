"""What front and client cost, from how a real proxy was seen under two loads. Pure.

A closed loop keeps the front awake, a light open one wakes it for nearly every request; between the
two, and with the twin's own count of wake-ups, the price of a request and that of a wake-up are two
equations. What the open loop's latencies have beyond the twin's is kept as it was seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlbench.tuner.twin.scenario import NS, Load, Others, scenario
from dlbench.tuner.twin.twin import simulate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.twin.calibration import Calibration

# Wake-ups change with their price: so many rounds of both.
ROUNDS = 5
# Wake-ups never explain all that a request costs.
LEAST_SHARE = 0.2
# Evenly spaced quantiles of what comes to a latency; the last is this one, since a maximum is chance.
QUANTILES, LAST = 201, 0.999
MS = 1e3


class ObservedLoad(NamedTuple):
    """A proxy under a load: requests per second, and processor seconds per request."""

    rate_rps: float
    front_s: float
    client_s: float


def fitted(
    calibration: Calibration,
    config: ServingConfig,
    users: int,
    closed: ObservedLoad,
    opened: ObservedLoad,
) -> Calibration:
    """With the costs of front and client, after a closed loop of so many users and an open one."""
    found = calibration.model_copy(
        update={
            "front_s": closed.front_s,
            "client_s": closed.client_s,
            "client_open_s": opened.client_s,
        }
    )
    for _ in range(ROUNDS):
        awake = _wakes(config, found, closed, users)
        asleep = _wakes(config, found, opened, 0)
        found = found.model_copy(update=_solved(closed, awake, opened, asleep))
    return found


def beside_ms(
    calibration: Calibration, config: ServingConfig, rate_rps: float, seen_ms: NDArray[np.float64]
) -> tuple[float, ...]:
    """Quantiles of what measured latencies at a rate have beyond those of the twin."""
    load = Load(rate_rps=rate_rps)
    drawn = scenario(config, load, calibration)
    run = simulate(config, drawn, calibration)
    expected_ms = (run.done_ns - drawn.arrivals_ns)[run.done_ns >= 0] / NS * MS
    ranks = np.linspace(0, 1, QUANTILES)
    ranks[-1] = LAST
    beyond = np.quantile(seen_ms, ranks) - np.quantile(expected_ms, ranks)
    return tuple(np.maximum.accumulate(np.maximum(beyond, 0.0)).tolist())


class Wakes(NamedTuple):
    """How often the front is woken per request, and how much slower it is than alone."""

    per_request: float
    slowdown: float


def _wakes(
    config: ServingConfig, calibration: Calibration, seen: ObservedLoad, users: int
) -> Wakes:
    load = Load(rate_rps=seen.rate_rps)
    others = Others(min(1.0, seen.rate_rps * seen.front_s), min(1.0, seen.rate_rps * seen.client_s))
    run = simulate(config, scenario(config, load, calibration, users, others), calibration)
    busy = run.busy_ns / max(1, int(run.done_ns.max()))
    among = np.array([1 + busy * config.intra_op_threads + others.client])
    # Waiting for a core is no processor time: only what shared cores are slower by.
    slower = calibration.slowdown(np.minimum(among, calibration.cores))
    return Wakes(run.wakes / load.requests, float(slower[0]))


def _solved(
    closed: ObservedLoad, awake: Wakes, opened: ObservedLoad, asleep: Wakes
) -> dict[str, float]:
    one, other = closed.front_s / awake.slowdown, opened.front_s / asleep.slowdown
    apart = asleep.per_request - awake.per_request
    wake_s = max(0.0, (other - one) / apart) if apart > 0 else 0.0
    wake_s = min(wake_s, (1 - LEAST_SHARE) * one / max(awake.per_request, 1e-9))
    return {"wake_s": wake_s, "front_s": one - awake.per_request * wake_s}
