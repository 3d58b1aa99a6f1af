"""How much equal windows differ on a machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Seconds of a window, and by what share its p99 differs from an equal one's: measured on two cores.
DURATIONS_S = (2.0, 5.0, 10.0, 20.0)
P99_SHARES = (0.33, 0.27, 0.23, 0.17)


@dataclass(frozen=True)
class Noise:
    """Standard deviations of natural logarithms.

    `moment` is of the capacity between moments, `window` between the windows of one moment;
    `p99` scales what `p99_scale` says of a duration. Of all windows `disturbed_share` are disturbed
    without anybody noticing, and `noticed_share` of those of which it is said.
    """

    moment: float = 0.05
    window: float = 0.05
    p99: float = 0.75
    closed: float = 0.03
    disturbed_share: float = 0.05
    noticed_share: float = 0.7

    def p99_scale(self, duration_s: float) -> float:
        """Of a p99 over a window so long."""
        shares = np.interp(math.log(duration_s), np.log(DURATIONS_S), P99_SHARES)
        return self.p99 * float(shares)

    def background(self, disturbed: bool) -> float:
        """The probability that a window says nothing."""
        return self.noticed_share if disturbed else self.disturbed_share
