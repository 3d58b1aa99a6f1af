"""Which class a request belongs to: drawn by weight, a pure function of seed and number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.schedule.popularity import CLASSES, Draws, drawn, shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Mix:
    """Classes 0, 1, … with these weights."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        cumulative = shares(np.array(weights, np.float64))
        self._draws = Draws(lambda block: drawn(cumulative, (seed, CLASSES, block)))

    def at(self, number: int) -> int:
        """The class of one request."""
        return self._draws[number]

    def of(self, numbers: NDArray[np.int64]) -> NDArray[np.int8]:
        """The classes of many."""
        return np.array([self._draws[number] for number in numbers.tolist()], np.int8)
