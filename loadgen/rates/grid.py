"""The points at which a server's curve is looked at, and a smaller grid about those that count.

The axes are not the curve's parameters but what windows tell apart: the rate at a pivot, a p99 in
the middle of what was seen; how far below it an empty server's p99 lies; and the growth. So what is
likely lies along the axes, and some thousand points are enough. A server that is faster for a
moment shifts its whole curve along the first axis.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from dlbench.loadgen.rates.curve import log_load

if TYPE_CHECKING:
    from dlbench.loadgen.rates.curve import Floats
    from dlbench.loadgen.rates.prior import Prior

Shape = tuple[int, int, int]

# Standard deviations of the prior that the first grid reaches.
REACH = 3.5
# Of each axis' mass so much may lie outside the next grid, at either end.
CUT_OFF = 1e-4
# An empty server's p99 is at least so far below the pivot.
LEAST_DEPTH = 0.05


class Grid(NamedTuple):
    """Evenly spaced points along three axes, all of them natural logarithms.

    `pivot`: a p99 in ms. `rate`: (n,) requests per second at it. `depth`: (m,) pivot over an empty
    server's p99. `growth`: (k,) as in `curve`.
    """

    pivot: float
    rate: Floats
    depth: Floats
    growth: Floats

    @classmethod
    def whole(cls, prior: Prior, pivot: float, shape: Shape) -> Self:
        """All that the prior does not exclude."""
        growth = _about(math.log(prior.growth), REACH * prior.growth_spread, shape[2])
        ends = _about(pivot - math.log(prior.low_ms), REACH * prior.low_spread, 2)
        shallow, deep = max(LEAST_DEPTH, ends[0]), max(2 * LEAST_DEPTH, ends[1])
        depth = np.linspace(shallow, deep, shape[1])
        slow, fast = _about(math.log(prior.capacity_rps), REACH * prior.capacity_spread, 2)
        slow += float(log_load(shallow, growth[-1]))
        return cls(pivot, np.linspace(slow, fast, shape[0]), depth, growth)

    @property
    def axes(self) -> tuple[Floats, Floats, Floats]:
        return self.rate, self.depth, self.growth

    @property
    def step(self) -> float:
        """Between two rates."""
        return float(self.rate[1] - self.rate[0])

    @property
    def loads(self) -> Floats:
        """(m, k): ln(rate / capacity) at the pivot."""
        return log_load(self.depth[:, None], self.growth)

    def narrowed(self, mass: Floats, shape: Shape) -> Grid:
        """Over what has mass (n, m, k), and a step more."""
        axes = []
        for number, (points, count) in enumerate(zip(self.axes, shape, strict=True)):
            below = np.cumsum(np.moveaxis(mass, number, 0).reshape(len(points), -1).sum(axis=1))
            first = max(0, int(np.searchsorted(below, CUT_OFF)) - 1)
            last = min(len(points) - 1, int(np.searchsorted(below, 1 - CUT_OFF)) + 1)
            axes.append(np.linspace(points[first], points[last], count))
        return Grid(self.pivot, *axes)


def _about(middle: float, reach: float, count: int) -> Floats:
    return np.linspace(middle - reach, middle + reach, count)
