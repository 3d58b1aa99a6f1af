"""Two finished studies against each other: what they recommend, their fronts, what both measured. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dlbench.loadgen.analysis.differences import Figure, reported, widening
from dlbench.loadgen.analysis.statistics import UNDETERMINED, Z_95
from dlbench.loadgen.quantity import digits
from dlbench.proxy.knob import KNOBS
from dlbench.results.compare.comparison import Compared, Pair, changes, difference, shown, the_load
from dlbench.results.findings import numbers
from dlbench.tuner.front import Outcome, hypervolume
from dlbench.tuner.search.correction import CAPACITY_NOISE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dlbench.tuner.point import Point
    from dlbench.tuner.verify.verification import Verified

# DESIGN.md: the p99 that hypervolumes are measured against where no bound is stated.
REFERENCE_MS = 1000.0
AT_ONE_RATE = "dlbench verify, which measures at the study's own rate,"
# More throughput at a longer p99 is another place on the front, not a worse one.
TRADED = frozenset({"throughput_rps", "p99_ms"})
NOT_COMPARED = frozenset({"load", "seed"})


@dataclass(frozen=True)
class Finished:
    """What a study left: its result, what it was about, and the versions it was made with."""

    result: Verified
    identity: Mapping[str, Any]
    versions: Mapping[str, str]


def studies(first: Finished, second: Finished, reference_ms: float = REFERENCE_MS) -> Compared:
    """The second against the first; both have a result."""
    a, b = first.result, second.result
    best_rps = max(
        (p.measurement.throughput_rps for p in _measured([*a.front, *b.front])), default=1.0
    )
    sides = ((a.front, b.front), (b.front, a.front))
    areas = [front_area(one, best_rps, reference_ms, other) for one, other in sides]
    pairs = {**_recommended(a, b), **_fronts(*areas), **dict(_measured_by_both(a, b))}
    floor = _floor(a, b, sum(pair.figures for pair in pairs.values()))
    return Compared(
        ("A", "B"),
        changes(pairs),
        (*_notes(first, second), *([_said(floor)] if floor else [])),
        _senseless(first, second),
        ("B recommends nothing, but A did",) if a.recommended and not b.recommended else (),
        AT_ONE_RATE if floor else "a longer --budget for both",
        TRADED,
    )


def _fronts(first: Figure, second: Figure) -> dict[str, Pair]:
    """Nothing where every p99 is beyond the reference: areas of 0 tell nothing."""
    found = Pair({"hypervolume": first}, {"hypervolume": second})
    return {"front": found} if first.value or second.value else {}


def _floor(first: Verified, second: Verified, figures: int) -> float:
    """The smallest throughput loss that exceeds the probes' own error; 0: any."""
    a, b = first.recommended, second.recommended
    if a is None or b is None:
        return 0.0
    return 1 - math.exp(-widening(figures) * Z_95 * math.hypot(_noise(a, b), _noise(b, a)))


def _said(floor: float) -> str:
    return (
        "rates are shares of capacities, of which one probe and the next differ by "
        f"{CAPACITY_NOISE:.0%}: a measured loss of throughput below about "
        f"{digits(floor * 100, 2)}% is neither "
        "shown nor ruled out"
    )


def front_area(
    front: Sequence[Point], best_rps: float, reference_ms: float, other: Sequence[Point] = ()
) -> Figure:
    """The hypervolume of a front, with an interval made of those of its points.

    `other` is the front that it is held against: what both measured at one rate has no noise of
    probes.

    Each figure of each point adds the square of what its own ends do to the area: the method of
    variance estimates recovery (loadgen/analysis/differences.py), to first order. What all points have in
    common, as a machine that was slower that day, is not in it.
    """
    twins = {(p.config, p.share): p for p in other}
    ends = [tuple(_figures(p, twins.get((p.config, p.share))).values()) for p in front]
    values = [Outcome(rate.value or 0.0, p99.value or math.inf) for rate, p99 in ends]
    area = hypervolume(values, best_rps, reference_ms)
    if not all(_known(figure) for pair in ends for figure in pair):
        return Figure(area)
    moved = [
        hypervolume([*values[:i], other, *values[i + 1 :]], best_rps, reference_ms) - area
        for i, pair in enumerate(ends)
        for other in _at_the_ends(values[i], *pair)
    ]
    down = math.hypot(*(min(0.0, by) for by in moved))
    return Figure(area, (max(0.0, area - down), area + math.hypot(*(max(0.0, by) for by in moved))))


def _at_the_ends(value: Outcome, rate: Figure, p99: Figure) -> Iterator[Outcome]:
    for end in rate.interval:
        yield value._replace(throughput_rps=end or 0.0)
    for end in p99.interval:
        yield value._replace(p99_ms=end or math.inf)


def _recommended(first: Verified, second: Verified) -> dict[str, Pair]:
    a, b = first.recommended, second.recommended
    return {"recommended": Pair(_figures(a, b), _figures(b, a))} if a and b else {}


def _measured_by_both(first: Verified, second: Verified) -> Iterator[tuple[str, Pair]]:
    """Points of the same configuration at the same share of its capacity."""
    known = {(p.config, p.share): p for p in _measured(second.points)}
    for point in _measured(first.points):
        other = known.get((point.config, point.share))
        if other is None or (point.recommended and other.recommended):
            continue
        names = dict.fromkeys((point.name, other.name))
        pair = Pair(_figures(point, other), _figures(other, point), decides=False)
        yield " / ".join(names), pair


def _measured(points: Sequence[Point]) -> list[Any]:
    return [p for p in points if p.outcome is not None]


def _figures(point: Point, other: Point | None) -> dict[str, Figure]:
    """The figures that can be compared with another point's.

    At a share of a capacity that was found a little wrong, a queue is longer or shorter: as the
    quantiles of M/M/1 go with 1 / (1 - utilisation), so does what is unsure of them.
    """
    noise, share = _noise(point, other), min(point.share or 0.0, 0.95)
    return {
        "throughput_rps": _noisier(_reported(point, "throughput_rps"), noise),
        "p99_ms": _noisier(_reported(point, "p99_ms"), noise * share / (1 - share)),
    }


def _noise(point: Point, other: Point | None) -> float:
    """The logarithmic error of a point's rate, which is a share of one probe's capacity.

    Of one configuration it is at most what the two rates differ by: at the same rate both sides
    were asked the same, whatever their probes said.
    """
    rates = [_offered_rps(one) for one in (point, other) if one is not None]
    if other is None or point.config != other.config or not all(rates):
        return CAPACITY_NOISE
    return min(CAPACITY_NOISE, abs(math.log(rates[0] / rates[1])))


def _offered_rps(point: Point) -> float:
    measured = point.measurement
    return (measured.offered_rps or measured.throughput_rps) if measured else 0.0


def _reported(point: Point, name: str) -> Figure:
    return reported(point.measurement)[name] if point.measurement else Figure(None)


def _noisier(figure: Figure, spread: float) -> Figure:
    """With an interval as wide as another normal error of this deviation in the logarithm makes it."""
    low, high = figure.interval
    if figure.value is None or low is None or high is None or low <= 0:
        return replace(figure, interval=UNDETERMINED)
    down = math.hypot(math.log(figure.value / low), Z_95 * spread)
    up = math.hypot(math.log(high / figure.value), Z_95 * spread)
    return replace(figure, interval=(figure.value * math.exp(-down), figure.value * math.exp(up)))


def _known(figure: Figure) -> bool:
    return figure.interval != UNDETERMINED


def _notes(first: Finished, second: Finished) -> Iterator[str]:
    """What may make it senseless, then what each recommends."""
    a, b = first.identity, second.identity
    yield from difference("load", the_load(a["load"]), the_load(b["load"]))
    searched = set(KNOBS)
    about = [{f: v for f, v in i.items() if f not in searched | NOT_COMPARED} for i in (a, b)]
    yield from difference("study", *about)
    yield from difference(
        "values searched", *({f: i[f] for f in i if f in searched} for i in (a, b))
    )
    yield from difference("versions", first.versions, second.versions)
    for name, finished in (("A", first), ("B", second)):
        pick = finished.result.recommended
        yield f"{name} recommends {f'{pick.name}: {numbers(pick)}' if pick else 'nothing'}"
    yield from _knobs(first.result.recommended, second.result.recommended)


def _knobs(first: Point | None, second: Point | None) -> Iterator[str]:
    if first is None or second is None:
        return
    found = [
        f"{knob} {shown(value)}, not {shown(getattr(first.config, knob))}"
        for knob, value in second.config
        if value != getattr(first.config, knob)
    ]
    yield f"B's has {'; '.join(found)}" if found else "both recommend the same configuration"


def _senseless(first: Finished, second: Finished) -> str:
    a, b = (the_load(finished.identity["load"]) for finished in (first, second))
    return "they were measured under different loads" if a != b else ""
