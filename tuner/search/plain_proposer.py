"""Proposals that learn nothing: what every other proposer has to beat. Pure."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from dlbench.tuner.search.proposal import EXHAUSTED, Done, tried

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.point import Point
    from dlbench.tuner.space import Space
    from dlbench.tuner.twin.predictions import Predictions


def random_choice(
    points: Sequence[Point],
    space: Space,
    seed: int,
    twin: Predictions | None = None,  # noqa: ARG001 - a proposer's arguments
    bounds_ms: Sequence[float] = (1000.0,),  # noqa: ARG001
) -> ServingConfig | Done:
    """Any of those left, each as likely as the other."""
    measured = tried(points)
    left = [config for config in space.configurations() if config not in measured]
    return random.Random(f"{seed}/{len(measured)}").choice(left) if left else EXHAUSTED


def grid(
    points: Sequence[Point],
    space: Space,
    seed: int,  # noqa: ARG001 - a proposer's arguments
    twin: Predictions | None = None,  # noqa: ARG001
    bounds_ms: Sequence[float] = (1000.0,),  # noqa: ARG001
) -> ServingConfig | Done:
    """The space from its first configuration to its last."""
    measured = tried(points)
    return next((c for c in space.configurations() if c not in measured), EXHAUSTED)
