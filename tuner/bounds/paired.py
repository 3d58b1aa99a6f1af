"""How many times as much one configuration takes as another, from rounds in which they took turns. Pure.

A machine is faster in one moment than in the next, and both configurations of a round feel it. So
each window is read as the speed at which it was served, held against its own configuration's curve;
what the two differ by within a round is free of the moment, and how that varies from round to round
says how sure the ratio is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlbench.loadgen.analysis.statistics import t_quantile
from dlbench.loadgen.rates.curve import log_load, slope
from dlbench.loadgen.rates.noise import Noise
from dlbench.loadgen.rates.rate_at_bound import steps
from dlbench.loadgen.rates.window import ClosedWindow, OpenWindow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dlbench.loadgen.rates.posterior import Posterior
    from dlbench.loadgen.rates.window import Window
    from dlbench.tuner.bounds.rating import Rating

NOISE = Noise()
# Where a curve is flatter than this nothing is read off it.
LEAST_RISE, LEAST_SLOPE = 1e-2, 1e-2
# What the difference of two configurations in a round varies by where this was first measured; it
# stands for so many rounds until there are own ones.
USUAL, USUAL_ROUNDS = math.sqrt(2) * 0.05, 4


class Speed(NamedTuple):
    """ln of how fast a configuration was in a moment, over what its curve says; and the variance."""

    log: float
    variance: float


class Ratio(NamedTuple):
    """A ratio of two rates, and its 95 % interval."""

    value: float
    low: float
    high: float


class Point3(NamedTuple):
    """The posterior's mean: natural logarithms."""

    capacity: float
    low: float
    growth: float


def ratio(ours: Rating, theirs: Rating, bound_ms: float) -> Ratio | None:
    """R(B) of one over the other's; None where they share no round, or one cannot keep to B."""
    if ours.name == theirs.name:
        return Ratio(1.0, 1.0, 1.0)
    a, b = speeds(ours.posterior), speeds(theirs.posterior)
    apart = [a[m].log - b[m].log for m in sorted(a.keys() & b.keys())]
    rates = (ours.rate(bound_ms).rate_rps, theirs.rate(bound_ms).rate_rps)
    if not apart or not all(rates):
        return None
    middle = math.log(rates[0] / rates[1])
    shapes = _shape_variance(ours.posterior, bound_ms) + _shape_variance(theirs.posterior, bound_ms)
    freedom = USUAL_ROUNDS + len(apart) - 1
    half = t_quantile(0.975, freedom) * math.sqrt(_variance(apart) + shapes)
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def speeds(posterior: Posterior) -> dict[int, Speed]:
    """Moment -> the speed that its windows show together."""
    curve, found = _mean(posterior), defaultdict[int, list[Speed]](list)
    for window in posterior.windows:
        for speed in _speed(window, curve):
            found[window.moment].append(speed)
    return {moment: _together(own) for moment, own in found.items()}


def _speed(window: Window, curve: Point3) -> Iterator[Speed]:
    """One window's, none where it shows no more than that it is too slow."""
    if window.disturbed:
        return
    if isinstance(window, ClosedWindow):
        yield Speed(
            math.log(window.throughput_rps) - curve.capacity, NOISE.closed**2 + NOISE.window**2
        )
    elif window.saturated:
        if window.completed_rps:
            log = math.log(window.completed_rps) - curve.capacity
            yield Speed(log, NOISE.closed**2 + NOISE.window**2)
    elif window.p99_ms and not window.at_least:
        yield _open_speed(window, curve, math.log(window.p99_ms) - curve.low)


def _open_speed(window: OpenWindow, curve: Point3, rise: float) -> Speed:
    """On the steep part of the curve a p99 shows the speed well, on the flat one hardly."""
    offered = math.log(window.rate_rps) - curve.capacity
    load = log_load(max(rise, LEAST_RISE), curve.growth)
    spread = NOISE.p99_scale(window.duration_s) / max(float(slope(load, curve.growth)), LEAST_SLOPE)
    return Speed(offered - float(load), spread**2 + NOISE.window**2)


def _together(own: Sequence[Speed]) -> Speed:
    weights = np.array([1 / speed.variance for speed in own])
    return Speed(float(np.average([s.log for s in own], weights=weights)), float(1 / weights.sum()))


def _mean(posterior: Posterior) -> Point3:
    grid, mass = posterior.grid, posterior.mass
    capacity = float(((grid.rate[:, None, None] - grid.loads) * mass).sum())
    depth = float((grid.depth[:, None] * mass).sum())
    return Point3(capacity, grid.pivot - depth, float((grid.growth * mass).sum()))


def _variance(apart: Sequence[float]) -> float:
    """Of the mean of what the two differ by."""
    squares = float(np.sum((np.array(apart) - np.mean(apart)) ** 2))
    one = (USUAL_ROUNDS * USUAL**2 + squares) / (USUAL_ROUNDS + len(apart) - 1)
    return one / len(apart)


def _shape_variance(posterior: Posterior, bound_ms: float) -> float:
    """Of ln R(B) over the rate at the pivot: what no speed accounts for."""
    off, mass = steps(posterior, bound_ms), posterior.mass.sum(axis=0)
    kept = np.isfinite(off)
    off, mass = off[kept], mass[kept] / mass[kept].sum()
    return float(np.sum(mass * (off - np.sum(mass * off)) ** 2))
