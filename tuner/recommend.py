"""Which of the measured ways to serve is recommended: a table of rules. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dlbench.tuner.front import Outcome, knee

# The share of requests of each priority, where nobody told them apart.
ALIKE: Mapping[int, float] = {1: 1.0}
Standing = Literal["met", "undecided", "missed"]


@dataclass(frozen=True)
class Option:
    """An operating point that may be recommended. None: was not measured, or is undetermined.

    `p99_low_ms` and `p99_high_ms` enclose 95 %; `service_ms` and `waiting_ms` are means per request.
    """

    throughput_rps: float
    p99_ms: float
    p99_low_ms: float | None = None
    p99_high_ms: float | None = None
    service_ms: float | None = None
    waiting_ms: float | None = None


@dataclass(frozen=True)
class Wish:
    """What a recommendation is for. `priorities` maps a priority, 1 or more, to its share of requests."""

    slo_p99_ms: float | None = None
    price_per_hour: float | None = None
    reference_ms: float = 1000.0
    priorities: Mapping[int, float] = field(default_factory=lambda: dict(ALIKE))


Rule = Callable[[Sequence[Option], Wish], int | None]


def by_knee(options: Sequence[Option], wish: Wish) -> int | None:
    """The option that alone dominates the most hypervolume, by the upper ends of p99.

    The knee of the values themselves is now and then a point whose tail is known within a factor of
    ten. Where no upper end is known, as each falls among failed requests, the values have to do.
    """
    ends = [o.p99_high_ms or o.p99_ms for o in options]
    known = ends if any(map(math.isfinite, ends)) else [o.p99_ms for o in options]
    outcomes = [Outcome(o.throughput_rps, ms) for o, ms in zip(options, known, strict=True)]
    return knee(outcomes, wish.reference_ms) if outcomes else None


def by_slo(options: Sequence[Option], wish: Wish) -> int | None:
    """The highest throughput that surely meets the SLO; if none does, the likeliest to.

    What `standing` says of the choice has to be said with it.
    """
    sure = [i for i, o in enumerate(options) if standing(o, wish) == "met"]
    return _fastest(options, sure) if sure else by_min_p99(options, wish)


def by_max_throughput(options: Sequence[Option], _wish: Wish) -> int | None:
    """The most requests per second, whatever they wait."""
    return _fastest(options, range(len(options)))


def by_min_p99(options: Sequence[Option], _wish: Wish) -> int | None:
    """The shortest tail, whatever the throughput."""
    return min(range(len(options)), key=lambda i: options[i].p99_ms, default=None)


def by_cost(options: Sequence[Option], wish: Wish) -> int | None:
    """The cheapest million requests, among those that meet the SLO if there is one.

    A machine costs the same whatever it does, so this is the highest throughput; the price says
    what that is worth.
    """
    if wish.slo_p99_ms is not None:
        return by_slo(options, wish)
    return by_max_throughput(options, wish)


def by_weighted(options: Sequence[Option], wish: Wish) -> int | None:
    """The least mean over requests of service time / priority + waiting time; None if unmeasured."""
    known = [(w, i) for i, o in enumerate(options) if (w := weighted_ms(o, wish)) is not None]
    return min(known)[1] if known else None


RULES: Mapping[str, Rule] = {
    "knee": by_knee,
    "slo": by_slo,
    "max-throughput": by_max_throughput,
    "min-p99": by_min_p99,
    "cost": by_cost,
    "weighted": by_weighted,
}


def standing(option: Option, wish: Wish) -> Standing:
    """Whether an SLO holds: met or missed only if the whole 95 % interval says so.

    Raises:
        ValueError: there is no SLO.
    """
    bound = _bound(wish)
    if option.p99_high_ms is not None and option.p99_high_ms <= bound:
        return "met"
    return "missed" if option.p99_low_ms is not None and option.p99_low_ms > bound else "undecided"


def cost_per_million(option: Option, price_per_hour: float) -> float:
    """Price of a million requests at this throughput, in the price's own currency."""
    return price_per_hour / 3600 / option.throughput_rps * 1e6


def weighted_ms(option: Option, wish: Wish) -> float | None:
    """Mean over requests of service time / priority + waiting time."""
    if option.service_ms is None or option.waiting_ms is None:
        return None
    whole = sum(wish.priorities.values())
    urgency = sum(share / priority for priority, share in wish.priorities.items()) / whole
    return option.service_ms * urgency + option.waiting_ms


def _fastest(options: Sequence[Option], among: Sequence[int]) -> int | None:
    return max(among, key=lambda i: options[i].throughput_rps, default=None)


def _bound(wish: Wish) -> float:
    if wish.slo_p99_ms is None:
        raise ValueError("no SLO was stated")
    return wish.slo_p99_ms
