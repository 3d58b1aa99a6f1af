"""What is believed of a server's curve before it is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from dlbench.loadgen.rates.curve import log_rise

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of 240 simulated servers: the growth that fitted best, and its spread.
USUAL_GROWTH, GROWTH_SPREAD = 1.2, 1.0
# A twin knows the kind of curve better than where it lies.
TWIN_SPREADS = (0.35, 0.5, 0.7)
# A window at any rate: its server may take as much, or a thousand times that.
VAGUE_HEADROOM, VAGUE_RISE = 3.0, 1.5
VAGUE_SPREADS = (2.5, 1.5)
GROWTHS = np.geomspace(0.03, 30.0, 70)
CAPACITIES = np.linspace(-0.05, 0.3, 36)
NEAREST = 0.995


@dataclass(frozen=True)
class Prior:
    """Log-normal: medians, and standard deviations of the natural logarithms."""

    capacity_rps: float
    low_ms: float
    growth: float = USUAL_GROWTH
    capacity_spread: float = TWIN_SPREADS[0]
    low_spread: float = TWIN_SPREADS[1]
    growth_spread: float = GROWTH_SPREAD

    @classmethod
    def of_window(cls, rate_rps: float, p99_ms: float) -> Self:
        """Of a server of which nothing is known but a window that it kept up with."""
        return cls(
            VAGUE_HEADROOM * rate_rps,
            p99_ms / VAGUE_RISE,
            capacity_spread=VAGUE_SPREADS[0],
            low_spread=VAGUE_SPREADS[1],
        )

    @classmethod
    def of_curve(
        cls, capacity_rps: float, rates_rps: Sequence[float], p99s_ms: Sequence[float]
    ) -> Self:
        """The curve nearest to a predicted one, at rates below its capacity, and wide about it."""
        log_p99 = np.log(p99s_ms)
        loads = np.log(np.array(rates_rps) / capacity_rps) - CAPACITIES[:, None, None]
        rises = log_rise(np.minimum(loads, math.log(NEAREST)), np.log(GROWTHS)[:, None])
        lows = (log_p99 - rises).mean(axis=2)
        misfit = ((log_p99 - rises - lows[:, :, None]) ** 2).sum(axis=2)
        place = np.unravel_index(misfit.argmin(), misfit.shape)
        return cls(
            capacity_rps * math.exp(CAPACITIES[place[0]]),
            math.exp(lows[place]),
            float(GROWTHS[place[1]]),
            *TWIN_SPREADS,
        )
