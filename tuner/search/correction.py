"""The twin's predictions, corrected by what was measured: smoothed values with intervals. Pure.

Two Gaussian processes learn log(measured / predicted), one for the capacity and one for p99. A
lucky measurement moves the estimate only as far as its noise and its neighbours allow, so the best
of many estimates is not simply the luckiest.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from dlbench.loadgen.analysis.statistics import Z_95
from dlbench.tuner.front import Outcome
from dlbench.tuner.search.gaussian import Coordinates, GaussianProcess, Prior, fit
from dlbench.tuner.twin.predictions import MOST_LOAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from dlbench.tuner.point import Point
    from dlbench.tuner.twin.predictions import Predictions

    Vector = NDArray[np.float64]
    Curves = NDArray[np.float64]

# A twin is wrong when log(measured / predicted capacity) spreads by more than this after so many
# configurations. In simulations right twins spread 0.05-0.19, wrong ones 0.22-0.84 (issue 5).
WRONG_SPREAD = 0.2
JUDGED_AFTER = 8
# How far a right twin may be off, and how far a wrong one.
CAPACITY = Prior(0.3, (0.03, 0.1, 0.2), (0.01, 0.05))
P99 = Prior(0.5, (0.05, 0.15, 0.3), (0.02, 0.1))
WRONG_CAPACITY = Prior(1.0, (0.2, 0.4, 0.8), (0.05, 0.2))
WRONG_P99 = Prior(1.5, (0.3, 0.6, 1.2), (0.05, 0.2))
# What equal runs differed by where this was first measured. It stands for so many
# repeats until the study has its own.
CAPACITY_NOISE = 0.07
P99_NOISE = 0.27
NOISE_REPEATS = 4


class Estimate(NamedTuple):
    """The smoothed value of an operating point; `_low_` and `_high_` enclose 95 %."""

    throughput_rps: float
    throughput_low_rps: float
    throughput_high_rps: float
    p99_ms: float
    p99_low_ms: float
    p99_high_ms: float

    @property
    def outcome(self) -> Outcome:
        """Where it lies."""
        return Outcome(self.throughput_rps, self.p99_ms)


class Residual(NamedTuple):
    """One observation: the row of its configuration, its load share, and log(measured/predicted)."""

    row: int
    share: float
    error: float


@dataclass(frozen=True)
class Correction:
    """Predictions and the two processes that say how far they are off.

    `spread` is the standard deviation of log(measured / predicted capacity) over configurations,
    None before there are enough of them.
    """

    predictions: Predictions
    capacity: GaussianProcess
    p99: GaussianProcess
    spread: float | None

    @classmethod
    def of(cls, points: Sequence[Point], predictions: Predictions) -> Self:
        """What the points say of the predictions; those of unpredicted configurations are ignored."""
        probes = _capacities(points, predictions)
        spread = _spread(probes)
        wrong = spread is not None and spread > WRONG_SPREAD
        prior = WRONG_CAPACITY if wrong else CAPACITY
        capacity = _fitted(prior, probes, predictions, CAPACITY_NOISE)
        tails = _tails(points, predictions, capacity)
        p99 = _fitted(WRONG_P99 if wrong else P99, tails, predictions, P99_NOISE)
        return cls(predictions, capacity, p99, spread)

    @property
    def wrong(self) -> bool:
        """Whether the twin mistakes configurations for each other, beyond a common factor."""
        return self.spread is not None and self.spread > WRONG_SPREAD

    def curves(self) -> tuple[Curves, Curves]:
        """Throughput and p99 (n, s) expected of every configuration at every load share."""
        known = self.predictions
        off = self.capacity.means(known.knobs, np.zeros(1))
        throughput = known.capacity_rps[:, None] * np.exp(off) * known.shares
        return throughput, np.exp(known.log_p99 + self.p99.means(known.knobs, known.shares))

    def deviations(self, rows: NDArray[np.int64]) -> tuple[Vector, Vector]:
        """Standard deviations (n,) of the logarithms of capacity and of p99 at a middle load."""
        middle = float(np.median(self.predictions.shares))
        _, capacity = self.capacity.posterior(_inputs(rows, np.zeros(len(rows)), self.predictions))
        _, p99 = self.p99.posterior(_inputs(rows, np.full(len(rows), middle), self.predictions))
        return capacity, p99

    def estimates(self, points: Sequence[Point]) -> dict[str, Estimate]:
        """Name of each predicted operating point -> its smoothed value. Noisy minima stay behind."""
        rates = {p.name: (p, rate) for p in points if (rate := _rate(p)) is not None}
        known = [(p, r) for p, r in rates.values() if p.config in self.predictions.rows]
        return {p.name: e for (p, _), e in zip(known, self._smoothed(known), strict=True)}

    def _smoothed(self, known: Sequence[tuple[Point, float]]) -> list[Estimate]:
        rows = [self.predictions.rows[p.config] for p, _ in known]
        capacities, sds = _capacity_of(rows, self.predictions, self.capacity)
        shares = [rate / c for (_, rate), c in zip(known, capacities, strict=True)]
        loads = [min(share, MOST_LOAD) for share in shares]
        off, p99_sds = self.p99.posterior(_inputs(rows, loads, self.predictions))
        p99_sds = np.hypot(p99_sds, [self._swing(*at) for at in zip(rows, loads, sds, strict=True)])
        return [
            _estimate(rate, capacity, sd, self.predictions.log_p99_at(row, load) + o, p99_sd)
            for (_, rate), row, capacity, sd, load, o, p99_sd in zip(
                known, rows, capacities, sds, loads, off, p99_sds, strict=True
            )
        ]

    def _swing(self, row: int, load: float, capacity_sd: float) -> float:
        """What an uncertain capacity makes of log p99: near it, the load share is as uncertain."""
        ends = [self.predictions.log_p99_at(row, load * math.exp(z * capacity_sd)) for z in (-1, 1)]
        return (ends[1] - ends[0]) / 2


def for_choice(points: Iterable[Point]) -> list[Point]:
    """What chooses among verified points: the search, and the even repeats."""
    return [p for p in points if p.phase != "verify" or p.repeat % 2 == 0]


def for_report(points: Sequence[Point]) -> list[Point]:
    """What is reported of verified points: the odd repeats, and the search of all other points.

    A candidate became one partly by the luck of its own screening, so that is left out.
    """
    verified = {p.name for p in points if p.phase == "verify"}
    return [
        p for p in points if (p.repeat % 2 == 1 if p.phase == "verify" else p.name not in verified)
    ]


def _estimate(
    rate: float, capacity: float, capacity_sd: float, log_p99: float, log_p99_sd: float
) -> Estimate:
    """Below capacity the throughput is what was offered; p99 is log-normal."""
    ends = [capacity * math.exp(z * capacity_sd) for z in (0, -Z_95, Z_95)]
    p99 = [math.exp(log_p99 + z * log_p99_sd) for z in (0, -Z_95, Z_95)]
    return Estimate(*(min(rate, end) for end in ends), *p99)


def _capacities(points: Iterable[Point], predictions: Predictions) -> list[Residual]:
    found = []
    for p in points:
        row = predictions.rows.get(p.config)
        if p.share is None and p.measurement and p.measurement.throughput_rps and row is not None:
            ratio = p.measurement.throughput_rps / predictions.capacity_rps[row]
            found.append(Residual(row, 0.0, math.log(ratio)))
    return found


def _tails(
    points: Iterable[Point], predictions: Predictions, capacity: GaussianProcess
) -> list[Residual]:
    """The p99s, each at the share of the *smoothed* capacity that was really offered."""
    measured = [
        (predictions.rows[p.config], rate, p.outcome.p99_ms)
        for p in points
        if p.outcome and p.config in predictions.rows and (rate := _rate(p)) is not None
    ]
    capacities, _ = _capacity_of([row for row, _, _ in measured], predictions, capacity)
    found = []
    for (row, rate, p99_ms), limit in zip(measured, capacities, strict=True):
        load = min(rate / limit, MOST_LOAD)
        found.append(Residual(row, load, math.log(p99_ms) - predictions.log_p99_at(row, load)))
    return found


def _rate(point: Point) -> float | None:
    """Offered load of an operating point, None for a probe, a failure, or more than the capacity."""
    if point.share is None or point.measurement is None or point.share > MOST_LOAD:
        return None
    return point.measurement.offered_rps or point.measurement.throughput_rps


def _capacity_of(
    rows: Sequence[int], predictions: Predictions, process: GaussianProcess
) -> tuple[list[float], list[float]]:
    """Smoothed capacities and the standard deviations of their logarithms."""
    off, sd = process.posterior(_inputs(rows, [0.0] * len(rows), predictions))
    return list(predictions.capacity_rps[np.array(rows, int)] * np.exp(off)), sd.tolist()


def _fitted(
    prior: Prior, seen: Sequence[Residual], predictions: Predictions, usual_noise: float
) -> GaussianProcess:
    inputs = _inputs([s.row for s in seen], [s.share for s in seen], predictions)
    return fit(prior, inputs, np.array([s.error for s in seen]), noise(seen, usual_noise))


def _inputs(
    rows: Sequence[int] | NDArray[np.int64],
    shares: Sequence[float] | Vector,
    predictions: Predictions,
) -> Coordinates:
    group = np.asarray(rows, dtype=np.int64)
    return Coordinates(predictions.knobs[group], np.asarray(shares, float), group)


def noise(seen: Sequence[Residual], usual: float) -> float:
    """Standard deviation of one observation, from repeats at (nearly) the same operating point."""
    repeats: dict[tuple[int, float], list[float]] = defaultdict(list)
    for row, share, error in seen:
        repeats[row, round(share, 1)].append(error)
    squares = sum(len(own) * float(np.var(own)) for own in repeats.values())
    freedom = len(seen) - len(repeats)
    return math.sqrt((NOISE_REPEATS * usual**2 + squares) / (NOISE_REPEATS + freedom))


def _spread(probes: Sequence[Residual]) -> float | None:
    by_row: dict[int, list[float]] = defaultdict(list)
    for probe in probes:
        by_row[probe.row].append(probe.error)
    if len(by_row) < JUDGED_AFTER:
        return None
    return float(np.std([np.mean(own) for own in by_row.values()], ddof=1))
