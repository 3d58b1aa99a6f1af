"""Where the next window tells most of R(B). Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from dlbench.tuner.bounds.rating import Rating

# Rates stand on a grid of such steps, so that windows of two configurations meet on it.
STEP = 1.05
# Of R(B)'s posterior: the middle first, then on either side of it.
QUANTILES = (0.5, 0.3, 0.7)
# At any bound so high R(B) is the capacity.
CAPACITY_MS = 1e9
# No window is so close to nothing that a server with hardly any load is all it shows.
LEAST_SHARE = 0.2
# A configuration surely loses where not even this quantile of its R(B) comes so near to the best.
LUCKY, NEAR = 0.95, 0.97


def next_rate(rating: Rating, bounds_ms: Sequence[float], taken: Collection[float] = ()) -> float:
    """Requests/s, near R(B) of the bound of which least is known; never one that is `taken`."""
    number = len(rating.opened)
    least = LEAST_SHARE * rating.quantile_rps(CAPACITY_MS, 0.5)
    bound_ms = max(bounds_ms, key=lambda b: _unknown(rating, b))
    wanted = max(least, rating.quantile_rps(bound_ms, QUANTILES[number % len(QUANTILES)]))
    return free(wanted, taken)


def _unknown(rating: Rating, bound_ms: float) -> tuple[bool, float]:
    """How little is known of a bound: one that can hardly be kept to is not looked at first."""
    found = rating.rate(bound_ms)
    if not found.rate_rps:
        return False, -bound_ms
    return True, math.log(found.high_rps / max(found.low_rps, found.rate_rps / 10))


def snapped(rate: float, steps: int = 0) -> float:
    """The nearest rate of the grid, or one so many steps from it."""
    return STEP ** (round(math.log(rate, STEP)) + steps)


def free(rate: float, taken: Collection[float]) -> float:
    """The nearest rate of the grid that is not taken."""
    places = {round(math.log(other, STEP)) for other in taken}
    here = math.log(rate, STEP)
    offsets = sorted(
        range(-len(places) - 1, len(places) + 2), key=lambda k: abs(round(here) + k - here)
    )
    return next(snapped(rate, k) for k in offsets if round(here) + k not in places)


def surely_loses(rating: Rating, best: Mapping[float, Rating], bounds_ms: Sequence[float]) -> bool:
    """Whether a configuration is worse than the best known one at every bound."""
    rivals = {b: r for b, r in best.items() if r.name != rating.name and b in bounds_ms}
    return (
        bool(rivals)
        and all(
            rating.quantile_rps(b, LUCKY) < NEAR * rival.rate(b).rate_rps
            for b, rival in rivals.items()
        )
        and all(b in rivals for b in best)
    )
