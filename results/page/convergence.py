"""How far a search had got by when: hypervolume against the time that a study spent. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dlbench.results.findings import BASELINES
from dlbench.tuner.front import hypervolume

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dlbench.tuner.front import Outcome
    from dlbench.tuner.point import Point


class Reached(NamedTuple):
    """The hypervolume of everything that had been measured after `spent_s`, as it was measured.

    Of noisy points the luckiest make the front, so this is more than what verification leaves.
    """

    spent_s: float
    hypervolume: float


class Stage(NamedTuple):
    """What a study was doing from `from_s` on, up to the next stage."""

    name: str
    from_s: float


def progress(
    points: Sequence[Point], best_rps: float, before_s: float = 0.0, reference_ms: float = 1000.0
) -> list[Reached]:
    """One entry per point of the search that raised the hypervolume, and one for the search's end.

    `before_s` is what was spent before the first point, on calibration; `best_rps` and
    `reference_ms` are what hypervolume is measured against.
    """
    seen: list[Outcome] = []
    found: list[Reached] = []
    for point, spent_s in zip(points, _spent(points, before_s), strict=True):
        if point.phase == "verify":
            break
        seen += [] if point.outcome is None else [point.outcome]
        found.append(Reached(spent_s, hypervolume(seen, best_rps, reference_ms)))
    rises = [b for a, b in zip([Reached(0.0, 0.0), *found], found, strict=False) if b[1] > a[1]]
    return rises + [last for last in found[-1:] if last not in rises]


def stages(points: Sequence[Point], before_s: float = 0.0) -> list[Stage]:
    """Calibration, baselines, search and verification, as far as the study got."""
    begins = [before_s, *_spent(points, before_s)]
    found = {"calibration": 0.0} if before_s else {}
    for point, begin_s in zip(points, begins, strict=False):
        found.setdefault(_stage(point), begin_s)
    return [Stage(name, from_s) for name, from_s in found.items()]


def best_throughput(points: Iterable[Point]) -> float:
    """The highest throughput of any point that may stand on a front, 0 if none may."""
    return max((p.outcome.throughput_rps for p in points if p.outcome), default=0.0)


def _spent(points: Iterable[Point], before_s: float) -> list[float]:
    """The study time at which each point was done; for points without it, their costs."""
    found, now_s = list[float](), before_s
    for point in points:
        now_s = now_s + point.cost_s if point.spent_s is None else point.spent_s
        found.append(now_s)
    return found


def _stage(point: Point) -> str:
    if point.phase == "verify":
        return "verification"
    return "baselines" if point.configuration in BASELINES and point.phase != "drift" else "search"
