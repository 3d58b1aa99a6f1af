"""What a study learnt beside its answer: how far the twin was off, and which knobs mattered. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dlbench.tuner.search.correction import Correction
from dlbench.tuner.search.importance import Importances, importances
from dlbench.tuner.search.twin_error import TwinError, twin_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.tuner.point import Point
    from dlbench.tuner.twin.predictions import Predictions


class Insight(NamedTuple):
    """`spread` is the standard deviation of log(measured / predicted capacity) over configurations.

    `error` and `spread` are None where too little was measured to tell. A twin that is `wrong`
    mistakes configurations for each other, beyond a common factor.
    """

    error: TwinError | None
    spread: float | None
    wrong: bool
    importances: Importances


def insight(points: Sequence[Point], predictions: Predictions) -> Insight:
    """Everything that was measured, held against everything that was predicted."""
    correction = Correction.of(points, predictions)
    error = twin_error(points, predictions)
    return Insight(error, correction.spread, correction.wrong, importances(correction))
