"""Which of N inputs the next request carries: popularity after Zipf's law, pure and seeded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Drawn ahead at a time: large enough to be cheap, small enough (0.2 ms) not to delay a request.
BLOCK = 4096


def weights(distinct: int, exponent: float) -> NDArray[np.float64]:
    """Probability of each rank: proportional to 1 / rank^exponent; exponent 0: all alike."""
    unnormalised = np.arange(1, distinct + 1, dtype=np.float64) ** -exponent
    total: NDArray[np.float64] = unnormalised / unnormalised.sum()
    return total


def ranks(distinct: int, exponent: float, seed: int) -> Iterator[int]:
    """Endless draws of 0..distinct-1 by inverting the cumulative distribution."""
    cumulative = np.cumsum(weights(distinct, exponent))
    # Rounding leaves the last value a hair below 1, and a draw above it would be out of range.
    cumulative[-1] = 1.0
    rng = np.random.default_rng(seed)
    while True:
        yield from np.searchsorted(cumulative, rng.random(BLOCK), side="right").tolist()
