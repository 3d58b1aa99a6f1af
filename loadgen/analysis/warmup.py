"""Where the warm-up of a latency series really ends. Pure; one opinion, never the only one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dlbench.loadgen.analysis.statistics import Floats

BATCH = 5


def mser5(values: Floats, most: float = 0.5) -> int:
    """How many of the first values to leave out, so that the mean of the rest is the surest.

    MSER-5: of all truncation points of the series of means of five, the one with the smallest
    squared standard error of what remains. Only the first share `most` is considered: in the second
    half the rule finds chance, and a result of half the series means that it never settled.
    (K. P. White, An effective truncation heuristic for bias reduction in simulation output,
    Simulation 69, 1997; with batches: K. P. White, M. J. Cobb, S. C. Spratt, WSC 2000.)
    """
    batches = len(values) // BATCH
    if batches < 2:
        return 0
    means = values[: batches * BATCH].reshape(batches, BATCH).mean(axis=1)
    # Sums from each point to the end; centred first, so that squares do not cancel.
    means = means - means.mean()
    left = np.arange(batches, 0, -1)
    totals, squares = means[::-1].cumsum()[::-1], (means**2)[::-1].cumsum()[::-1]
    spread = squares - totals**2 / left
    # What a constant rest leaves over is rounding.
    spread[spread <= 1e-12 * squares[0]] = 0.0
    errors = spread / left.astype(float) ** 2
    return int(errors[: int(batches * most) + 1].argmin()) * BATCH
