"""What a measured rate will be in a few seconds: pure."""

from __future__ import annotations

from math import expm1


class HoltTrend:
    """Holt's double exponential smoothing: a level and its trend, from samples at any distance.

    C. Holt (1957), reprinted in Int. J. Forecasting 20 (2004) 5-10. For irregular samples, as in
    D. Wright, Management Science 32 (1986) 499-510, a sample's weight grows with the time since the
    one before it: 1 - (1 - alpha)^elapsed, here with alpha as time constants, `level_s` and
    `trend_s` in seconds.
    """

    def __init__(self, level_s: float, trend_s: float) -> None:
        self._level_s = level_s
        self._trend_s = trend_s
        self._level = 0.0
        self._trend = 0.0
        self._at_s: float | None = None

    def observe(self, at_s: float, value: float) -> None:
        """Take in a sample; the first one is the level, one that is not newer is ignored."""
        if self._at_s is None:
            self._at_s, self._level = at_s, value
        elif (elapsed := at_s - self._at_s) > 0:
            self._at_s = at_s
            self._follow(elapsed, value)

    def ahead(self, seconds: float) -> float:
        """The value expected `seconds` after the latest sample."""
        return self._level + seconds * self._trend

    def _follow(self, elapsed: float, value: float) -> None:
        before, expected = self._level, self.ahead(elapsed)
        self._level = expected - expm1(-elapsed / self._level_s) * (value - expected)
        slope = (self._level - before) / elapsed
        self._trend -= expm1(-elapsed / self._trend_s) * (slope - self._trend)
