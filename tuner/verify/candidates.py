"""What a search hands to verification: the operating points that may be worth using. Pure.

Screening only proposes candidates. Its numbers, minima of noisy values, are never reported.
"""

from __future__ import annotations

import math
from itertools import chain
from statistics import fmean
from typing import TYPE_CHECKING

from dlbench.tuner.budget import (
    VERIFY_SHARE,
    Candidate,
    capped,
    least_verify_s,
    shortened,
    switch_s,
    verify_s,
)
from dlbench.tuner.constraint import figure
from dlbench.tuner.front import Outcome, greedy_by_hypervolume, knee
from dlbench.tuner.point import with_outcome
from dlbench.tuner.search.correction import Correction
from dlbench.tuner.verify.drift import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from dlbench.tuner.constraint import Constraints
    from dlbench.tuner.point import Point
    from dlbench.tuner.study_config import StudyConfig
    from dlbench.tuner.twin.predictions import Predictions

    Known = tuple[Point, Outcome]

# Equal probes, minutes apart on shared cores, differed by up to 2.8 times.
LUCK = 3.0
MOST = 6
FEWEST = 2
# Mean violations, as shares of a bound, that two repeats with a third of noise do not show by chance;
# those of more repeats narrow with the root of their number.
SURELY_MET, SURELY_MISSED = -1 / 3, 1 / 2


def candidates(
    points: Sequence[Point],
    baselines: Collection[str],
    study: StudyConfig,
    predictions: Predictions | None = None,
    reference_ms: float = 1000.0,
    left_s: float = math.inf,
) -> list[Candidate]:
    """The baselines at their knees and the points that the front gains most by.

    `points` are those of the search, `left_s` what was left of the budget after them. Where there
    are predictions the front is the smoothed one: the raw one consists of the luckiest. A model so
    slow that its budget cannot pay for the fewest gets shorter and fewer repeats, or fewer of them.
    """
    chosen: list[Candidate] = []
    most_s, each_s = min(VERIFY_SHARE * study.budget_s, left_s), switch_s(points)
    for found in _ranked(points, baselines, study, predictions, reference_ms):
        more = [*chosen, capped(found, study.budget_s)]
        few = len(chosen) < len(baselines) + FEWEST and least_verify_s(more, each_s) <= left_s
        if few or verify_s(more, each_s) <= most_s:
            chosen = more
    doubt = [capped(c, study.budget_s) for c in _default_beyond(points, chosen)]
    if verify_s([*chosen, *doubt], each_s) <= most_s:
        chosen += doubt
    return shortened(chosen, most_s, each_s)


def _default_beyond(points: Sequence[Point], chosen: Sequence[Candidate]) -> list[Candidate]:
    """The default configuration at the least of the rates that seem to be beyond it.

    All that is known of its capacity is one probe. Had that a bad moment, then whatever was probed
    in a better one would seem to be better, and hold when it is measured again.
    """
    own = [p for p in points if p.configuration == REFERENCE and p.measurement is not None]
    capacity = max((_rate(p) for p in own if p.share is None), default=0.0)
    most = max((_rate(p) for p in own if p.share is not None), default=capacity)
    beyond = [c.rate for c in chosen if most < c.rate <= LUCK * capacity]
    if not beyond:
        return []
    return [Candidate(REFERENCE, own[0].config, round(min(beyond) / capacity, 2), min(beyond))]


def contenders(
    chosen: Sequence[Candidate], points: Sequence[Point], demands: Constraints
) -> list[Candidate]:
    """Those of the chosen whose standing decides the answer, all of them where that is not known.

    `points` are the repeats so far. Only the even ones are looked at, by which the choice goes, so
    those that are reported owe nothing to their luck.
    """
    off = {c: _judged(c, points, demands) for c in chosen}
    least = max((c.rate for c in chosen if off[c] <= SURELY_MET), default=0.0)
    return [c for c in chosen if off[c] < SURELY_MISSED and c.rate >= least] or list(chosen)


def _judged(candidate: Candidate, points: Sequence[Point], demands: Constraints) -> float:
    """The mean violation of the worst demand, as two repeats would have to show it; 0: unknown."""
    own = [p for p in points if p.name == candidate.name and p.repeat % 2 == 0]
    found = [max(demands.estimated(p)) for p in own]
    return fmean(found) * math.sqrt(len(found) / 2) if found else 0.0


def _ranked(
    points: Sequence[Point],
    baselines: Collection[str],
    study: StudyConfig,
    predictions: Predictions | None,
    reference_ms: float,
) -> list[Candidate]:
    known = smoothed(points, predictions)
    theirs = [_baseline_pick(name, points, known, reference_ms) for name in baselines]
    # A bound on p99 is the reference already; one look at a p99 is too noisy to rule a point out.
    demands = [o for o in study.constraints.objectives if o.field != "p99_ms"]
    within = [k for k in known if all(o.violation(figure(k[0], o.field)) <= 0 for o in demands)]
    worth = within or known
    gains = greedy_by_hypervolume([outcome for _, outcome in worth], MOST, reference_ms)
    best = [worth[i][0] for i in gains if worth[i][0].configuration not in baselines]
    # Where time is short the last of them are given up first.
    picks = [theirs[:1], [best[:1]], theirs[1:], [[worth[i][0] for i in gains]]]
    ordered = chain.from_iterable(chain.from_iterable(picks))
    return list(dict.fromkeys(_candidate(point) for point in ordered))


def smoothed(points: Sequence[Point], predictions: Predictions | None) -> list[Known]:
    """The points that may be on a front with what they are worth; unpredicted ones as measured."""
    raw = with_outcome(list(points))
    if predictions is None:
        return raw
    estimates = Correction.of(points, predictions).estimates([p for p, _ in raw])
    return [(p, estimates[p.name].outcome if p.name in estimates else o) for p, o in raw]


def _baseline_pick(
    name: str, points: Sequence[Point], known: Sequence[Known], reference_ms: float
) -> list[Point]:
    """A baseline's knee; where nothing held in screening, its lightest load gets another chance."""
    own = [(p, o) for p, o in known if p.configuration == name]
    if own:
        return [own[knee([outcome for _, outcome in own], reference_ms)][0]]
    loaded = [p for p in points if p.configuration == name and p.share is not None]
    return [p for p in loaded if p.measurement is not None][:1]


def _candidate(point: Point) -> Candidate:
    assert point.share is not None
    return Candidate(point.configuration, point.config, point.share, _rate(point))


def _rate(point: Point) -> float:
    """What was offered; by a probe, what was completed."""
    return point.measured.offered_rps or point.measured.throughput_rps
