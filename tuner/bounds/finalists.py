"""Whom a study compares with the default in the end, and at which rates. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.tuner.bounds.decision import DEFAULT
from dlbench.tuner.bounds.placement import CAPACITY_MS, LEAST_SHARE, snapped
from dlbench.tuner.budget import ROUND_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlbench.tuner.bounds.rating import Rating

# Steps of the grid from R(B), by the round: the steep part of the curve tells most.
OFFSETS = ((0, -2), (-1, 1), (0, -3), (-1, 2))


def finalists(rated: Mapping[str, Rating], bounds_ms: Sequence[float], most: int) -> list[str]:
    """The default, and up to `most` that together take most over all bounds, by what is known so far."""
    chosen: list[Rating] = [rated[DEFAULT]] if DEFAULT in rated else []
    others = [r for name, r in rated.items() if name not in (DEFAULT, "naive")]
    found: list[str] = []
    while others and len(found) < most:
        pick = max(others, key=lambda r: (_gain(r, chosen, bounds_ms), _area(r, bounds_ms)))
        others.remove(pick)
        chosen.append(pick)
        found.append(pick.name)
    return [DEFAULT, *found] if DEFAULT in rated else found


def _gain(rating: Rating, chosen: Sequence[Rating], bounds_ms: Sequence[float]) -> float:
    """What the area under log B -> R(B) grows by."""
    return sum(
        max(0.0, rating.rate(b).rate_rps - max((c.rate(b).rate_rps for c in chosen), default=0.0))
        for b in bounds_ms
    )


def _area(rating: Rating, bounds_ms: Sequence[float]) -> float:
    return sum(rating.rate(b).rate_rps for b in bounds_ms)


def round_rates(
    rating: Rating, bounds_ms: Sequence[float], number: int, count: int = ROUND_WINDOWS
) -> tuple[float, ...]:
    """At which `count` rates a configuration is measured in round `number`, from 1; on the common grid."""
    offsets = OFFSETS[(number - 1) % len(OFFSETS)][:count]
    reachable = [b for b in bounds_ms if rating.rate(b).rate_rps > 0] or [max(bounds_ms)]
    first = count * (number - 1)
    least = LEAST_SHARE * rating.quantile_rps(CAPACITY_MS, 0.5)
    found: list[float] = []
    for place, steps in enumerate(offsets):
        bound_ms = reachable[::-1][(first + place) % len(reachable)]
        wanted = max(least, rating.rate(bound_ms).rate_rps)
        rate = snapped(wanted, steps if len(reachable) == 1 else 0)
        while rate in found:
            rate = snapped(rate, -1)
        found.append(rate)
    return tuple(found)
