"""The verified points as a plot of characters: throughput to the right, p99 upwards. Pure.

Every kind of point has a character of its own, named below the plot: nothing depends on colour.
"""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, NamedTuple

import plotext

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlbench.tuner.front import Outcome
    from dlbench.tuner.point import Point
    from dlbench.tuner.verify.verification import Verified

# What a point is: the first kind that fits. Where two share a cell, the earlier kind is seen.
KINDS: tuple[tuple[str, str, Callable[[Point], bool]], ...] = (
    ("*", "recommended", lambda point: point.recommended),
    ("n", "naive", lambda point: point.configuration == "naive"),
    ("d", "default", lambda point: point.configuration == "default"),
    ("o", "front", lambda point: point.on_front),
    ("x", "not on the front", lambda _: True),
)
STEPS = (1.0, 2.0, 5.0)
MOST_TICKS = 8
# Beyond this ratio of the largest to the smallest, an axis of p99 is logarithmic.
LINEAR_RATIO = 10.0
# What the frame is of where only ASCII is safe: in files and pipes.
ASCII = str.maketrans("─│┌┐└┘├┤┬┴┼", "-|+++++++++")


class Series(NamedTuple):
    """Points of one kind, the character that stands for each of them, and what it means."""

    mark: str
    name: str
    outcomes: tuple[Outcome, ...]


class TickedAxis(NamedTuple):
    """From the first tick to the last, both of them round numbers."""

    ticks: tuple[float, ...]
    logarithmic: bool

    def place(self, value: float) -> float:
        """Where a value belongs, in the axis' own unit."""
        return math.log10(value) if self.logarithmic else value

    @property
    def ends(self) -> tuple[float, float]:
        """Where the axis begins and ends, in its own unit."""
        return self.place(self.ticks[0]), self.place(self.ticks[-1])

    @property
    def labels(self) -> dict[float, str]:
        """Place -> text; of many logarithmic ticks only powers of ten have one."""
        many = self.logarithmic and len(self.ticks) > MOST_TICKS
        kept = [tick for tick in self.ticks if not many or math.log10(tick).is_integer()]
        return {self.place(tick): f"{tick:,.12g}" for tick in kept}


def series(result: Verified) -> list[Series]:
    """The verified points by what they are; a kind without points is left out."""
    known = [(_mark(point), point.outcome) for point in result.points if point.outcome]
    found = [
        Series(mark, name, tuple(outcome for its, outcome in known if its == mark))
        for mark, name, _ in KINDS
    ]
    return [one for one in found if one.outcomes]


def plot(drawn: Sequence[Series], width: int = 80, height: int = 22) -> str:
    """The series as `height` lines of at most `width` characters, and a legend; "" for no points."""
    if not drawn:
        return ""
    rates, p99s = zip(*(outcome for one in drawn for outcome in one.outcomes), strict=True)
    across, up = linear_axis(max(rates)), p99_axis(min(p99s), max(p99s))
    heading = "p99 in ms" + (", logarithmic" if up.logarithmic else "")
    legend = "   ".join(f"{one.mark} {one.name}" for one in drawn)
    lines = [heading, *_canvas(drawn, across, up, width, height - 1), *textwrap.wrap(legend, width)]
    return "\n".join(line.rstrip() for line in lines)


def linear_axis(highest: float) -> TickedAxis:
    """From 0 up, with ticks at multiples of 1, 2 or 5 times a power of ten."""
    least = highest / (MOST_TICKS - 1)
    step = next(number for number in _round_numbers(least) if number >= least)
    return TickedAxis(
        tuple(n * step for n in range(math.ceil(highest / step) + 1)), logarithmic=False
    )


def p99_axis(lowest: float, highest: float) -> TickedAxis:
    """Linear where all values are of one order, else logarithmic from round number to round number."""
    if highest <= LINEAR_RATIO * lowest:
        return linear_axis(highest)
    numbers = _round_numbers(lowest, highest)
    first = max(n for n, number in enumerate(numbers) if number <= lowest)
    last = min(n for n, number in enumerate(numbers) if number >= highest)
    return TickedAxis(tuple(numbers[first : last + 1]), logarithmic=True)


def _round_numbers(low: float, high: float | None = None) -> list[float]:
    """Rising 1, 2 and 5 times powers of ten, from below `low` to above `high`."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high or low)) + 2)
    return [step * 10.0**exponent for exponent in exponents for step in STEPS]


def _mark(point: Point) -> str:
    return next(mark for mark, _, fits in KINDS if fits(point))


def _canvas(
    drawn: Sequence[Series], across: TickedAxis, up: TickedAxis, width: int, height: int
) -> list[str]:
    """Lines without control sequences; the logarithm is ours, plotext draws a plain grid."""
    figure = plotext.figure
    figure.clear()
    figure.plot_size(width, height)
    for side, axis in (("x", across), ("y", up)):
        figure.ruler(side).lim(*axis.ends)
        figure.ruler(side).ticks(list(axis.labels), list(axis.labels.values()))
    for one in reversed(drawn):
        places = [(across.place(rate), up.place(p99)) for rate, p99 in one.outcomes]
        figure.draw(figure.signal(*map(list, zip(*places, strict=True)), marker=one.mark))
    figure.label("throughput in requests per second", "x")
    return str(figure.build().string(colorless=True)).splitlines()
