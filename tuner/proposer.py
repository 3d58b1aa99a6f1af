"""The proposers by name: which configuration to measure next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.tuner.plain_proposer import grid, random_choice
from dlbench.tuner.proposal import Done
from dlbench.tuner.sampled_proposer import nsga2, tpe
from dlbench.tuner.twin_proposer import twin_guided

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.point import Point
    from dlbench.tuner.proposal import Proposer
    from dlbench.tuner.space import Space

PROPOSERS: Mapping[str, Proposer] = {
    "twin": twin_guided,
    "tpe": tpe,
    "nsga2": nsga2,
    "random": random_choice,
    "grid": grid,
}


def propose(
    points: Sequence[Point], space: Space, seed: int, reference_ms: float = 1000.0
) -> ServingConfig | None:
    """What a study without predictions measures next, None when there is nothing left."""
    found = PROPOSERS["twin"](points, space, seed, None, reference_ms)
    return None if isinstance(found, Done) else found
