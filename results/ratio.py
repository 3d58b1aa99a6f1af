"""How many times as much: a ratio of two measured figures, with its interval. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple


class Estimated(NamedTuple):
    """A positive value and its 95 % interval, None where that is undetermined."""

    value: float
    low: float | None
    high: float | None

    @property
    def holds_one(self) -> bool:
        """Whether it may be that nothing differs."""
        return self.low is None or self.high is None or self.low <= 1 <= self.high


def ratio(ours: Estimated, theirs: Estimated) -> Estimated:
    """`ours` over `theirs`, its interval made of theirs as for two independent figures.

    The method of variance estimates recovery on the log scale: each side adds the square of its
    own distance, so intervals may be lopsided (G. Y. Zou, A. Donner, Construction of confidence
    limits about effect measures: a general approach, Statistics in Medicine 27, 2008, equation 7).
    What the rounds of interleaved repeats have in common makes the truth narrower than this.
    """
    value = ours.value / theirs.value
    below, above = _distances(ours)
    their_below, their_above = _distances(theirs)
    if math.isnan(below) or math.isnan(their_below):
        return Estimated(value, None, None)
    low = value * math.exp(-math.hypot(below, their_above))
    return Estimated(value, low, value * math.exp(math.hypot(above, their_below)))


def _distances(figure: Estimated) -> tuple[float, float]:
    """From the value to both ends, as logarithms; an interval down to 0 is as good as none."""
    if not figure.low or figure.high is None:
        return math.nan, math.nan
    return math.log(figure.value / figure.low), math.log(figure.high / figure.value)
