"""Values to run a model on when its value range is unknown: seeded, of several ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.tensors import Signature, TensorSpec

    Arrays = list[NDArray[Any]]
    Run = Callable[[Arrays], Arrays]

Range = tuple[float, float]

SIGNED, UNIT, ZERO, ONES = (-3, 3), (0, 1), (0, 0), (1, 2)
TENS, HUNDREDS = (10, 100), (100, 1000)
# As large as pixels and samples of sound are that nobody has scaled.
SIXTEEN_BITS = (30_000, 65_504)
# Of an input without a batch axis. None is 0, which a model may divide by.
SHARED = (1, 2)
# Tried in this order as the largest value of integers, which are mostly indices into something. No
# larger ones: what takes an integer as a size or a count would take them as well.
LARGEST = (10_000, 1000, 100, 10, 1)


class ProbeBatch(NamedTuple):
    """A batch of rows with values of one range, where some give way to others of other ranges."""

    rows: int
    kept: Range
    others: tuple[Range, ...]

    @property
    def cost(self) -> int:
        """Rows that are run in all: as they are, with others, elsewhere, and one alone."""
        return self.rows * (2 + len(self.others)) + 1


def trials(most_rows: int) -> list[ProbeBatch]:
    """Trials with batches of up to `most_rows` rows, at least 2; those that find most come first.

    Positive and negative, small and large meet each other, since a model may do something else for
    the whole batch when its largest, smallest or mean value passes a threshold.
    """
    most_rows = max(2, most_rows)
    return [
        ProbeBatch(2, SIGNED, (SIGNED, SIGNED)),
        ProbeBatch(most_rows, SIGNED, (SIGNED, TENS)),
        ProbeBatch(2, UNIT, (TENS, _negative(TENS), SIXTEEN_BITS, _negative(SIXTEEN_BITS))),
        ProbeBatch(2, HUNDREDS, (UNIT, (-1000, 1000))),
        ProbeBatch(2, _negative(HUNDREDS), (UNIT, UNIT)),
        ProbeBatch(2, ZERO, (UNIT, UNIT)),
        ProbeBatch(2, ONES, (ONES, TENS)),
        ProbeBatch(min(3, most_rows), SIGNED, (SIGNED, SIGNED)),
    ]


def _negative(positive: Range) -> Range:
    return -positive[1], -positive[0]


class Probes:
    """Makes inputs of a model for any number of rows."""

    def __init__(self, signature: Signature, one_row: Sequence[tuple[int, ...]], run: Run) -> None:
        """`one_row` holds the input shapes of one row that runs."""
        self._specs, self._shapes = signature.inputs, one_row
        ones = [np.ones(shape, s.numpy_type) for s, shape in zip(self._specs, one_row, strict=True)]
        self._bounds = [_bounds(spec, at, ones, run) for at, spec in enumerate(self._specs)]

    def draw(self, rows: int, values: Range, seed: Sequence[int]) -> Arrays:
        """So many rows; inputs without a batch axis are the same for every seed[0]."""
        return [
            self._values(at, rows, values, seed)
            if spec.batch_axis >= 0
            else self._values(at, rows, SHARED, seed[:1])
            for at, spec in enumerate(self._specs)
        ]

    def _values(self, at: int, rows: int, values: Range, seed: Sequence[int]) -> NDArray[Any]:
        spec, shape = self._specs[at], list(self._shapes[at])
        if spec.batch_axis >= 0:
            shape[spec.batch_axis] = rows
        drawn = np.random.default_rng([*seed, at]).uniform(*values, shape)
        if spec.datatype == "BOOL":
            return np.asarray(drawn > 0.5)
        if "INT" in spec.datatype:
            drawn = np.rint(np.clip(drawn, *self._bounds[at]))
        return np.asarray(drawn.astype(spec.numpy_type))


def _bounds(spec: TensorSpec, at: int, ones: Arrays, run: Run) -> Range:
    """The smallest and the largest of the integers tried that a model takes as this input."""

    def takes(value: int) -> bool:
        filled = [*ones[:at], np.full_like(ones[at], value), *ones[at + 1 :]]
        try:
            run(filled)
        except Exception:  # whatever a model says to an index out of range
            return False
        return True

    if "INT" not in spec.datatype or spec.batch_axis < 0:
        return SHARED
    limits = np.iinfo(spec.numpy_type)
    largest = next((n for n in LARGEST if takes(min(n, limits.max))), 1)
    smallest = next((n for n in (-largest, 0) if takes(max(n, limits.min))), 1)
    return max(smallest, limits.min), min(largest, limits.max)
