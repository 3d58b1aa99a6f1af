"""Which configuration is best within each bound, and which one is recommended. Pure.

The printed rule: of what takes at least as much as the default, side by side with it, the one that
takes most; without a bound the one whose worst shortfall over all bounds is least.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import geometric_mean
from typing import TYPE_CHECKING

from dlbench.proxy.config import ServingConfig  # noqa: TC001 - pydantic has to know it at run time
from dlbench.tuner.bounds.paired import ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlbench.tuner.bounds.paired import Ratio
    from dlbench.tuner.bounds.rating import Rating

DEFAULT = "default"
# Side by side, the lower end of the ratio to the default may be so much under 1.
NO_WORSE = 0.97
# The default is the best found where nothing measured may be more than this over it.
NO_BETTER = 1.05
# Within what bound to quote a configuration, where none was asked for: the lowest one at which it
# takes so much of what it takes within the highest.
QUOTED_SHARE = 0.8


@dataclass(frozen=True)
class BoundRow:
    """What is best within a bound on p99. Rates in requests/s, each with a 95 % interval.

    `ratio` is over the default, from the rounds in which both took turns; None where the two were
    not compared. `decided`: the interval of the ratio tells which is better. `measured`: windows
    were open at rates as high; beyond them a rate is what the curve lets expect.
    """

    p99_ms: float
    configuration: str
    config: ServingConfig
    rate_rps: float
    low_rps: float
    high_rps: float
    default_rps: float | None
    default_low_rps: float | None
    default_high_rps: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    decided: bool
    measured: bool

    @property
    def is_default(self) -> bool:
        """Whether nothing else is better."""
        return self.configuration == DEFAULT

    @property
    def proved(self) -> bool:
        """Whether it is surely no worse than the default, at a rate that was measured."""
        return self.measured and self.ratio_low is not None and self.ratio_low >= NO_WORSE


def bound_rows(rated: Mapping[str, Rating], bounds_ms: Sequence[float]) -> tuple[BoundRow, ...]:
    """The best within each bound, the lowest first; bounds that nobody keeps to are left out."""
    bounds = sorted(bounds_ms) if rated else []
    found = (row_of(rated, best_within(rated, b), b) for b in bounds)
    return tuple(row for row in found if row.rate_rps > 0)


def best_within(rated: Mapping[str, Rating], bound_ms: float) -> Rating:
    """Who takes most, of those that are surely no worse than the default; of equals the default."""
    able = [r for r in rated.values() if no_worse(r, rated, (bound_ms,))] or list(rated.values())
    return max(able, key=lambda r: (r.rate(bound_ms).rate_rps, r.name == DEFAULT))


def balanced(rated: Mapping[str, Rating], bounds_ms: Sequence[float]) -> Rating:
    """Whose worst shortfall over all bounds is least, of those that are no worse than the default."""
    able = [r for r in rated.values() if no_worse(r, rated, bounds_ms)] or list(rated.values())
    return min(able, key=lambda r: (shortfall(r, rated, bounds_ms), r.name != DEFAULT))


def shortfall(rating: Rating, rated: Mapping[str, Rating], bounds_ms: Sequence[float]) -> float:
    """How much less than the best it takes, as a share, at the bound where that is worst."""
    most = {b: max(r.rate(b).rate_rps for r in rated.values()) for b in bounds_ms}
    return max(1 - rating.rate(b).rate_rps / most[b] for b in bounds_ms if most[b])


def no_worse(rating: Rating, rated: Mapping[str, Rating], bounds_ms: Sequence[float]) -> bool:
    """Whether the comparison lets a configuration be recommended instead of the default.

    Over several bounds the ratio counts in the mean: what gains much at one may lose a little at another.
    """
    default = rated.get(DEFAULT)
    if default is None or rating.name == DEFAULT:
        return True
    ratios = [ratio(rating, default, b) for b in bounds_ms if default.rate(b).rate_rps]
    if any(r is None for r in ratios):
        return False
    return geometric_mean([r.low for r in ratios if r] or [1.0]) >= NO_WORSE


def quoted(rating: Rating, bounds_ms: Sequence[float]) -> float:
    """The bound to quote it at, where nobody asked for one."""
    most = rating.rate(max(bounds_ms)).rate_rps
    enough = (b for b in sorted(bounds_ms) if rating.rate(b).rate_rps >= QUOTED_SHARE * most)
    return next(enough, max(bounds_ms))


def row_of(rated: Mapping[str, Rating], rating: Rating, bound_ms: float) -> BoundRow:
    """One configuration within one bound."""
    own, default = rating.rate(bound_ms), rated.get(DEFAULT)
    base = None if default is None else default.rate(bound_ms)
    times = None if default is None else ratio(rating, default, bound_ms)
    return BoundRow(
        p99_ms=bound_ms,
        configuration=rating.name,
        config=rating.config,
        rate_rps=own.rate_rps,
        low_rps=own.low_rps,
        high_rps=own.high_rps,
        default_rps=None if base is None else base.rate_rps,
        default_low_rps=None if base is None else base.low_rps,
        default_high_rps=None if base is None else base.high_rps,
        ratio=times and times.value,
        ratio_low=times and times.low,
        ratio_high=times and times.high,
        decided=_decided(rating, times, rated, bound_ms),
        measured=own.measured,
    )


def _decided(
    best: Rating, times: Ratio | None, rated: Mapping[str, Rating], bound_ms: float
) -> bool:
    if best.name != DEFAULT:
        return times is not None and times.low > 1
    others = [ratio(r, best, bound_ms) for r in rated.values() if r.name != DEFAULT]
    return bool(others) and all(r is not None and r.high < NO_BETTER for r in others)
