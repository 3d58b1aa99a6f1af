"""A small chart as SVG: two axes, and curves, marks, intervals and bands between them.

A picture is narrow and its letters are large, so that they can still be read where a phone shows it
at two thirds of its size. Each series has a colour and a shape of its own; the colours are those of
Okabe and Ito, which colour-blind people tell apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Spot = tuple[float, float]
    # A series' shape, or "line" or "band"; its kind; and words.
    Entry = tuple[str, str, str]

WIDTH, RIGHT, LINE = 520, 14, 24
# Room for the names of the axes.
ABOVE, BELOW = 34, 56
MOST_TICKS = 6
# Ticks within a power of ten, and at every how many of them; the first that are few enough.
STEPS = (
    ((1, 1.5, 2, 3, 4, 5, 7), 1),
    ((1, 2, 5), 1),
    ((1, 3), 1),
    *(((1,), every) for every in (1, 2, 4)),
)
# Units of a path around its middle.
SHAPES = {
    "circle": "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0-12 0z",
    "square": "M-5.5-5.5h11v11h-11z",
    "triangle": "M0-7L7 5.5H-7z",
    "diamond": "M0-8.5L8.5 0L0 8.5L-8.5 0z",
}
STYLE = """
text { font: 18px system-ui, sans-serif; fill: #1f2328 }
.grid { stroke: #808080; stroke-width: 1; opacity: .3 }
.blue { color: #0072b2 } .red { color: #d55e00 } .grey { color: #767676 }
.curve { stroke: currentColor; stroke-width: 2.5; fill: none }
.dashed { stroke-dasharray: 7 5 }
.mark { fill: currentColor; stroke: none }
.hollow { fill: none; stroke: currentColor; stroke-width: 2.5 }
.interval { stroke: currentColor; stroke-width: 2.5 }
.band { fill: currentColor; opacity: .2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .blue { color: #56b4e9 } .red { color: #e69f00 } .grey { color: #a0a0a0 }
}
"""


@dataclass(frozen=True)
class Axis:
    """An axis: its name with the unit, and its ends; logarithmic, or linear from 0 if `even`."""

    name: str
    low: float
    high: float
    even: bool = False

    @classmethod
    def around(
        cls, name: str, values: Iterable[float], *, room: float = 1.25, even: bool = False
    ) -> Axis:
        """One for all these values, its ends this factor beyond them; an even one begins at 0."""
        known = list(values)
        if even:
            return cls(name, 0.0, max(known) * 1.06, even=True)
        return cls(name, min(known) / room, max(known) * room)

    def place(self, value: float) -> float:
        """The position of a value: 0 at the low end, 1 at the high one."""
        if self.even:
            return (value - self.low) / (self.high - self.low)
        return math.log(value / self.low) / math.log(self.high / self.low)

    def inside(self, value: float) -> float:
        """The value, or the end that it is beyond."""
        low, high = sorted((self.low, self.high))
        return min(max(value, low), high)

    @property
    def ticks(self) -> list[float]:
        """Round values between the ends, a handful."""
        candidates = self._even_ticks() if self.even else self._log_ticks()
        return next(found for found in candidates if len(found) <= MOST_TICKS)

    def _even_ticks(self) -> Iterator[list[float]]:
        power = 10.0 ** math.floor(math.log10(self.high) - 1)
        for step in (power, 2 * power, 5 * power, 10 * power, 20 * power, 50 * power):
            yield [n * step for n in range(int(self.high / step) + 1)]

    def _log_ticks(self) -> Iterator[list[float]]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps, every in STEPS:
            found = [step * 10.0**power for power in powers[::every] for step in steps]
            yield [value for value in found if self.low <= value <= self.high]


@dataclass
class Plot:
    """A field between two axes; what is drawn collects in `parts`, with the field's top at 0."""

    x: Axis
    y: Axis
    height: int = 300
    left: int = 74
    parts: list[str] = field(default_factory=list)

    def axes(self) -> Plot:
        """Grid, numbers and names of both."""
        for value in self.y.ticks:
            _, at = self.at((self.x.low, value))
            self.parts.append(f'<path class="grid" d="M{self.left} {at}H{WIDTH - RIGHT}"/>')
            self.parts.append(text(self.left - 8, at + 6, number(value), "end"))
        self.parts.append(text(8, -14, self.y.name))
        return self.scale()

    def scale(self) -> Plot:
        """The same of x alone."""
        for value in self.x.ticks:
            at, _ = self.at((value, self.y.low))
            self.parts.append(f'<path class="grid" d="M{at} 0V{self.height}"/>')
            self.parts.append(text(at, self.height + 22, number(value), "middle"))
        self.parts.append(text(WIDTH - RIGHT, self.height + 46, self.x.name, "end"))
        return self

    def at(self, spot: Spot) -> Spot:
        """Where a pair of values is."""
        wide = WIDTH - RIGHT - self.left
        x, y = self.x.place(spot[0]), self.y.place(spot[1])
        return round(self.left + wide * x, 1), round(self.height * (1 - y), 1)

    def curve(self, spots: Sequence[Spot], kind: str) -> None:
        """Straight lines from spot to spot."""
        self.parts.append(f'<path class="curve {kind}" d="{self._path(spots)}"/>')

    def band(self, low: Sequence[Spot], high: Sequence[Spot], kind: str) -> None:
        """The area between two curves."""
        path = self._path([*low, *reversed(high)])
        self.parts.append(f'<path class="band {kind}" d="{path}z"/>')

    def mark(self, spot: Spot, shape: str, kind: str) -> None:
        """A measured value."""
        self.parts.append(marked(*self.at(spot), shape, kind))

    def interval(self, low: Spot, high: Spot, kind: str) -> None:
        """A line between the ends of an interval, as far as they are inside the field."""
        ends = [(self.x.inside(x), self.y.inside(y)) for x, y in (low, high)]
        self.parts.append(f'<path class="interval {kind}" d="{self._path(ends)}"/>')

    def label(self, spot: Spot, said: str, beside: Spot, anchor: str = "start") -> None:
        """A text, offset to the right of and below a spot."""
        x, y = self.at(spot)
        self.parts.append(text(x + beside[0], y + beside[1], said, anchor))

    def _path(self, spots: Iterable[Spot]) -> str:
        return "M" + "L".join(f"{x} {y}" for x, y in map(self.at, spots))


def swatch(shape: str, kind: str, y: float) -> str:
    """How a series looks, at the left edge."""
    if shape == "line":
        return f'<path class="curve {kind}" d="M8 {y}H40"/>'
    if shape == "band":
        return f'<path class="band {kind}" d="M8 {y - 8}H40V{y + 8}H8z"/>'
    return marked(24, y, shape, kind)


def marked(x: float, y: float, shape: str, kind: str) -> str:
    """A shape with its middle there; a hollow one says so in its kind."""
    style = kind if "hollow" in kind else f"mark {kind}"
    return f'<path class="{style}" transform="translate({x} {y})" d="{SHAPES[shape]}"/>'


def text(x: float, baseline: float, said: str, anchor: str = "start") -> str:
    """A line of words."""
    return (
        f'<text x="{x:g}" y="{baseline:g}" text-anchor="{anchor}">'
        f"{escape(said, quote=False)}</text>"
    )


def number(value: float) -> str:
    """As short as it can be: 0.5, 500, 5k."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def picture(name: str, key: Sequence[Entry], plots: Iterable[Plot]) -> str:
    """The whole SVG: what the series are, then the plots below each other.

    `name` is for those who cannot see it.
    """
    parts, y = list[str](), 18
    for shape, kind, said in key:
        parts += [swatch(shape, kind, y), text(48, y + 6, said)]
        y += LINE
    for plot in plots:
        y += ABOVE
        parts += [f'<g transform="translate(0 {y})">', *plot.parts, "</g>"]
        y += plot.height + BELOW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
        f'viewBox="0 0 {WIDTH} {y}" role="img">'
    )
    title = f"<title>{escape(name, quote=False)}</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"
