"""Proposals from the twin's predictions, corrected by what has been measured. Pure.

The opening: a few predicted curves that together take most within the bounds on p99. Then, each
time, the configuration that is expected to raise the best rates most.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from dlbench.tuner.bounds.expected import greedy, mean_gain, rates_within
from dlbench.tuner.bounds.rating import ratings
from dlbench.tuner.search.correction import Correction
from dlbench.tuner.search.proposal import EXHAUSTED, Done, tried
from dlbench.tuner.search.sampled_proposer import tpe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.point import Point
    from dlbench.tuner.space import Space
    from dlbench.tuner.twin.predictions import Predictions

    Curves = NDArray[np.float64]

# Chosen from the predictions alone, before they can be corrected. Five minutes pay for some eight
# configurations: an opening of eight leaves nothing to the correction, and simulated studies had
# found 1 to 5 points more after three minutes with four (after eight minutes it is the same).
OPENING = 4
# Where the twin proves wrong, one proposal in so many comes from who does not listen to it.
SECOND_OPINION = 3
# The search has settled when so many proposals in a row promised less than this share.
SETTLED_GAIN = 0.005
SETTLED_AFTER = 8
# Candidates that are looked at closely: the best as expected, and some at random.
BEST, SOME = 256, 256
# Gauss-Hermite: three nodes of a standard normal distribution and their weights.
NODES = ((-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6))


def twin_guided(
    points: Sequence[Point],
    space: Space,
    seed: int,
    twin: Predictions | None = None,
    bounds_ms: Sequence[float] = (1000.0,),
) -> ServingConfig | Done:
    """The configuration expected to add most; without predictions what `tpe` proposes."""
    if twin is None:
        return tpe(points, space, seed, None, bounds_ms)
    measured = tried(points)
    opened = [row for row in opening(twin, bounds_ms) if twin.configs[row] not in measured]
    if opened:
        return twin.configs[opened[0]]
    correction = Correction.of(points, twin)
    promises = promised(points, correction, seed, bounds_ms)
    best = max(promises, key=lambda row: promises[row], default=None)
    if best is None:
        return EXHAUSTED
    if promises[best] < SETTLED_GAIN and _settled(points, twin, seed, bounds_ms):
        gain = f"{SETTLED_GAIN:.1%} more requests/s"
        return Done(f"the last {SETTLED_AFTER} proposals promised less than {gain} each")
    if correction.wrong and len(measured) % SECOND_OPINION == 0:
        opinion = tpe(points, space, seed, None, bounds_ms)
        if opinion in twin.rows:  # what is not predicted was left out as infeasible
            return opinion
    return twin.configs[best]


def opening(twin: Predictions, bounds_ms: Sequence[float]) -> list[int]:
    """Rows of the configurations to begin with: those that together take most, as predicted."""
    rows = twin.searched
    throughput_rps = twin.capacity_rps[rows, None] * twin.shares
    taken = rates_within(throughput_rps, twin.p99_ms[rows], bounds_ms)
    return [int(rows[i]) for i in greedy(taken, OPENING)]


def promised(
    points: Sequence[Point], correction: Correction, seed: int, bounds_ms: Sequence[float]
) -> dict[int, float]:
    """Row of each candidate -> by what share it is expected to raise the best rates, in the mean.

    The expectation is over what the correction does not know: a curve that may be much better is
    worth a look even if it probably is not. Candidates are the curves that gain most if everything
    is as expected, and some at random.
    """
    throughput, p99 = correction.curves()
    rated = ratings(points, correction.predictions)
    best = np.array(
        [max((r.rate(b).rate_rps for r in rated.values()), default=0.0) for b in bounds_ms]
    )

    def gains(throughput_rps: Curves, p99_ms: Curves) -> NDArray[np.float64]:
        return mean_gain(rates_within(throughput_rps, p99_ms, bounds_ms), best)

    rows = _candidates(gains(throughput, p99), correction.predictions, tried(points), seed)
    expected = np.zeros(len(rows))
    sds = correction.deviations(rows)
    for (a, weight_a), (b, weight_b) in itertools.product(NODES, repeat=2):
        capacity, tail = (np.exp(z * sd)[:, None] for z, sd in zip((a, b), sds, strict=True))
        expected += weight_a * weight_b * gains(throughput[rows] * capacity, p99[rows] * tail)
    expected *= _survival(points, correction.predictions)[rows]
    return dict(zip(rows.tolist(), expected.tolist(), strict=True))


def _candidates(
    gains: NDArray[np.float64],
    twin: Predictions,
    measured: Mapping[ServingConfig, object],
    seed: int,
) -> NDArray[np.int64]:
    """Rows worth a closer look, of configurations not measured, in a fixed order."""
    taken = [twin.rows[config] for config in measured if config in twin.rows]
    left = np.setdiff1d(twin.searched, taken)
    best = left[np.argsort(-gains[left], kind="stable")][:BEST]
    some = np.random.default_rng([seed, len(measured)]).permutation(left)[:SOME]
    return np.union1d(best, some)


def _survival(points: Sequence[Point], twin: Predictions) -> NDArray[np.float64]:
    """Chance (n,) that a configuration runs: the share of those like it that did, one counted in."""
    rows: Mapping[bool, list[int]] = {True: [], False: []}
    for config, own in tried(points).items():
        if config in twin.rows:
            rows[not any(p.failure for p in own)].append(twin.rows[config])
    if not rows[False]:
        return np.ones(len(twin.configs))
    ran, failed = (_likeness(twin, rows[kind]) for kind in (True, False))
    return np.asarray((1 + ran) / (1 + ran + failed))


def _likeness(twin: Predictions, rows: Sequence[int]) -> NDArray[np.float64]:
    """How many of these rows each configuration is like; half a knob's range away counts 1/e."""
    far = ((twin.knobs[:, None, :] - twin.knobs[rows]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-4 * far).sum(axis=1))


def _settled(
    points: Sequence[Point], twin: Predictions, seed: int, bounds_ms: Sequence[float]
) -> bool:
    """Whether the best proposal promised too little after each of the last configurations.

    Read off the points, the latest first: one good promise ends the reading.
    """
    if len(tried(points)) < OPENING + SETTLED_AFTER:
        return False
    promises = (_promise(p, twin, seed, bounds_ms) for p in _histories(points))
    return all(promise < SETTLED_GAIN for promise in itertools.islice(promises, SETTLED_AFTER))


def _histories(points: Sequence[Point]) -> Iterator[list[Point]]:
    """The points as they were after each configuration, the latest first."""
    configs = list(tried(points))
    for count in range(len(configs), 0, -1):
        until = set(configs[:count])
        yield [p for p in points if p.config in until]


def _promise(
    points: Sequence[Point], twin: Predictions, seed: int, bounds_ms: Sequence[float]
) -> float:
    """Largest expected gain of a configuration not measured."""
    found = promised(points, Correction.of(points, twin), seed, bounds_ms)
    return max(found.values(), default=0.0)
