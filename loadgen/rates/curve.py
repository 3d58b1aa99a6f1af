"""p99 over offered rate: three parameters, from an empty server to its capacity.

    p99(rate) = low * (1 + growth * rho / (1 - rho)),    rho = rate / capacity

It is exact for M/M/1 (growth 1), has the limits that any queue has (the latency of an empty server,
and divergence as 1 / (1 - rho): J. F. C. Kingman, The single server queue in heavy traffic, 1961),
rises everywhere, and its inverse is as short. A small growth is a sharp knee: many workers, or
constant service times. Batching servers rise a little earlier and then wait a little longer: of 300
simulated ones it misses the rate at a bound by 2.7 % (the median server's rms over all loads,
benchmarks/simulated/rate_at_bound.py). A dozen other forms with three parameters were no nearer.

All functions take and give natural logarithms, and arrays that broadcast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

# A window ends before a queue has grown without end: nearer to capacity it shows no more than here.
LEAST_SPARE = 0.01


def log_rise(log_load: ArrayLike, log_growth: ArrayLike) -> Floats:
    """ln(p99 / low) at ln(rate / capacity); finite, so that a window over its capacity has one too."""
    load = np.exp(np.minimum(log_load, 0.0))
    rise: Floats = np.log1p(np.exp(log_growth) * load / np.maximum(1 - load, LEAST_SPARE))
    return rise


def log_load(log_rise: ArrayLike, log_growth: ArrayLike) -> Floats:
    """ln(rate / capacity) at which ln(p99 / low) is reached; -inf where an empty server is over it."""
    with np.errstate(divide="ignore", over="ignore"):
        load: Floats = -np.log1p(np.exp(log_growth) / np.expm1(np.maximum(log_rise, 0.0)))
    return load


def slope(log_load: ArrayLike, log_growth: ArrayLike) -> Floats:
    """By how much ln p99 rises per ln rate: 0 for an empty server, inf at its capacity."""
    load = np.exp(np.minimum(log_load, 0.0))
    spare, grown = 1 - load, np.exp(log_growth) * load
    with np.errstate(divide="ignore"):
        found: Floats = grown / (spare * (spare + grown))
    return found
