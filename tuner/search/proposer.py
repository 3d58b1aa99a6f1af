"""The proposers by name: which configuration to measure next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.tuner.search.plain_proposer import grid, random_choice
from dlbench.tuner.search.sampled_proposer import nsga2, tpe
from dlbench.tuner.search.twin_proposer import twin_guided

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlbench.tuner.search.proposal import Proposer

PROPOSERS: Mapping[str, Proposer] = {
    "twin": twin_guided,
    "tpe": tpe,
    "nsga2": nsga2,
    "random": random_choice,
    "grid": grid,
}
