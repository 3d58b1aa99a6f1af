"""From a study's points to what is reported: one table, and the recommendation that follows from it. Pure.

What is reported comes from the comparison alone, in which the finalists and the default took turns:
these windows are fresh, so nobody is shown the luck that made a finalist.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import TypeAdapter

from dlbench.tuner.bounds.decision import (
    BoundRow,
    balanced,
    best_within,
    bound_rows,
    quoted,
    row_of,
)
from dlbench.tuner.bounds.ladder import ladder
from dlbench.tuner.bounds.rating import ratings
from dlbench.tuner.front import front_indices
from dlbench.tuner.point import Point  # noqa: TC001 - pydantic has to know it at run time
from dlbench.tuner.recommend import ALIKE, RULES, Option
from dlbench.tuner.search.correction import Correction, Estimate
from dlbench.tuner.search.insight import Insight, insight
from dlbench.tuner.verify.disturbed import tally
from dlbench.tuner.verify.drift import drift
from dlbench.tuner.verify.pool import pool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlbench.loadgen.measurement import Measurement
    from dlbench.tuner.bounds.rating import Rating
    from dlbench.tuner.constraint import Constraints
    from dlbench.tuner.study_config import StudyConfig
    from dlbench.tuner.twin.predictions import Predictions
    from dlbench.tuner.verify.pool import Repeat

    Pooled = dict[str, Point]


@dataclass(frozen=True)
class Verified:
    """The result of a study.

    `bounds` has the best configuration within each bound on p99, `answer` the recommended one within
    the bound that it is quoted at, by `rule`. `points` are the operating points of the comparison,
    pooled, with the front among them. `slo` is "none", "met", "undecided" or "missed". `estimates`
    are the points' values smoothed over the study, by name. `drift`, `disturbed`, `limit` (what keeps
    the recommended one from taking more) and `unknown` (what there was no time for) are sentences,
    "" for none.
    """

    points: tuple[Point, ...]
    slo: str
    bounds: tuple[BoundRow, ...] = ()
    answer: BoundRow | None = None
    rule: str = ""
    compared: bool = False
    estimates: dict[str, Estimate] = field(default_factory=dict)
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
        """The operating point nearest to the answer, None if there is none."""
        return next((p for p in self.points if p.recommended), None)

    @property
    def proved(self) -> bool:
        """Whether the answer was compared, and is surely no worse than the default."""
        return self.compared and self.answer is not None and self.answer.proved

    def baseline(self, name: str) -> Point | None:
        """What a baseline did, measured in the same rounds as everything else."""
        own = [p for p in self.points if p.configuration == name]
        return min(own, key=lambda p: p.share or 0.0, default=None)


def verified(
    repeats: Mapping[str, Sequence[Repeat]],
    config: StudyConfig,
    bounds_ms: Sequence[float],
    predictions: Predictions | None = None,
    points: Sequence[Point] = (),
    priorities: Mapping[int, float] = ALIKE,
) -> Verified:
    """The table of bounds, and what follows from it.

    `repeats` are those of the comparison's points, by name, with their samples; `points` is all that
    was recorded, `priorities` the share of requests of each.
    """
    compared = [p for p in points if p.phase == "verify" and p.measurement is not None]
    rated = ratings(points, predictions, compared or None)
    pooled = _pooled(repeats) or _as_searched(points)
    able = {name: r for name, r in rated.items() if _allowed(name, pooled, config.constraints)}
    wanted = bound_rows(able, bounds_ms)
    # Where nobody keeps to the bound that was asked for, what comes nearest is something to run.
    rows = wanted or bound_rows(able, ladder(max(bounds_ms)))
    answer = _answer(able, rows, config, list(pooled.values()), priorities)
    if answer is not None and not compared:  # the best found so far
        answer = replace(answer, decided=False)
    moved = drift(points)
    return Verified(
        points=_marked(pooled, answer),
        slo=_slo(wanted, config, compared=bool(compared)),
        bounds=rows,
        answer=answer,
        rule=config.rule,
        compared=bool(compared),
        estimates=_estimates(pooled, points, predictions),
        insight=None if predictions is None else insight(points, predictions),
        drift=str(moved) if moved is not None and moved.beyond_noise else "",
        disturbed=tally(points),
    )


def _pooled(repeats: Mapping[str, Sequence[Repeat]]) -> Pooled:
    kept = {n: [r for r in own if r[0].measurement is not None] for n, own in repeats.items()}
    return {name: pool(own) for name, own in kept.items() if own}


def _as_searched(points: Sequence[Point]) -> Pooled:
    """Where there was no time to compare anything, the points of the search stand in."""
    return {p.name: p for p in points if p.share is not None and p.measurement is not None}


def _allowed(name: str, pooled: Pooled, demands: Constraints) -> bool:
    """Whether no other demand than that on p99 is surely missed wherever it was measured."""
    others = [d for d in demands.objectives if d.field != "p99_ms"]
    own = [p for p in pooled.values() if p.configuration == name and p.outcome]
    return not own or any(all(d.standing(p) != "missed" for d in others) for p in own)


def _answer(
    rated: Mapping[str, Rating],
    rows: Sequence[BoundRow],
    config: StudyConfig,
    pooled: Sequence[Point],
    priorities: Mapping[int, float],
) -> BoundRow | None:
    """The recommended configuration, within the bound that it is quoted at."""
    kept = [row.p99_ms for row in rows]
    if not kept:
        return None
    if config.rule == "slo":
        return row_of(rated, best_within(rated, kept[0]), kept[0])
    if config.rule == "balanced":
        known = [row.p99_ms for row in rows if row.measured and row.low_rps > 0] or kept
        best = balanced(rated, known)
        return row_of(rated, best, quoted(best, known))
    options = [p for p in pooled if p.outcome and p.configuration in rated]
    held = RULES[config.rule]([_option(p) for p in options], config.wish(priorities))
    if held is None:
        return None
    chosen = rated[options[held].configuration]
    return row_of(rated, chosen, quoted(chosen, kept) if len(kept) > 1 else kept[0])


def _marked(pooled: Pooled, answer: BoundRow | None) -> tuple[Point, ...]:
    """With the front among them, and the point that is nearest to the answer."""
    held = [(name, p.outcome) for name, p in pooled.items() if p.outcome]
    front = {held[i][0] for i in front_indices([outcome for _, outcome in held])}
    pick = None if answer is None else _nearest(pooled, answer)
    return tuple(
        p.model_copy(update={"on_front": name in front, "recommended": name == pick})
        for name, p in pooled.items()
    )


def _nearest(pooled: Pooled, answer: BoundRow) -> str | None:
    """The name of its busiest operating point within the bound, or failing that of the quickest."""
    own = [(n, p.outcome) for n, p in pooled.items() if p.configuration == answer.configuration and p.outcome]  # fmt: skip
    within = [(o.throughput_rps, n) for n, o in own if o.p99_ms <= answer.p99_ms]
    if within:
        return max(within)[1]
    return min(((o.p99_ms, n) for n, o in own), default=(0.0, None))[1]


def _estimates(
    pooled: Pooled, points: Sequence[Point], predictions: Predictions | None
) -> dict[str, Estimate]:
    """Smoothed values of these points; none of what was not predicted."""
    if predictions is None:
        return {}
    return Correction.of(points, predictions).estimates(list(pooled.values()))


def _option(point: Point) -> Option:
    m = _measured(point)
    assert m.p99_ms is not None
    queued_ms = m.server_queue_ms
    waiting_ms = None if queued_ms is None else queued_ms + (m.connect_mean_ms or 0.0)
    times = (m.server_compute_ms, waiting_ms)
    return Option(m.throughput_rps, m.p99_ms, m.p99_low_ms, m.p99_high_ms, *times)


def _slo(rows: Sequence[BoundRow], config: StudyConfig, *, compared: bool) -> str:
    """Whether the bound that was asked for can be kept, and by anything that was compared."""
    if config.slo_p99_ms is None:
        return "none"
    if not compared:
        return "undecided"
    if not rows:
        return "missed"
    return "met" if rows[0].low_rps > 0 and rows[0].measured else "undecided"


def _measured(point: Point) -> Measurement:
    assert point.measurement is not None
    return point.measurement
