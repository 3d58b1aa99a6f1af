"""How far the twin was off, compared with everything that was measured. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dlbench.tuner.point import Point
    from dlbench.tuner.twin.predictions import Predictions

    # What it is of, and ln(measured / predicted).
    Error = tuple[object, float]


class Off(NamedTuple):
    """Errors, exp|ln(measured / predicted)| - 1: 0.1 is 10 % too much or as far too little.

    What equal measurements differ by is among them, so a perfect twin is not at 0.
    """

    median: float
    p90: float
    compared: int


class TwinError(NamedTuple):
    """Of the capacities that probes found, and of the p99s at the very rates that were offered."""

    throughput: Off
    p99: Off


def twin_error(points: Sequence[Point], predictions: Predictions) -> TwinError | None:
    """The twin's errors over all operating points, None where there is nothing to compare.

    Repeats of the same point count as one, at the mean of their logarithms.
    """
    known = [p for p in points if p.config in predictions.rows]
    throughput, p99 = _off(_capacities(known, predictions)), _off(_p99s(known, predictions))
    return TwinError(throughput, p99) if throughput and p99 else None


def _capacities(points: Iterable[Point], predictions: Predictions) -> Iterator[Error]:
    for p in points:
        if p.share is None and p.measurement and p.measurement.throughput_rps:
            predicted = predictions.capacity_rps[predictions.rows[p.config]]
            yield p.config, math.log(p.measurement.throughput_rps / predicted)


def _p99s(points: Iterable[Point], predictions: Predictions) -> Iterator[Error]:
    """Beyond what is predicted to be the capacity, the highest load that has a p99 stands in."""
    for p in points:
        if p.share is not None and p.measurement and p.outcome:
            row = predictions.rows[p.config]
            rate = p.measurement.offered_rps or p.measurement.throughput_rps
            predicted = predictions.log_p99_at(row, rate / float(predictions.capacity_rps[row]))
            yield (p.config, p.share), math.log(p.outcome.p99_ms) - predicted


def _off(errors: Iterable[Error]) -> Off | None:
    own: dict[object, list[float]] = defaultdict(list)
    for of, error in errors:
        own[of].append(error)
    if not own:
        return None
    sizes = [math.expm1(abs(float(np.mean(repeats)))) for repeats in own.values()]
    return Off(float(np.median(sizes)), float(np.quantile(sizes, 0.9)), len(sizes))
