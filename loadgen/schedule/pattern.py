"""How the rate changes during a run: cumulative rates with exact inverses. Pure.

A pattern is one cycle of pieces in which the rate changes linearly, repeated for as long as the
run lasts; the warm-up before it has the rate with which the pattern begins.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from dlbench.loadgen.profile import LoadProfile

# Chords of a cosine are off by at most (2π/n)²/8 of its amplitude: 1.2e-6 of it. Over whole days
# their integral is exact.
PIECES_OF_A_DAY = 2048


class Piece(NamedTuple):
    """A part of a cycle in which the rate (requests/s) goes straight from one value to another."""

    seconds: float
    rate: float
    rate_to: float


def spike_at_s(profile: LoadProfile) -> float:
    """When the spike begins, from the start of the pattern: as stated, or in the middle."""
    return profile.duration_s / 2 if profile.spike_at_s is None else profile.spike_at_s


def period_s(profile: LoadProfile) -> float:
    """The length of a day: as stated, or the whole duration."""
    return profile.duration_s if profile.period_s is None else profile.period_s


def steady(rate: float, _rate_to: float, profile: LoadProfile) -> list[Piece]:
    """The same rate all the time."""
    return [Piece(profile.duration_s, rate, rate)]


def steps(rate: float, rate_to: float, profile: LoadProfile) -> list[Piece]:
    """Steps of equal height and length; the first has `rate`, the last `rate_to`."""
    seconds = profile.duration_s / profile.steps
    return [Piece(seconds, step, step) for step in np.linspace(rate, rate_to, profile.steps)]


def ramp(rate: float, rate_to: float, profile: LoadProfile) -> list[Piece]:
    """A rate that changes linearly from beginning to end."""
    return [Piece(profile.duration_s, rate, rate_to)]


def spike(rate: float, rate_to: float, profile: LoadProfile) -> list[Piece]:
    """`rate_to` for a while, `rate` before and after; what extends beyond the end is cut."""
    start, end = spike_at_s(profile), spike_at_s(profile) + profile.spike_s
    bounds = np.minimum([0.0, start, end, np.inf], profile.duration_s)
    rates = (rate, rate_to, rate)
    return [Piece(s, r, r) for s, r in zip(np.diff(bounds), rates, strict=True) if s > 0]


def diurnal(rate: float, rate_to: float, profile: LoadProfile) -> list[Piece]:
    """One day: a cosine from `rate` (night) to `rate_to` (noon) and back, in straight pieces."""
    noon = (1 - np.cos(np.linspace(0, 2 * np.pi, PIECES_OF_A_DAY + 1))) / 2
    rates = rate + (rate_to - rate) * noon
    seconds = period_s(profile) / PIECES_OF_A_DAY
    return [Piece(seconds, *ends) for ends in pairwise(rates)]


class Pattern(NamedTuple):
    """One cycle of a profile's rate, and how to say it."""

    cycle: Callable[[float, float, LoadProfile], list[Piece]]
    words: str


PATTERNS = {
    "steady": Pattern(steady, "{0.rate:,.7g}/s"),
    "steps": Pattern(steps, "{0.steps} steps from {0.rate:,.7g}/s to {0.rate_to:,.7g}/s"),
    "ramp": Pattern(ramp, "ramp from {0.rate:,.7g}/s to {0.rate_to:,.7g}/s"),
    "spike": Pattern(
        spike,
        "{0.rate:,.7g}/s with a spike of {0.rate_to:,.7g}/s for {0.spike_s:g} s after {at_s:g} s",
    ),
    "diurnal": Pattern(
        diurnal, "diurnal between {0.rate:,.7g}/s and {0.rate_to:,.7g}/s, period {day_s:g} s"
    ),
}


def words(profile: LoadProfile) -> str:
    """The pattern in plain words: "ramp from 100/s to 2,000/s"."""
    text = PATTERNS[profile.pattern].words
    return text.format(profile, at_s=spike_at_s(profile), day_s=period_s(profile))


class CumulativeRate:
    """How many requests are meant by a time (s from the start of the run), and the inverse.

    Exact up to rounding, under 1e-8 s: in a piece the cumulative rate is a parabola, whose inverse
    is taken in the form without cancellation. More only where a rate is 1e6 times smaller than
    the largest of the run: 2e-16·(total/rate) s.
    """

    def __init__(self, profile: LoadProfile) -> None:
        """Raises ValueError for a profile without a rate, which has no pattern."""
        if profile.rate is None:
            raise ValueError("a pattern needs a rate; drop trace or users")
        rate_to = profile.rate if profile.rate_to is None else profile.rate_to
        pieces = PATTERNS[profile.pattern].cycle(profile.rate, rate_to, profile)
        lengths, self._rates, ends = np.array(pieces, np.float64).T
        self._slopes = (ends - self._rates) / lengths
        self._knots_s = np.concatenate(([0.0], np.cumsum(lengths)))
        self._counts = np.concatenate(([0.0], np.cumsum(lengths * (self._rates + ends) / 2)))
        self._warmup_s, self._warmup_rate = profile.warmup_s, self._rates[0]
        self.total = float(self.at(profile.warmup_s + profile.duration_s))

    def at(self, seconds: ArrayLike) -> NDArray[np.float64]:
        """The integral of the rate from the start of the run."""
        times = np.asarray(seconds, np.float64) - self._warmup_s
        cycles, rest = np.divmod(times, self._knots_s[-1])
        piece = self._piece(self._knots_s, rest)
        rest -= self._knots_s[piece]
        risen = self._counts[piece] + rest * (self._rates[piece] + self._slopes[piece] * rest / 2)
        after = cycles * self._counts[-1] + risen
        counts: NDArray[np.float64] = np.where(times < 0, times * self._warmup_rate, after)
        counts += self._warmup_s * self._warmup_rate
        return counts

    def inverse(self, counts: ArrayLike) -> NDArray[np.float64]:
        """The times (s) at which these numbers of requests are due."""
        meant = np.asarray(counts, np.float64) - self._warmup_s * self._warmup_rate
        cycles, rest = np.divmod(meant, self._counts[-1])
        piece = self._piece(self._counts, rest)
        rest -= self._counts[piece]
        rates = self._rates[piece]
        ends = np.sqrt(np.maximum(rates * rates + 2 * self._slopes[piece] * rest, 0.0))
        after = cycles * self._knots_s[-1] + self._knots_s[piece] + 2 * rest / (rates + ends)
        times: NDArray[np.float64] = np.where(meant < 0, meant / self._warmup_rate, after)
        times += self._warmup_s
        return times

    def _piece(self, bounds: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.intp]:
        return np.searchsorted(bounds[1:-1], values, side="right")
