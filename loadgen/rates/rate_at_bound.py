"""R(B): the highest offered rate with p99 <= B, from the posterior of a server's curve. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.rates.curve import log_load, slope
from dlbench.loadgen.rates.window import OpenWindow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.loadgen.rates.curve import Floats
    from dlbench.loadgen.rates.posterior import Posterior

QUANTILES = (0.025, 0.5, 0.975)  # an interval of 95 % and its middle
# A rate so little beyond those that were measured is as good as measured.
BEYOND = 0.05
Z_95 = 1.96
# What a true curve differs by from the nearest of the family: in ln rate, and in ln p99, which
# moves the rate the further the flatter the curve is. Chosen so that 95 % intervals hold the truth
# in 95 of 100 of benchmarks/simulated/rate_at_bound.py.
RATE_MISFIT, P99_MISFIT = 0.02, 0.05
LEAST_SLOPE = 0.5


@dataclass(frozen=True)
class RateAtBound:
    """The median and a 95 % interval; 0 where not even an empty server keeps to the bound.

    `measured`: the rate lies among those at which windows were open, not beyond them.
    """

    p99_ms: float
    rate_rps: float
    low_rps: float
    high_rps: float
    measured: bool

    @property
    def reachable(self) -> bool:
        return self.rate_rps > 0

    @property
    def width(self) -> float:
        """Half of the interval, as a share of the rate; inf where there is none."""
        return (self.high_rps - self.low_rps) / 2 / self.rate_rps if self.rate_rps else math.inf


def rate_at_bound(posterior: Posterior, p99_ms: float) -> RateAtBound:
    """R(B) for any B in the unit of the windows' p99s; the higher the bound, the higher the rates."""
    low, middle, high = rate_quantiles(posterior, p99_ms, QUANTILES)
    if middle:
        error = Z_95 * _misfit(posterior, p99_ms)
        low, high = middle * _wider(low / middle, error), middle / _wider(middle / high, error)
    return RateAtBound(p99_ms, middle, low, high, _measured(posterior, middle))


def rate_quantiles(
    posterior: Posterior, p99_ms: float, shares: Sequence[float]
) -> tuple[float, ...]:
    """Quantiles of R(B) by the windows alone, in requests per second; 0: none keeps to the bound."""
    rates = np.exp(posterior.grid.rate[:, None, None] + steps(posterior, p99_ms)).ravel()
    order = np.argsort(rates)
    rates, mass = rates[order], posterior.mass.ravel()[order]
    reach = rates > 0
    below = np.cumsum(mass)
    if not reach.any():
        return (0.0,) * len(shares)
    found = np.exp(np.interp(shares, (below - mass / 2)[reach], np.log(rates[reach])))
    unreachable = mass[~reach].sum()
    return tuple(np.where(np.array(shares) < unreachable, 0.0, found).tolist())


def _loads(posterior: Posterior, p99_ms: float) -> Floats:
    """(depth, growth): ln(rate / capacity) at which p99 reaches the bound."""
    rise = math.log(p99_ms) - posterior.grid.pivot + posterior.grid.depth
    return log_load(rise[:, None], posterior.grid.growth)


def steps(posterior: Posterior, p99_ms: float) -> Floats:
    """(depth, growth): ln(R(B) / rate at the pivot)."""
    return _loads(posterior, p99_ms) - posterior.grid.loads


def _misfit(posterior: Posterior, p99_ms: float) -> float:
    """Standard deviation of ln R(B) that comes of a true curve outside the family."""
    slopes = np.maximum(slope(_loads(posterior, p99_ms), posterior.grid.growth), LEAST_SLOPE)
    squares = RATE_MISFIT**2 + (P99_MISFIT / slopes) ** 2
    return math.sqrt(float((posterior.mass.sum(axis=0) * squares).sum()))


def _wider(share: float, error: float) -> float:
    """An end of an interval, as a share of its middle, with an independent error of its logarithm."""
    return math.exp(-math.hypot(math.log(share), error)) if share else 0.0


def _measured(posterior: Posterior, rate_rps: float) -> bool:
    rates = [w.rate_rps for w in posterior.windows if isinstance(w, OpenWindow)]
    if not rates:
        return False
    return bool(min(rates) / (1 + BEYOND) <= rate_rps <= max(rates) * (1 + BEYOND))
