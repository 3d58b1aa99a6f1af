"""What each configuration takes within each bound, as far as its windows tell. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from dlbench.loadgen.rates.posterior import infer
from dlbench.loadgen.rates.prior import Prior
from dlbench.loadgen.rates.rate_at_bound import rate_at_bound, rate_quantiles
from dlbench.loadgen.rates.window import ClosedWindow, OpenWindow
from dlbench.tuner.bounds.observed import observed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dlbench.loadgen.rates.posterior import Posterior
    from dlbench.loadgen.rates.rate_at_bound import RateAtBound
    from dlbench.loadgen.rates.window import Window
    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.point import Point
    from dlbench.tuner.twin.predictions import Predictions

# Without a twin the first probe says where the capacity is, and little else is known.
UNKNOWN_SPREAD = 1.2
# An empty server's p99 over the mean time of a request at capacity, roughly.
LOW_SHARE = 0.1


@dataclass(frozen=True)
class Rating:
    """One configuration's curve, as its windows show it."""

    name: str
    config: ServingConfig
    posterior: Posterior
    _rates: dict[float, RateAtBound] = field(default_factory=dict, repr=False)

    def rate(self, bound_ms: float) -> RateAtBound:
        """R(B), with its interval."""
        if bound_ms not in self._rates:
            self._rates[bound_ms] = rate_at_bound(self.posterior, bound_ms)
        return self._rates[bound_ms]

    def quantile_rps(self, bound_ms: float, share: float) -> float:
        """A quantile of R(B)."""
        return rate_quantiles(self.posterior, bound_ms, (share,))[0]

    @cached_property
    def opened(self) -> tuple[float, ...]:
        """The rates at which windows were open."""
        windows = self.posterior.windows
        return tuple(w.rate_rps for w in windows if isinstance(w, OpenWindow))


def ratings(
    points: Sequence[Point],
    predictions: Predictions | None = None,
    only: Sequence[Point] | None = None,
) -> dict[str, Rating]:
    """Configuration -> its rating by all of `points`, or by `only` some of them.

    Those that failed have none; of those that only the client held back the prior is all that is known.
    """
    chosen = points if only is None else only
    configs = {p.configuration: p.config for p in chosen if p.measurement is not None}
    windows, priors = observed(chosen), Priors(points, predictions)

    def rated(name: str, config: ServingConfig) -> Rating:
        own = windows.get(name, ())
        return Rating(name, config, posterior(priors.of(config, own), own))

    return {name: rated(name, config) for name, config in configs.items()}


class Priors:
    """What is believed of a configuration before its own windows: the twin's curve, put right.

    The twin is off by a factor that configurations have in common. What the others were off by, in
    the mean, is taken out, and how much they differ in it is how far this one is believed.
    """

    def __init__(self, points: Iterable[Point], predictions: Predictions | None) -> None:
        self._predictions = predictions
        self._errors: dict[int, list[float]] = {}
        for p in points if predictions is not None else ():
            row = predictions.rows.get(p.config) if predictions is not None else None
            if (
                p.phase == "probe"
                and p.measurement
                and p.measurement.throughput_rps
                and row is not None
            ):
                off = p.measurement.throughput_rps / predictions.capacity_rps[row]  # type: ignore[union-attr]
                self._errors.setdefault(row, []).append(math.log(off))

    def of(self, config: ServingConfig, windows: Sequence[Window]) -> Prior:
        """The prior of one configuration; its own windows only say where to look, without a twin."""
        known = self._predictions
        row = None if known is None else known.rows.get(config)
        if known is None or row is None:
            return guessed(windows)
        capacity = float(known.capacity_rps[row])
        prior = Prior.of_curve(
            capacity, (known.shares * capacity).tolist(), known.p99_ms[row].tolist()
        )
        return self._corrected(prior, row)

    def _corrected(self, prior: Prior, row: int) -> Prior:
        others = [float(np.mean(own)) for at, own in self._errors.items() if at != row]
        if len(others) < FEWEST_OTHERS:
            return prior
        spread = min(prior.capacity_spread, max(LEAST_SPREAD, 2 * float(np.std(others, ddof=1))))
        factor = math.exp(float(np.median(others)))
        return Prior(
            round(prior.capacity_rps * factor, 3), prior.low_ms, prior.growth,
            round(spread, 3), prior.low_spread, prior.growth_spread,
        )  # fmt: skip


FEWEST_OTHERS, LEAST_SPREAD = 3, 0.12


def guessed(windows: Sequence[Window]) -> Prior:
    """A wide prior about what was seen: the capacity of a probe, the lowest p99."""
    closed = [w.throughput_rps for w in windows if isinstance(w, ClosedWindow)]
    opened = [w for w in windows if isinstance(w, OpenWindow)]
    held = [w for w in opened if not w.failed]
    p99s_ms = [w.p99_ms for w in held if w.p99_ms]
    # What failed was too much: of nothing else a half of it is a beginning.
    rates = [w.rate_rps for w in held] or [w.rate_rps / 2 for w in opened]
    capacity = max(closed, default=0.0) or max(rates, default=100.0)
    low_ms = min(p99s_ms, default=0.0) / 2 or LOW_SHARE * 1e5 / capacity
    return Prior(capacity, low_ms, capacity_spread=UNKNOWN_SPREAD / 2, low_spread=UNKNOWN_SPREAD)


@lru_cache(1024)
def posterior(prior: Prior, windows: tuple[Window, ...]) -> Posterior:
    """Asked for the same again at every step of a study."""
    return infer(prior, windows)


def leaders(rated: Mapping[str, Rating], bounds_ms: Sequence[float]) -> dict[float, Rating]:
    """Bound -> whoever takes most within it; a bound that nobody can keep to is left out."""
    best = {
        b: max(rated.values(), key=lambda r: (r.rate(b).rate_rps, r.name == "default"))
        for b in bounds_ms
        if rated
    }
    return {b: one for b, one in best.items() if one.rate(b).rate_rps > 0}
