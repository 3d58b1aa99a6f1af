"""How likely what a window showed is, at each point of a grid. Pure.

What is expected may be wrong by chance, and then as Student's distribution with three degrees of
freedom has it: one odd window moves little. Or the window was disturbed: then the server was slower
by some factor up to twenty, no one likelier than another, and the window tells nothing but that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.rates.curve import log_rise
from dlbench.loadgen.rates.window import OpenWindow

if TYPE_CHECKING:
    from dlbench.loadgen.rates.curve import Floats
    from dlbench.loadgen.rates.grid import Grid
    from dlbench.loadgen.rates.noise import Noise
    from dlbench.loadgen.rates.window import ClosedWindow, Window

# Real curves are not of the family: ln p99 is off by so much besides what chance does.
MISFIT = 0.1
# A server is called saturated about its capacity: this is how sharp that is, in ln rate.
SATURATION_SPREAD = 0.02
# A window of n requests has the p99 that an endless one has at a rate lower by this / sqrt(n): the
# rare long queues are missing from most short ones. Simulated M/M/1 at loads of 0.5 to 0.95: with
# 300, 1,000, 3,000, 10,000 and 30,000 requests the rate seems higher by 11, 6, 3, 1 and 0.6 %.
SHORTNESS = 1.6
# Density of ln(how much slower a disturbed window is), between 0 and 3. EITHER: whether or not.
SLOWER = 1 / 3
EITHER = 0.5
# Of Student's distribution at its middle.
STUDENT_3 = 2 / (math.pi * math.sqrt(3))


def likelihood(grid: Grid, rates: Floats, window: Window, noise: Noise) -> Floats:
    """(len(rates), m, k): if the rate at the grid's pivot, in ln, were each of `rates` meanwhile."""
    capacities = rates[:, None, None] - grid.loads
    if isinstance(window, OpenWindow):
        told, blind = _open(grid, capacities, window, noise)
    else:
        told, blind = _closed(capacities, window, noise)
    disturbed = noise.background(window.disturbed)
    found: Floats = (1 - disturbed) * told + disturbed * blind
    return found


def _closed(
    capacities: Floats, window: ClosedWindow, noise: Noise
) -> tuple[Floats, Floats | float]:
    """Its throughput is the capacity, but for its length and its users."""
    over = math.log(window.throughput_rps) - capacities
    return student(over, noise.closed), np.where(over < 0, SLOWER, 0.0)


def _open(
    grid: Grid, capacities: Floats, window: OpenWindow, noise: Noise
) -> tuple[Floats, Floats | float]:
    loads = math.log(window.rate_rps) - capacities
    saturated = 1 / (1 + np.exp(np.clip(-loads / SATURATION_SPREAD, -30, 30)))
    if not window.failed:
        told, blind = _p99(grid, loads, window, noise)
        return (1 - saturated) * told, blind
    if not window.completed_rps:
        return saturated, EITHER
    over = math.log(window.completed_rps) - capacities
    return saturated * student(over, noise.closed), SLOWER


def _p99(
    grid: Grid, loads: Floats, window: OpenWindow, noise: Noise
) -> tuple[Floats | float, Floats | float]:
    if window.p99_ms is None:
        return 1.0, EITHER
    shortness = SHORTNESS / math.sqrt(max(1.0, window.rate_rps * window.duration_s))
    rises = log_rise(loads - shortness, grid.growth)
    expected = grid.pivot - grid.depth[:, None] + rises
    over = math.log(window.p99_ms) - expected
    scale = math.hypot(noise.p99_scale(window.duration_s), MISFIT)
    if window.at_least:
        return student_above(over, scale), EITHER
    return student(over, scale), np.where(over > 0, SLOWER, 0.0)


def student(off: Floats, scale: float) -> Floats:
    """Student's density with three degrees of freedom."""
    found: Floats = STUDENT_3 / scale / (1 + (off / scale) ** 2 / 3) ** 2
    return found


def student_above(off: Floats, scale: float) -> Floats:
    """Its probability above."""
    x = off / (scale * math.sqrt(3))
    found: Floats = 0.5 - (x / (1 + x**2) + np.arctan(x)) / math.pi
    return found
