"""Which knobs mattered: how much of what configurations differ by comes from each alone. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlbench.proxy.knob import KNOBS
from dlbench.tuner.space import MOOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.search.correction import Correction

    Vector = NDArray[np.float64]
    Columns = Mapping[str, NDArray[np.object_]]

# Below this variance of a logarithm (1 % either way) all configurations are as good as equal.
LEAST_VARIANCE = 1e-4


class Importances(NamedTuple):
    """Knob -> share 0..1 of the variance that it causes alone, the largest first.

    Of the logarithms of capacity and of p99 at a middle load. What is left to 1 comes of knobs
    acting together; empty where configurations hardly differ.
    """

    capacity: dict[str, float]
    p99: dict[str, float]


def importances(correction: Correction) -> Importances:
    """The main effects of every searched knob on what is expected of the whole space."""
    twin = correction.predictions
    rows = twin.searched
    throughput, p99 = (np.log(curves[rows]) for curves in correction.curves())
    middle = (len(twin.shares) - 1) // 2
    columns = _columns([twin.configs[row] for row in rows])
    found = (main_effects(columns, values[:, middle]) for values in (throughput, p99))
    return Importances(*found)


def main_effects(columns: Columns, values: Vector) -> dict[str, float]:
    """Knob -> variance of the mean over everything else, as a share of the whole variance.

    Functional ANOVA (F. Hutter, H. Hoos, K. Leyton-Brown, An Efficient Approach for Assessing
    Hyperparameter Importance, ICML 2014, equations 1 to 5), but exact: the whole grid is known. A
    configuration whose knob cannot matter stands for every value of it, so that no knob is
    credited with what the one does that makes it matter. What was left out as infeasible is
    missing from the means.
    """
    moot = _moot(columns)
    counts = {knob: len(set(column)) for knob, column in columns.items()}
    weights = np.ones(len(values))
    for knob, idle in moot.items():
        weights[idle] *= counts[knob]
    if not len(values) or (total := _variance(values, weights)) < LEAST_VARIANCE:
        return {}
    shares = {
        knob: _of_means(column, moot.get(knob), values, weights) / total
        for knob, column in columns.items()
    }
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _columns(configs: Sequence[ServingConfig]) -> dict[str, NDArray[np.object_]]:
    """Every knob that has more than one value among these configurations."""
    found = {knob: [getattr(c, knob) for c in configs] for knob in KNOBS}
    return {k: np.array(own, object) for k, own in found.items() if len(set(own)) > 1}


def _moot(columns: Columns) -> dict[str, NDArray[np.bool_]]:
    """Knob -> where it cannot matter."""
    return {
        knob: np.equal(columns[other], value)
        for knob, other, value in MOOT
        if knob in columns and other in columns
    }


def _of_means(
    column: NDArray[np.object_], idle: NDArray[np.bool_] | None, values: Vector, weights: Vector
) -> float:
    """Variance of the means over a knob's values."""
    own = [column == value for value in sorted(set(column))]
    idle = np.zeros(len(values), bool) if idle is None else idle
    spread = np.where(idle, weights / len(own), weights)
    parts = [spread * (mine | idle) for mine in own]
    means = np.array([np.average(values, weights=part) for part in parts])
    return _variance(means, np.array([part.sum() for part in parts]))


def _variance(values: Vector, weights: Vector) -> float:
    mean = np.average(values, weights=weights)
    return float(np.average((values - mean) ** 2, weights=weights))
