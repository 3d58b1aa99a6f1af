"""Do two results differ, and can the data tell? Pure.

Each figure of either side has its own 95 % interval, which knows that requests depend on each
other; the interval of the ratio is recovered from the two. (G. Y. Zou, A. Donner, Construction of
confidence limits about effect measures: a general approach, Statistics in Medicine 27, 2008.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Self

import numpy as np

from dlbench.loadgen.analysis.statistics import (
    UNDETERMINED,
    Z_95,
    Interval,
    mean_interval,
    pooled_mean_interval,
    pooled_quantile_interval,
    quantile,
    window_rates,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlbench.loadgen.analysis.samples import Samples
    from dlbench.loadgen.analysis.statistics import Floats
    from dlbench.loadgen.measurement import Measurement

QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999}


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval; `UNDETERMINED` where the run cannot tell.

    A quantile that falls among failed requests is infinite: it is longer than `longest_ms`.
    """

    value: float | None
    interval: Interval = UNDETERMINED
    longest_ms: float | None = None


@dataclass(frozen=True)
class Runs:
    """What was measured on one side: one entry per repeat in both fields.

    Latencies in ms in order of time, infinite for what failed, and the throughput of equal windows in requests per second.
    """

    latencies_ms: Sequence[Floats]
    rates_rps: Sequence[Floats] = field(default_factory=tuple)
    longest_ms: float | None = None

    @classmethod
    def of(cls, repeats: Sequence[Samples]) -> Self:
        """From the raw records of one run or of its repeats."""
        return cls(
            [samples.latencies_ms for samples in repeats],
            [window_rates(samples.completed_ns, samples.reply_window_ns) for samples in repeats],
            max((samples.longest_ms or 0.0 for samples in repeats), default=None),
        )

    def figures(self) -> dict[str, Figure]:
        """Every figure that can be compared, with its interval; the mean is of what was answered."""
        runs = [run for run in self.latencies_ms if len(run)]
        if not runs:
            return {}
        ordered = np.sort(np.concatenate(runs))
        answered = [own for run in runs if len(own := run[np.isfinite(run)])]
        found = {"throughput_rps": _throughput(self.rates_rps)} if self.rates_rps else {}
        if answered:
            mean = float(np.concatenate(answered).mean())
            found["mean_ms"] = Figure(mean, pooled_mean_interval(answered))
        for name, q in QUANTILES.items():
            interval = pooled_quantile_interval(runs, q)
            found[name] = Figure(quantile(ordered, q), interval, self.longest_ms)
        return found


@dataclass(frozen=True)
class Difference:
    """One figure of both sides; the ratio is that of the second to the first."""

    name: str
    first: float
    second: float
    interval: Interval
    # The same interval, widened so that 95 % holds for all figures of the comparison at once.
    together: Interval

    @property
    def ratio(self) -> float | None:
        """None where the first value is 0, or both are infinite."""
        return ratio(self.first, self.second)


def ratio(first: float, second: float) -> float | None:
    """Second over first; None where the first is 0, or both are infinite."""
    if not first or (math.isinf(first) and math.isinf(second)):
        return None
    return second / first


@dataclass(frozen=True)
class Comparison:
    """All figures that both sides have."""

    differences: tuple[Difference, ...]

    @property
    def tells(self) -> bool:
        """Whether any figure differs: at most one comparison in 20 of equal servers says so.

        Many figures have many chances to differ by luck, so the widened intervals decide.
        """
        return any(excludes_one(difference.together) for difference in self.differences)

    def __getitem__(self, name: str) -> Difference:
        """The difference of one figure, as "p99_ms"; raises KeyError when a side lacks it."""
        try:
            return next(found for found in self.differences if found.name == name)
        except StopIteration:
            raise KeyError(name) from None


def compare_figures(
    first: Mapping[str, Figure], second: Mapping[str, Figure], together: int = 0
) -> Comparison:
    """The figures that both have, in the first one's order.

    `together` is how many figures are compared in all; 0: no more than these.
    """
    both = [name for name in first if name in second]
    wider = widening(together or len(both))
    return Comparison(
        tuple(
            Difference(name, a.value, b.value, ratio_interval(a, b), ratio_interval(a, b, wider))
            for name in both
            if (a := first[name]).value is not None and (b := second[name]).value is not None
        )
    )


def ratio_interval(first: Figure, second: Figure, wider: float = 1.0) -> Interval:
    """95 % interval of second/first; undetermined where one of them is, or is not positive.

    Where a value is infinite, the ends of the two intervals are what is left to go by.
    """
    a, b = _logs(first), _logs(second)
    if a is None or b is None:
        return UNDETERMINED
    if math.inf in (a[1], b[1]):
        return _exp_of_difference(b[0], a[2], 0.0), _exp_of_difference(b[2], a[0], math.inf)
    middle = b[1] - a[1]
    down = wider * math.hypot(b[1] - b[0], a[2] - a[1])
    up = wider * math.hypot(b[2] - b[1], a[1] - a[0])
    return math.exp(middle - down), math.exp(middle + up)


def _exp_of_difference(b: float, a: float, unknown: float) -> float:
    return unknown if math.isinf(a) and math.isinf(b) else math.exp(b - a)


def _logs(figure: Figure) -> tuple[float, float, float] | None:
    low, high = figure.interval
    if figure.value is None or low is None or high is None or min(low, figure.value) <= 0:
        return None
    return math.log(low), math.log(figure.value), math.log(high)


def widening(figures: int) -> float:
    """Factor by which this many intervals widen to hold jointly at 95 % (Bonferroni)."""
    return NormalDist().inv_cdf(1 - 0.025 / max(1, figures)) / Z_95


def excludes_one(interval: Interval) -> bool:
    """Whether an interval of a ratio is sure that something differs."""
    low, high = interval
    return low is not None and high is not None and not low <= 1 <= high


def _throughput(rates: Sequence[Floats]) -> Figure:
    """Repeats are independent and their windows nearly so: the repeats decide if there are three."""
    means = [float(run.mean()) for run in rates if len(run)]
    if not means:
        return Figure(None)
    values = np.array(means) if len(means) >= 3 else np.concatenate(list(rates))
    return Figure(float(np.mean(means)), mean_interval(values))


def reported(measurement: Measurement) -> dict[str, Figure]:
    """The figures of a result whose samples are gone."""
    found = measurement.model_dump()
    figures = {
        "throughput_rps": Figure(
            measurement.throughput_rps, _ends(found, "throughput_low_rps", "throughput_high_rps")
        )
    }
    for name in ("mean_ms", *QUANTILES):
        stem = name.removesuffix("_ms")
        ends = _ends(found, f"{stem}_low_ms", f"{stem}_high_ms")
        figures[name] = Figure(found[name], ends, measurement.longest_ms)
    return figures


def _ends(found: dict[str, float | None], low: str, high: str) -> Interval:
    ends = found.get(low), found.get(high)
    return UNDETERMINED if ends[0] is None or ends[1] is None else (ends[0], ends[1])
