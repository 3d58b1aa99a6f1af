"""What the twin expects of every configuration worth measuring, as arrays. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.space import Space

    Vector = NDArray[np.float64]
    Matrix = NDArray[np.float64]

# A load that comes out above this share of capacity is predicted as if it were this one.
MOST_LOAD = 0.97


@dataclass(frozen=True)
class Predictions:
    """One row per configuration, which may also be one outside the space, a baseline.

    `capacity_rps` (n,), `p99_ms` (n, s) at the rising `shares` (s,) of capacity, `knobs` (n, d) the
    configurations as coordinates in 0..1, `searched` (m,) the rows of those inside the space.
    """

    configs: tuple[ServingConfig, ...]
    shares: Vector
    capacity_rps: Vector
    p99_ms: Matrix
    knobs: Matrix
    searched: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        space: Space,
        configs: Sequence[ServingConfig],
        shares: Sequence[float],
        capacity_rps: Vector,
        p99_ms: Matrix,
    ) -> Self:
        """The predictions of these configurations, row by row.

        Raises:
            ValueError: the shapes do not fit, or a prediction is not a finite number over 0.
        """
        if capacity_rps.shape != (len(configs),) or p99_ms.shape != (len(configs), len(shares)):
            raise ValueError("one capacity and one p99 per share for every configuration")
        for values in (capacity_rps, p99_ms):
            if not np.all(np.isfinite(values) & (values > 0)):
                raise ValueError("predictions have to be finite and over 0")
        knobs = coordinates(space, configs)
        searched = np.flatnonzero([inside(space, config) for config in configs])
        rising = np.asarray(shares, float)
        return cls(tuple(configs), rising, capacity_rps, p99_ms, knobs, searched)

    @cached_property
    def rows(self) -> dict[ServingConfig, int]:
        """Configuration -> its row."""
        return {config: row for row, config in enumerate(self.configs)}

    @cached_property
    def log_p99(self) -> Matrix:
        """Natural logarithms of `p99_ms`."""
        return np.log(self.p99_ms)

    def log_p99_at(self, row: int, share: float) -> float:
        """Natural logarithm of one configuration's p99 at any load.

        Linear in -ln(1 - share), since waiting grows as 1 / (1 - share); beyond the highest load
        along the last slope.
        """
        x = -np.log1p(-self.shares)
        y = self.log_p99[row]
        at = -np.log1p(-min(max(share, 0.0), MOST_LOAD))
        if at <= x[-1] or len(x) == 1:
            return float(np.interp(at, x, y))
        return float(y[-1] + (y[-1] - y[-2]) / (x[-1] - x[-2]) * (at - x[-1]))


def inside(space: Space, config: ServingConfig) -> bool:
    """Whether a configuration is one that the space would name."""
    choice = {knob: getattr(config, knob) for knob in space.values}
    known = all(value in space.values[knob] for knob, value in choice.items())
    return known and space.sensible(config) and space.configuration(choice) == config


def coordinates(space: Space, configs: Sequence[ServingConfig]) -> Matrix:
    """Configurations as points (n, d): numbers by rank (their steps are geometric), names apart."""
    columns: list[Vector] = []
    for knob, values in space.values.items():
        own = [getattr(config, knob) for config in configs]
        columns += _named(values, own) if isinstance(values[0], str) else [_ranked(values, own)]
    return np.stack(columns, axis=1) if columns else np.zeros((len(configs), 0))


def _ranked(values: Sequence[float], own: Sequence[float]) -> Vector:
    return np.interp(own, values, np.linspace(0, 1, len(values)))


def _named(values: Sequence[Any], own: Sequence[Any]) -> list[Vector]:
    """One coordinate per name, scaled so that two different names are a distance of 1 apart."""
    return [np.array([value == name for value in own]) / np.sqrt(2) for name in values]
