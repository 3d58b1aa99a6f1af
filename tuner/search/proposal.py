"""What a proposer may say, and what every proposer has to know of the points. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.point import Point
    from dlbench.tuner.space import Space
    from dlbench.tuner.twin.predictions import Predictions


@dataclass(frozen=True)
class Done:
    """Nothing is left to propose; `reason` says why, for a person."""

    reason: str


EXHAUSTED = Done("every configuration of the space has been measured")


class Proposer(Protocol):
    """Names the next configuration; a pure function, so that a killed study resumes exactly.

    It stays inside the space, never names a configuration that has points, and ends with `Done`.
    `twin` is what is expected of every configuration, None where nothing is; `bounds_ms` those on p99
    within which the rate is to be as high as can be.
    """

    def __call__(
        self,
        points: Sequence[Point],
        space: Space,
        seed: int,
        twin: Predictions | None = None,
        bounds_ms: Sequence[float] = (1000.0,),
    ) -> ServingConfig | Done: ...


def tried(points: Sequence[Point]) -> dict[ServingConfig, list[Point]]:
    """Configuration -> its points, in the order in which the configurations were first measured."""
    found: dict[ServingConfig, list[Point]] = {}
    for point in points:
        found.setdefault(point.config, []).append(point)
    return found
