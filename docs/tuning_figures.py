"""Draws how-tuning-works.md's pictures from a finished study: `python docs/tuning_figures.py STUDY.db`.

The twin's predictions are no part of a study; they are made again from its calibration, in some 15 s.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.knob import KNOBS
from dlbench.results.chart import Axis, Plot, picture
from dlbench.results.picture import (
    BASELINE,
    BEST,
    LOOKS,
    P99,
    RATE,
    ends,
    front_svg,
    loaded,
    p99,
    rate,
    spot,
    verified_mark,
)
from dlbench.tuner.plan import of_search
from dlbench.tuner.search.correction import Correction
from dlbench.tuner.space import Space
from dlbench.tuner.storage.study import Study
from dlbench.tuner.twin.calibration import Calibration
from dlbench.tuner.twin.foresight import foresee, load_of
from dlbench.tuner.verify.verification import Verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dlbench.proxy.config import ServingConfig
    from dlbench.results.chart import Spot
    from dlbench.tuner.point import Point
    from dlbench.tuner.search.correction import Estimate
    from dlbench.tuner.twin.predictions import Predictions

ROW = 34  # height of one in the table of candidates
# The loads at which curves are drawn, as shares of the capacity.
SHARES = np.linspace(0.1, 0.95, 35).tolist()
# So far off a prediction may be and still lie within the band.
OFF = 1.25


@dataclass(frozen=True)
class Evidence:
    """What a study measured, what it reports of that, and what the twin had expected."""

    points: list[Point]
    result: Verified
    predictions: Predictions

    @classmethod
    def read(cls, path: Path) -> Self:
        """Of a study file.

        Raises:
            StudyUnreadable: it is none.
            ValueError: the study is not finished, or was not made with the twin.
        """
        study = Study.open(path)
        points, result = study.points(), Verified.of(study.verified)
        if result.recommended is None or "calibration" not in study.calibration:
            raise ValueError(f"{path}: not a study of the twin's that recommends something")
        calibration = Calibration.model_validate(study.calibration["calibration"])
        load = load_of(LoadProfile(**study.identity["load"]))
        found = foresee(space_of(study, points, calibration.cores), calibration, load)
        assert found.predictions is not None
        return cls(points, result, found.predictions)

    @cached_property
    def search(self) -> list[Point]:
        """The points that searching made, before anything was verified."""
        return of_search(self.points)

    @cached_property
    def correction(self) -> Correction:
        """What the search taught about the predictions."""
        return Correction.of(self.search, self.predictions)

    @property
    def picked(self) -> Point:
        """The recommended operating point."""
        assert self.result.recommended is not None
        return self.result.recommended

    def expected_rps(self, config: ServingConfig) -> float:
        """The capacity that the twin predicts."""
        return float(self.predictions.capacity_rps[self.predictions.rows[config]])

    def expected_ms(self, config: ServingConfig, rate_rps: float) -> float:
        """The p99 that the twin predicts at a rate."""
        share = rate_rps / self.expected_rps(config)
        return math.exp(self.predictions.log_p99_at(self.predictions.rows[config], share))

    def corrected(self, like: Point) -> list[tuple[float, Estimate]]:
        """The smoothed curve of a point's configuration: rates, and what is expected at each."""
        assert like.measurement is not None
        assert like.share
        whole = like.measurement.throughput_rps / like.share
        rates = {share: share * whole for share in SHARES}
        points = [at(like, share, rate_rps) for share, rate_rps in rates.items()]
        found = self.correction.estimates(points)
        return [(rates[p.share], found[p.name]) for p in points if p.share]


def space_of(study: Study, points: Iterable[Point], cores: int) -> Space:
    """The space that was searched, as the study's identity tells it."""
    known = {knob: tuple(study.identity[knob]) for knob in KNOBS}
    default = next(p.config for p in points if p.configuration == "default")
    return Space({knob: own for knob, own in known.items() if len(own) > 1}, default, cores)


def at(point: Point, share: float, rate_rps: float) -> Point:
    """The same configuration at another load, which nobody measured."""
    assert point.measurement is not None
    load = point.measurement.model_copy(update={"offered_rps": rate_rps})
    return point.model_copy(update={"share": share, "measurement": load})


def twin(seen: Evidence) -> str:
    """Predicted against measured: capacities above, p99s below."""
    probes = [p for p in seen.search if p.share is None and p.measurement]
    capacities = [(p, (seen.expected_rps(p.config), rate(p))) for p in probes]
    held = [p for p in seen.search if p.outcome]
    tails = [(p, (seen.expected_ms(p.config, rate(p)), p99(p))) for p in held]
    key = [
        (*BASELINE, "naive and default"),
        (*BEST, "configurations of the search"),
        ("line", "grey", "exactly as predicted"),
        ("band", "grey", "within 25 % of that"),
    ]
    plots = [against("capacity (per second)", capacities), against(P99, tails)]
    return picture("Capacities and p99s, as measured over as predicted", key, plots)


def against(figure: str, known: Sequence[tuple[Point, Spot]]) -> Plot:
    """Pairs (predicted, measured) that ought to be equal, on two axes that are."""
    x = Axis.around(f"predicted {figure}", [value for _, pair in known for value in pair])
    plot = Plot(x, Axis(f"measured {figure}", x.low, x.high)).axes()
    along = np.geomspace(x.low, x.high, 50).tolist()
    low, high = ([(v, x.inside(v * factor)) for v in along] for factor in (1 / OFF, OFF))
    plot.band(low, high, "grey")
    plot.curve([(x.low, x.low), (x.high, x.high)], "grey")
    for point, pair in known:
        plot.mark(pair, *(BASELINE if point.configuration in LOOKS else BEST))
    return plot


def correction(seen: Evidence) -> str:
    """The recommended configuration: the twin's curve, what was measured, and what follows."""
    name, config = seen.picked.configuration, seen.picked.config
    measured, again = (
        loaded(seen.search, name),
        [p for p in seen.result.points if p.configuration == name],
    )
    rates = [share * seen.expected_rps(config) for share in SHARES]
    expected = [(r, seen.expected_ms(config, r)) for r in rates]
    curve = seen.corrected(measured[0])
    low, high = ([(r, getattr(e, end)) for r, e in curve] for end in ("p99_low_ms", "p99_high_ms"))
    points = [spot(p) for p in [*measured, *again]]
    plot = Plot(
        Axis.around(RATE, [x for x, _ in [*expected, *low, *points]], even=True),
        Axis.around(P99, [y for _, y in [*expected, *low, *high, *points]]),
    ).axes()
    plot.band(low, high, "blue")
    plot.curve(expected, "red dashed")
    plot.curve([(r, e.p99_ms) for r, e in curve], "blue")
    for p in measured:
        plot.mark(spot(p), "circle", "blue")
    for p in again:
        verified_mark(plot, p, "grey")
    key = [
        ("line", "red dashed", f"{name} as the twin predicts it"),
        ("circle", "blue", "measured in the search"),
        ("line", "blue", "corrected by all of the search"),
        ("band", "blue", "95 % band of the corrected curve"),
        ("diamond", "hollow grey", "verified afterwards"),
    ]
    return picture(f"p99 of {name}: predicted, measured and corrected", key, [plot])


def verification(seen: Evidence) -> str:
    """A row for each candidate: the p99 that it was found with, and the one measured again."""
    first = {p.name: p for p in seen.search if p.outcome}
    shown = [p for p in seen.result.points if p.outcome and p.name in first]
    values = [v for p in shown for v in (p99(first[p.name]), p99(p))]
    rows = Axis("", len(shown) - 0.5, -0.5, even=True)
    plot = Plot(Axis.around(P99, values, room=3), rows, ROW * len(shown), left=126).scale()
    for row, p in enumerate(shown):
        plot.label((plot.x.low, row), p.name, (-12, 6), "end")
        plot.interval((ends(p)[0], row), (ends(p)[1], row), "blue")
        plot.mark((p99(p), row), "diamond", "blue")
        plot.mark((p99(first[p.name]), row), "circle", "hollow red")
    key = [
        ("circle", "hollow red", "in the search, measured once"),
        ("diamond", "blue", "verified, with its 95 % interval"),
    ]
    return picture("p99 of each candidate, in the search and verified", key, [plot])


PICTURES: dict[str, Callable[[Evidence], str]] = {
    "operating-points": lambda seen: front_svg(seen.points, seen.result),
    "twin": twin,
    "correction": correction,
    "verification": verification,
}

if __name__ == "__main__":
    evidence = Evidence.read(Path(sys.argv[1]))
    for name, drawn in PICTURES.items():
        Path(__file__).with_name(f"{name}.svg").write_text(drawn(evidence), encoding="utf-8")
