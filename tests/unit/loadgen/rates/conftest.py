"""A server whose curve is known, and windows of it."""

import math

import numpy as np
import pytest

from dlbench.loadgen.rates.curve import log_rise
from dlbench.loadgen.rates.prior import Prior
from dlbench.loadgen.rates.window import ClosedWindow, OpenWindow


class KnownServer:
    capacity_rps, low_ms, growth = 4000.0, 5.0, 1.0

    def p99_ms(self, rate_rps):
        load, growth = math.log(rate_rps / self.capacity_rps), math.log(self.growth)
        return self.low_ms * math.exp(log_rise(load, growth))

    def rate_rps(self, bound_ms):
        times = bound_ms / self.low_ms - 1
        return self.capacity_rps * times / (times + self.growth)

    def prior(self):
        """Wide, and beside the truth."""
        return Prior(1.2 * self.capacity_rps, 0.8 * self.low_ms, 1.5 * self.growth)

    def window(self, rate_rps, noise=0.0, **more):
        """As the curve has it, or saturated beyond it; `noise` is of ln p99."""
        if rate_rps >= self.capacity_rps:
            return OpenWindow(
                rate_rps, 5.0, saturated=True, completed_rps=self.capacity_rps, **more
            )
        return OpenWindow(rate_rps, 5.0, self.p99_ms(rate_rps) * math.exp(noise), **more)

    def windows(self, seed, count=8):
        """Two closed ones, and open ones all over the curve, each in a moment of its own."""
        rng = np.random.default_rng(seed)
        capacities = self.capacity_rps * np.exp(rng.normal(0, 0.05, 2))
        closed = [ClosedWindow(rps, 3.0, moment=-1 - i) for i, rps in enumerate(capacities)]
        rates = self.capacity_rps * rng.uniform(0.4, 0.95, count)
        noise = rng.normal(0, 0.25, count)
        return [*closed, *(self.window(r, noise[i], moment=i) for i, r in enumerate(rates))]


@pytest.fixture(scope="session")
def server():
    return KnownServer()
