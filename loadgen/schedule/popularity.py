"""Which input a request carries: popularity after Zipf's law, with churn. Pure, seeded, by number."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# Drawn at a time: large enough to be cheap, small enough (0.1 ms) not to delay a request.
BLOCK_BITS = 10
BLOCK = 1 << BLOCK_BITS
# Numbers that are in flight are not far from each other.
BLOCKS_KEPT = 64
# Seeds of what is drawn, so that the draws are independent of each other.
POPULARITY, CHURN, CLASSES = range(3)


class Draws:
    """A function of the request's number, computed a block at a time and remembered for a while."""

    def __init__(self, draw: Callable[[int], list[int]]) -> None:
        self._block = lru_cache(BLOCKS_KEPT)(draw)

    def __getitem__(self, number: int) -> int:
        return self._block(number >> BLOCK_BITS)[number & (BLOCK - 1)]


def shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative probabilities, for `drawn`."""
    cumulative: NDArray[np.float64] = np.cumsum(weights / weights.sum())
    # Rounding leaves the last value a hair below 1, and a draw above it would be out of range.
    cumulative[-1] = 1.0
    return cumulative


def drawn(cumulative: NDArray[np.float64], seed: tuple[int, ...]) -> list[int]:
    """A block of draws by inverting the cumulative distribution."""
    rng = np.random.default_rng(seed)
    found: list[int] = np.searchsorted(cumulative, rng.random(BLOCK), side="right").tolist()
    return found


def weights(distinct: int, exponent: float) -> NDArray[np.float64]:
    """Probability of each rank: proportional to 1 / rank^exponent; exponent 0: all alike."""
    unnormalised = np.arange(1, distinct + 1, dtype=np.float64) ** -exponent
    total: NDArray[np.float64] = unnormalised / unnormalised.sum()
    return total


def ranks(distinct: int, exponent: float, seed: int) -> Draws:
    """Draws of 0..distinct-1 by popularity."""
    cumulative = shares(weights(distinct, exponent))
    return Draws(lambda block: drawn(cumulative, (seed, POPULARITY, block)))


def churning(distinct: int, exponent: float, seed: int, churn: float) -> Draws:
    """Draws by popularity; with probability `churn` a request replaces the input that it draws.

    The new input is `distinct` plus the request's number, and has its predecessor's popularity
    until it is replaced as well.
    """
    return Draws(_Churn(distinct, exponent, seed, churn).block)


class _Churn:
    """Which input holds which rank, block by block; going back starts over."""

    def __init__(self, distinct: int, exponent: float, seed: int, churn: float) -> None:
        self._cumulative = shares(weights(distinct, exponent))
        self._distinct, self._seed, self._churn = distinct, seed, churn
        self._restart()

    def _restart(self) -> None:
        self._next = 0
        self._holders = list(range(self._distinct))

    def block(self, block: int) -> list[int]:
        if block < self._next:
            self._restart()
        while self._next < block:
            self._advance()
        return self._advance()

    def _advance(self) -> list[int]:
        block, holders = self._next, self._holders
        found = drawn(self._cumulative, (self._seed, POPULARITY, block))
        replaces = np.random.default_rng((self._seed, CHURN, block)).random(BLOCK) < self._churn
        first_new = self._distinct + (block << BLOCK_BITS)
        for offset, (rank, is_new) in enumerate(zip(found, replaces.tolist(), strict=True)):
            if is_new:
                holders[rank] = first_new + offset
            found[offset] = holders[rank]
        self._next = block + 1
        return found
