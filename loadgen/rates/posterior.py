"""What windows say about a server's curve: its three parameters' posterior on a grid. Pure.

The noise of a window is how fast the machine was meanwhile: a convolution along the grid's first
axis. What the windows of a moment share is a sum over a few shifts of their product. A wide grid
shows where the mass is, and a finer one is laid over that.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.rates.grid import Grid, Shape
from dlbench.loadgen.rates.likelihood import likelihood
from dlbench.loadgen.rates.noise import Noise
from dlbench.loadgen.rates.window import OpenWindow, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.loadgen.rates.curve import Floats
    from dlbench.loadgen.rates.prior import Prior

# Points along the axes of the first grid and of those over what it left, as many as it takes: five
# times as many points changed no figure of benchmarks/simulated/rate_at_bound.py.
FIRST: Shape = (61, 9, 7)
NEXT: Shape = (41, 11, 7)
MOST_GRIDS = 4
FINE = 0.02  # steps of ln rate: well below what moments differ by
# The pivot lies above the lowest p99 that was seen by this factor, or where nothing was seen, above
# what is believed of an empty server.
PIVOT_RISE, BLIND_PIVOT_RISE = 1.5, 3.0
# Standard deviations that a kernel reaches; shifts of a moment, in either direction.
KERNEL_REACH, SHIFTS = 3.0, 3
LEAST_MASS = 1e-12


@dataclass(frozen=True, eq=False)
class Posterior:
    """`mass` has the grid's shape (rate, depth, growth) and the sum 1."""

    grid: Grid
    mass: Floats
    windows: tuple[Window, ...]


def infer(prior: Prior, windows: Sequence[Window], noise: Noise | None = None) -> Posterior:
    """The posterior of all windows together; their order does not matter."""
    noise = noise or Noise()
    grid = Grid.whole(prior, _pivot(prior, windows), FIRST)
    mass = _mass(grid, prior, windows, noise)
    for _ in range(MOST_GRIDS - 1):
        coarse, grid = grid, grid.narrowed(mass, NEXT)
        mass = _mass(grid, prior, windows, noise)
        if not FINE < grid.step < coarse.step:
            break
    return Posterior(grid, mass, tuple(windows))


def _pivot(prior: Prior, windows: Sequence[Window]) -> float:
    """The middle of the p99s that were seen, well above the lowest; a logarithm."""
    opened = [w for w in windows if isinstance(w, OpenWindow)]
    seen = [w.p99_ms for w in opened if w.p99_ms and not (w.failed or w.at_least)]
    if not seen:
        return math.log(BLIND_PIVOT_RISE * prior.low_ms)
    return math.log(max(float(np.median(seen)), PIVOT_RISE * min(seen)))


def _mass(grid: Grid, prior: Prior, windows: Sequence[Window], noise: Noise) -> Floats:
    """Prior times likelihood, of sum 1."""
    moments: defaultdict[int, list[Window]] = defaultdict(list)
    for window in windows:
        moments[window.moment].append(window)
    logs = _log_prior(grid, prior)
    for together in moments.values():
        logs = logs + np.log(_moment(grid, together, noise))
    mass = np.exp(logs - logs.max())
    whole: Floats = mass / mass.sum()
    return whole


def _log_prior(grid: Grid, prior: Prior) -> Floats:
    """From a curve's parameters to the grid's axes nothing is stretched: the determinant is 1."""
    capacity = grid.rate[:, None, None] - grid.loads - math.log(prior.capacity_rps)
    low = (grid.pivot - grid.depth - math.log(prior.low_ms))[:, None]
    growth = grid.growth - math.log(prior.growth)
    spreads = (prior.capacity_spread, prior.low_spread, prior.growth_spread)
    squares = [(x / sd) ** 2 for x, sd in zip((capacity, low, growth), spreads, strict=True)]
    return np.asarray(-0.5 * (squares[0] + squares[1] + squares[2]))


def _moment(grid: Grid, windows: Sequence[Window], noise: Noise) -> Floats:
    """Likelihood of windows that share how fast the machine was, summed over how fast that is."""
    if len(windows) == 1:
        alone = math.hypot(noise.window, noise.moment)
        return _window(grid, windows[0], noise, alone, 0)
    every = max(1, round(noise.moment / grid.step))
    product = np.array(1.0)
    for window in windows:
        product = product * _window(grid, window, noise, noise.window, every * SHIFTS)
    return _convolved(product, normal_masses(noise.moment, every * grid.step, SHIFTS), every)


def _window(grid: Grid, window: Window, noise: Noise, spread: float, pad: int) -> Floats:
    """(n + 2 pad, m, k): likelihoods also at rates `pad` steps beyond the grid's ends."""
    reach = max(1, math.ceil(KERNEL_REACH * spread / grid.step))
    steps = np.arange(-pad - reach, len(grid.rate) + pad + reach)
    exact = likelihood(grid, grid.rate[0] + grid.step * steps, window, noise)
    return _convolved(exact, normal_masses(spread, grid.step, reach), 1) + LEAST_MASS


@lru_cache(64)
def normal_masses(spread: float, step: float, reach: int) -> Floats:
    """(2 reach + 1,): what of a normal distribution lies about each of -reach ... reach steps."""
    edges = (np.arange(2 * reach + 2) - reach - 0.5) * step / (spread * math.sqrt(2))
    below = np.array([math.erf(edge) for edge in edges])
    masses: Floats = np.diff(below) / (below[-1] - below[0])
    return masses


def _convolved(values: Floats, kernel: Floats, every: int) -> Floats:
    """Along the first axis, with a kernel at every so-manieth step; its reach is cut off."""
    count = len(values) - every * (len(kernel) - 1)
    band = np.zeros((count, len(values)))
    places = np.arange(count)[:, None] + every * np.arange(len(kernel))
    np.put_along_axis(band, places, kernel[None, :], axis=1)
    return (band @ values.reshape(len(values), -1)).reshape(count, *values.shape[1:])
