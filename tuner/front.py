"""The Pareto front of throughput against p99 latency, and what one point on it is worth. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Curves = NDArray[np.float64]  # one row per configuration, one column per load


class Outcome(NamedTuple):
    """The outcome of an operating point: more `throughput_rps` and less `p99_ms` are better."""

    throughput_rps: float
    p99_ms: float


def front_indices(outcomes: Sequence[Outcome]) -> list[int]:
    """Indices of the outcomes that no other dominates, by rising throughput; of equals the first."""
    order = sorted(
        range(len(outcomes)), key=lambda i: (-outcomes[i].throughput_rps, outcomes[i].p99_ms, i)
    )
    kept: list[int] = []
    for index in order:
        if not kept or outcomes[index].p99_ms < outcomes[kept[-1]].p99_ms:
            kept.append(index)
    return kept[::-1]


def hypervolume(
    outcomes: Sequence[Outcome], best_throughput_rps: float, reference_ms: float = 1000.0
) -> float:
    """Area dominated by (throughput / best throughput known, ln p99) against (0, ln reference).

    Points slower than the reference add nothing. The unit is "e-folds of p99 at full throughput":
    one point at the best throughput and 1/e of the reference has hypervolume 1.
    """
    inside = [o for o in outcomes if o.p99_ms < reference_ms]
    area, floor = 0.0, 0.0
    for index in front_indices(inside):
        outcome = inside[index]
        width = outcome.throughput_rps / best_throughput_rps - floor
        area += width * math.log(reference_ms / outcome.p99_ms)
        floor += width
    return area


def in_reach(p99s_ms: Iterable[float], reference_ms: float) -> float:
    """The reference, or e times the lowest p99 if all are beyond it: else nothing were worth anything."""
    lowest_ms = min(p99s_ms, default=0.0)
    return reference_ms if lowest_ms < reference_ms else math.e * lowest_ms


def knee(outcomes: Sequence[Outcome], reference_ms: float = 1000.0) -> int:
    """Index of the outcome that alone dominates the most hypervolume.

    The same measure that the search maximises, so the recommendation and the front agree on what
    is better; it trades one e-fold of p99 against a proportional share of throughput.
    """
    best = max(o.throughput_rps for o in outcomes)
    reference_ms = in_reach((o.p99_ms for o in outcomes), reference_ms)
    return max(range(len(outcomes)), key=lambda i: hypervolume([outcomes[i]], best, reference_ms))


def greedy_by_hypervolume(
    outcomes: Sequence[Outcome], count: int, reference_ms: float = 1000.0
) -> list[int]:
    """Up to `count` indices, each adding the most hypervolume to those before it.

    When the front is used up the next one behind it follows: what looks dominated by a little may
    only have been unlucky.
    """
    best = max((o.throughput_rps for o in outcomes), default=1.0)
    chosen: list[int] = []
    layer: list[Outcome] = []
    left = list(range(len(outcomes)))

    def gain(index: int) -> tuple[float, float]:
        with_it = hypervolume([*layer, outcomes[index]], best, reference_ms)
        return with_it - hypervolume(layer, best, reference_ms), -outcomes[index].p99_ms

    while left and len(chosen) < count:
        pick = max(left, key=gain)
        if layer and gain(pick)[0] <= 0:
            layer = []
            continue
        left.remove(pick)
        chosen.append(pick)
        layer.append(outcomes[pick])
    return chosen


def curve_gains(
    outcomes: Sequence[Outcome],
    throughput_rps: Curves,
    p99_ms: Curves,
    best_throughput_rps: float,
    reference_ms: float = 1000.0,
) -> NDArray[np.float64]:
    """Hypervolume (n,) that each whole curve (n, s) would add to `outcomes`, all curves at once.

    The hypervolume is the area under a staircase: at each throughput the best ln(reference / p99)
    of what reaches it. Between two neighbouring throughputs both staircases are flat.
    """
    front = [outcomes[i] for i in front_indices(outcomes) if outcomes[i].p99_ms < reference_ms]
    known_rps = np.array([o.throughput_rps for o in front])
    known = np.log(reference_ms / np.array([*(o.p99_ms for o in front), reference_ms]))
    height = np.maximum(np.log(reference_ms / p99_ms), 0.0)
    repeated = np.broadcast_to(known_rps, (len(p99_ms), len(known_rps)))
    edges = np.sort(np.concatenate([repeated, throughput_rps], axis=1), axis=1)
    stairs = np.zeros_like(edges)
    for rate, tall in zip(throughput_rps.T[:, :, None], height.T[:, :, None], strict=True):
        np.maximum(stairs, tall * (rate >= edges), out=stairs)
    above = np.maximum(stairs - known[np.searchsorted(known_rps, edges)], 0.0)
    widths = np.diff(edges, axis=1, prepend=0.0)
    return np.asarray((widths * above).sum(axis=1) / best_throughput_rps)


def greedy_curves(
    throughput_rps: Curves, p99_ms: Curves, count: int, reference_ms: float = 1000.0
) -> list[int]:
    """Up to `count` rows, each the curve that adds most to those before it; fewer if none adds."""
    best = float(throughput_rps.max())
    chosen: list[int] = []
    outcomes: list[Outcome] = []
    while len(chosen) < count:
        gains = curve_gains(outcomes, throughput_rps, p99_ms, best, reference_ms)
        pick = int(gains.argmax())
        if gains[pick] <= 0:
            break
        chosen.append(pick)
        outcomes += map(Outcome, throughput_rps[pick].tolist(), p99_ms[pick].tolist())
    return chosen
