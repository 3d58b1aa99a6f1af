"""From the repeats of verification to the numbers that are reported. Pure.

Half of the repeats chooses what stands on the front and what is recommended, the other half is
what gets reported, so nobody is shown the luck that won the choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pydantic import TypeAdapter

from dlbench.tuner.front import Outcome, front_indices
from dlbench.tuner.point import Point  # noqa: TC001 - pydantic has to know it at run time
from dlbench.tuner.recommend import ALIKE, RULES, Option, Wish
from dlbench.tuner.search.correction import Correction, Estimate, for_choice, for_report
from dlbench.tuner.search.insight import Insight, insight
from dlbench.tuner.verify.disturbed import tally
from dlbench.tuner.verify.drift import drift
from dlbench.tuner.verify.pool import pool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dlbench.tuner.study_config import StudyConfig
    from dlbench.tuner.twin.predictions import Predictions
    from dlbench.tuner.verify.pool import Repeat

    Pooled = dict[str, Point]


@dataclass(frozen=True)
class Verified:
    """The result of a study: pooled points, the recommended one, and what may be said of the SLO.

    `slo` is "none", "met", "undecided" or "missed". `estimates` are the smoothed values by a point's
    name; the points in `smoothed` have the interval of theirs. `drift`, `disturbed`, `limit` (what
    keeps the recommended one from taking more) and `unknown` (what there was no time for) are
    sentences, "" for none.
    """

    points: tuple[Point, ...]
    slo: str
    estimates: dict[str, Estimate] = field(default_factory=dict)
    smoothed: tuple[str, ...] = ()
    insight: Insight | None = None
    drift: str = ""
    disturbed: str = ""
    limit: str = ""
    unknown: str = ""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """What `document` once gave; an empty one is a study that has no result yet."""
        return TypeAdapter(cls).validate_python({"points": (), "slo": "none", **document})

    @property
    def document(self) -> dict[str, Any]:
        """The whole result as a study file keeps it."""
        kept: dict[str, Any] = TypeAdapter(Verified).dump_python(self, mode="json")
        return kept

    @property
    def front(self) -> list[Point]:
        """The reported front, by rising throughput."""
        kept = [(p, p.outcome) for p in self.points if p.on_front and p.outcome]
        return [p for p, o in sorted(kept, key=lambda pair: pair[1].throughput_rps)]

    @property
    def recommended(self) -> Point | None:
        """The point to serve with, None if nothing held."""
        return next((p for p in self.points if p.recommended), None)

    def baseline(self, name: str) -> Point | None:
        """What a baseline did, measured in the same rounds as everything else."""
        own = [p for p in self.points if p.configuration == name]
        return min(own, key=lambda p: p.share or 0.0, default=None)


def verified(
    repeats: Mapping[str, Sequence[Repeat]],
    config: StudyConfig,
    predictions: Predictions | None = None,
    points: Sequence[Point] = (),
    priorities: Mapping[int, float] = ALIKE,
) -> Verified:
    """Pool each candidate's repeats (name -> repeats in order), choose and report.

    `points` is all that was recorded, `priorities` the share of requests of each. With predictions the choice goes by smoothed values. What is
    reported is measured: both are as near to the truth (off by 0.12-0.22 and 0.15 in ln p99 in
    simulations), but smoothing takes the noise for what the simulations make it, and samples take
    nothing for granted. Only where they cannot tell an interval, the smoothed one stands in.
    """
    choosing = _pool_each(repeats, lambda number: number % 2 == 0)
    reported = _pool_each(repeats, lambda number: number % 2 == 1)
    choosing = _smooth(choosing, _estimates(choosing, for_choice(points), predictions))
    estimates = _estimates(reported, for_report(points), predictions)
    reported, smoothed = _completed(reported, estimates)
    front = _front(choosing, reported)
    pick = _pick(front, choosing, config, config.wish(priorities))
    marked = tuple(
        point.model_copy(update={"on_front": name in front, "recommended": name == pick})
        for name, point in reported.items()
    )
    learnt = None if predictions is None else insight(points, predictions)
    slo, moved = _slo(pick, [reported[n] for n in front], config), drift(points)
    said = str(moved) if moved is not None and moved.beyond_noise else ""
    meanwhile = tally(points)
    return Verified(marked, slo, estimates, smoothed, learnt, said, meanwhile)


def _pool_each(repeats: Mapping[str, Sequence[Repeat]], half: Callable[[int], bool]) -> Pooled:
    halves = {
        name: [r for r in own if half(r[0].repeat) and r[0].measurement is not None]
        for name, own in repeats.items()
    }
    return {name: pool(own) for name, own in halves.items() if own}


def _estimates(
    pooled: Pooled, points: Sequence[Point], predictions: Predictions | None
) -> dict[str, Estimate]:
    """Smoothed values of these points by what `points` say; none of what was not predicted."""
    if predictions is None:
        return {}
    return Correction.of(points, predictions).estimates(list(pooled.values()))


def _smooth(pooled: Pooled, estimates: Mapping[str, Estimate]) -> Pooled:
    """The points with their estimates in the place of what was measured.

    But a p99 is never better than it was: a point that now and then stalls is taken for noise by
    what smooths, and is the last that anybody wants to be advised.
    """
    found = dict(pooled)
    for name in pooled.keys() & estimates.keys():
        known, seen_ms = estimates[name], pooled[name].measured.p99_ms or 0.0
        worse = {
            "p99_ms": max(known.p99_ms, seen_ms),
            "p99_high_ms": max(known.p99_high_ms, seen_ms),
        }
        found[name] = _changed(pooled[name], **{**known._asdict(), **worse})
    return found


def _completed(pooled: Pooled, estimates: Mapping[str, Estimate]) -> tuple[Pooled, tuple[str, ...]]:
    """Undetermined intervals filled with smoothed ones, wide enough for the measured p99 as well."""
    names = [n for n, p in pooled.items() if n in estimates and p.measured.p99_low_ms is None]
    found = dict(pooled)
    for name in names:
        p99_ms, known = pooled[name].measured.p99_ms, estimates[name]
        ends = [known.p99_low_ms, known.p99_high_ms, *([] if p99_ms is None else [p99_ms])]
        found[name] = _changed(pooled[name], p99_low_ms=min(ends), p99_high_ms=max(ends))
    return found, tuple(names)


def _front(choosing: Pooled, reported: Pooled) -> list[str]:
    """Chosen by one half; dropped where the other half shows it to fail or surely to be beaten.

    What only seems beaten stays: dropping the unlucky would leave luck on the front. Who surely
    beats a chosen one takes its place, wherever it was before: nobody is to be advised what another
    row of the same table shows to be worse.
    """
    both = [
        name for name in choosing if name in reported and _holds(choosing[name], reported[name])
    ]
    chosen = [both[i] for i in front_indices([_outcome(choosing[n]) for n in both])]
    better = [n for n in both if any(_surely_beats(reported[n], reported[o]) for o in chosen)]
    known = list(dict.fromkeys([*chosen, *better]))
    return [n for n in known if not any(_surely_beats(reported[o], reported[n]) for o in known)]


def _holds(choosing: Point, reported: Point) -> bool:
    return choosing.outcome is not None and reported.outcome is not None


def _surely_beats(one: Point, other: Point) -> bool:
    ours, theirs = one.measured, other.measured
    if ours.p99_high_ms is None or theirs.p99_low_ms is None:
        return False
    return ours.throughput_rps >= theirs.throughput_rps and ours.p99_high_ms < theirs.p99_low_ms


def _pick(front: list[str], choosing: Pooled, config: StudyConfig, wish: Wish) -> str | None:
    """By the rule asked for, among those that surely meet every bound, else those that seem to."""
    demands = config.constraints
    sure = [n for n in front if demands.standing(choosing[n]) == "met"]
    eligible = sure or [n for n in front if max(demands.estimated(choosing[n]), default=0.0) <= 0]
    held = RULES[config.rule]([_option(choosing[name]) for name in eligible], wish)
    return None if held is None else eligible[held]


def _option(point: Point) -> Option:
    m = point.measured
    assert m.p99_ms is not None
    queued_ms = m.server_queue_ms
    waiting_ms = None if queued_ms is None else queued_ms + (m.connect_mean_ms or 0.0)
    times = (m.server_compute_ms, waiting_ms)
    return Option(m.throughput_rps, m.p99_ms, m.p99_low_ms, m.p99_high_ms, *times)


def _slo(pick: str | None, front: Sequence[Point], config: StudyConfig) -> str:
    """Met or missed only if the whole interval says so; without a pick, by all that stood a chance."""
    if config.slo_p99_ms is None:
        return "none"
    bound = config.constraints.objectives[0]
    found = {bound.standing(p) for p in front if pick is None or p.name == pick}
    if not found or "undecided" in found:
        return "undecided"
    return "met" if "met" in found else "missed"


def _changed(point: Point, **figures: float) -> Point:
    changed = point.measured.model_copy(update=figures)
    return point.model_copy(update={"measurement": changed})


def _outcome(point: Point) -> Outcome:
    assert point.outcome is not None
    return point.outcome
