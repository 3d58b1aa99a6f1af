"""What a person demands of an operating point: `--slo error_rate<0.1%`, `--max-memory 2GB`. Pure.

A point's figures have two readings: the estimate, which a search goes by, and the ends of the 95 %
interval, which a promise goes by. Screening is too short to promise an error rate of 0.1 %.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ByteSize, TypeAdapter, ValidationError

from dlbench.loadgen.analysis.statistics import Z_95

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlbench.loadgen.measurement import Measurement
    from dlbench.tuner.point import Point
    from dlbench.tuner.recommend import Standing

SLO = re.compile(r"\s*(\w+)\s*([<>])=?\s*(\d+\.?\d*|\.\d+)\s*([a-z%/]*)\s*", re.IGNORECASE)
MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
SHARE = {"": 1.0, "%": 0.01}
RATE = {"": 1.0, "/s": 1.0}
BYTES_PER_MB = 1e6
# What is not known does not hold: as bad as a figure that is twice its bound.
UNKNOWN = 1.0
WORST_FIRST: tuple[Standing, ...] = ("missed", "undecided", "met")
Ends = tuple[float | None, float | None]


@dataclass(frozen=True)
class Demandable:
    """A figure that may be demanded: its field of a point, its units, and which way is better."""

    field: str
    units: Mapping[str, float]
    sign: str = "<"


FIGURES = {
    "p50": Demandable("p50_ms", MS),
    "p90": Demandable("p90_ms", MS),
    "p95": Demandable("p95_ms", MS),
    "p99": Demandable("p99_ms", MS),
    "p999": Demandable("p999_ms", MS),
    "error_rate": Demandable("error_rate", SHARE),
    "throughput": Demandable("throughput_rps", RATE, ">"),
}


@dataclass(frozen=True)
class Demand:
    """One demand: `field` stays under `bound` (`sign` "<") or over it (">"). Bounds may be met exactly."""

    field: str
    bound: float
    text: str
    sign: str = "<"

    def violation(self, value: float | None) -> float:
        """How far a value is off, as a share of the bound; 0 or less: met.

        Raises:
            ValueError: the value is not a number.
        """
        if value is None:
            return UNKNOWN
        if math.isnan(value):
            raise ValueError(f"{self.field} is not a number, so {self.text} cannot be judged")
        over = value - self.bound if self.sign == "<" else self.bound - value
        return over / (self.bound or 1.0)

    def worst(self, point: Point) -> float:
        """The violation at the end of the 95 % interval that says the worst of the point."""
        low, high = ends(point, self.field)
        return self.violation(high if self.sign == "<" else low)

    def standing(self, point: Point) -> Standing:
        """Met or missed only where the whole 95 % interval says so."""
        if self.worst(point) <= 0:
            return "met"
        low, high = ends(point, self.field)
        best = low if self.sign == "<" else high
        return "undecided" if best is None or self.violation(best) <= 0 else "missed"


@dataclass(frozen=True)
class Constraints:
    """All that is demanded, in Optuna's sense: one number for each, 0 or less where it is met."""

    objectives: tuple[Demand, ...] = ()

    def estimated(self, point: Point) -> tuple[float, ...]:
        """By the measured values themselves, to search by: what is 0 or less seems to be met."""
        return tuple(o.violation(figure(point, o.field)) for o in self.objectives)

    @property
    def most_server_mb(self) -> float:
        """The bound on the server's memory in MB; infinite if there is none."""
        return min(
            (o.bound for o in self.objectives if o.field == "server_rss_mb"), default=math.inf
        )

    def standing(self, point: Point) -> Standing:
        """Met only if every demand is, missed if one of them is."""
        found = {o.standing(point) for o in self.objectives}
        return min(found, key=WORST_FIRST.index, default="met")


def parse_slo(text: str) -> Demand:
    """The objective of `error_rate<0.1%`, `p95<20ms` or `throughput>500`.

    Raises:
        ValueError: a line that names the option and what it takes.
    """
    found = SLO.fullmatch(text)
    wanted = FIGURES.get(found[1].lower()) if found else None
    if found is None or wanted is None:
        raise ValueError(
            f"--slo {text}: must be FIGURE<BOUND, such as error_rate<0.1%; figures are "
            f"{', '.join(FIGURES)}"
        )
    if found[2] != wanted.sign:
        raise ValueError(f"--slo {text}: use {wanted.sign} for {found[1]}")
    unit = wanted.units.get(found[4].lower())
    if not found[4] and unit is None:
        bare = text.strip()
        raise ValueError(f"--slo {text} needs a unit: {bare}ms or {bare}s")
    if unit is None:
        units = ", ".join(filter(None, wanted.units))
        raise ValueError(f"--slo {text}: {found[4]} is not a unit of {found[1]}; use {units}")
    return Demand(wanted.field, float(found[3]) * unit, text.strip(), wanted.sign)


def parse_memory(text: str, option: str, field: str) -> Demand:
    """The objective of `--max-memory 2GB`, on a field in MB (a million bytes).

    Raises:
        ValueError: a line that names the option and what it takes.
    """
    try:
        size = TypeAdapter(ByteSize).validate_python(text)
    except ValidationError:
        size = ByteSize(0)
    if size <= 0:
        raise ValueError(f"{option} {text}: must be a size over 0, such as 2GB or 512MiB")
    return Demand(field, size / BYTES_PER_MB, f"{option} {text}")


def figure(point: Point, field: str) -> float | None:
    """What was measured, None where it was not."""
    if field in type(point.resources).model_fields:
        return getattr(point.resources, field)  # type: ignore[no-any-return]  # all are floats
    return None if point.measurement is None else getattr(point.measurement, field)


def ends(point: Point, field: str) -> Ends:
    """The 95 % interval of a figure; what is only read off, as memory is, stands for itself."""
    measured = point.measurement
    if field in type(point.resources).model_fields:
        return figure(point, field), figure(point, field)
    if measured is None:
        return None, None
    if field == "error_rate":
        return wilson(measured)
    stem, _, unit = field.rpartition("_")
    return getattr(measured, f"{stem}_low_{unit}"), getattr(measured, f"{stem}_high_{unit}")


def wilson(measured: Measurement) -> Ends:
    """95 % interval of the error rate (Wilson, JASA 22:209, 1927); None without a request.

    It takes errors for independent. They come together, so the truth may lie further out.
    """
    n, p = measured.requests, measured.error_rate
    if not n:
        return None, None
    weight = Z_95**2 / n
    middle = (p + weight / 2) / (1 + weight)
    half = Z_95 / (1 + weight) * math.sqrt(p * (1 - p) / n + weight / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)
