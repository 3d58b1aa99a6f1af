"""The front as a picture: curves at shares of the capacity, and what was verified, as SVG or PNG."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from dlbench.results.chart import Axis, Plot, picture
from dlbench.results.missing import NothingToShow, needing
from dlbench.tuner.front import front_indices
from dlbench.tuner.plan import of_search
from dlbench.tuner.point import with_outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.results.chart import Spot
    from dlbench.tuner.point import Point
    from dlbench.tuner.verify.verification import Verified

RATE, P99 = "requests per second", "p99 (ms)"
BASELINE, BEST = ("triangle", "red"), ("circle", "blue")
LOOKS = {"naive": ("square", "grey"), "default": BASELINE}
# Twice the size that the SVG asks for: sharp on today's screens and in slides.
ZOOM = 2
FONT = "Lato"


def front_svg(points: Sequence[Point], result: Verified) -> str:
    """Curves as they were screened, and the front as it was verified, with its intervals.

    While a study is under way the front is that of what was screened, and the key says so.

    Raises:
        NothingToShow: no point held yet.
    """
    search, pick = of_search(list(points)), result.recommended
    names = [*LOOKS, *([pick.configuration] if pick else [])]
    curves = {name: own for name in dict.fromkeys(names) if (own := loaded(search, name))}
    front, colour, said = _front(search, result)
    if not front:
        raise NothingToShow("the study has no operating point that held: nothing can be drawn")
    plot = _axes([*itertools.chain(*curves.values()), *front])
    for name, own in curves.items():
        _curve(plot, own, *LOOKS.get(name, BEST))
    for p in front:
        verified_mark(plot, p, colour)
    key = [(*LOOKS.get(name, BEST), f"{name} at shares of its capacity") for name in curves]
    key.append(("diamond", f"hollow {colour}", said))
    if pick is not None:
        plot.mark(spot(pick), "diamond", "blue")
        key.append(("diamond", "blue", f"recommended: {pick.name}"))
    return picture("p99 over throughput at shares of the capacity", key, [plot])


def png(svg: str) -> bytes:
    """The picture on white, its letters in a font of our own so that it is the same everywhere.

    Raises:
        ExtraMissing: the renderer is not installed.
    """
    with needing("png"):
        import font_lato  # type: ignore[import-untyped]
        import resvg_py
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg,
            zoom=ZOOM,
            background="#ffffff",
            font_files=[font_lato.font_files[FONT]],
            sans_serif_family=FONT,
        )
    )


def loaded(points: Sequence[Point], name: str) -> list[Point]:
    """A configuration's points that held, by rising load."""
    return sorted((p for p in points if p.configuration == name and p.outcome), key=rate)


def verified_mark(plot: Plot, point: Point, colour: str) -> None:
    """A pooled point with its interval."""
    low, high = ((rate(point), end) for end in ends(point))
    plot.interval(low, high, colour)
    plot.mark(spot(point), "diamond", f"hollow {colour}")


def spot(point: Point) -> Spot:
    """Position in the picture."""
    return rate(point), p99(point)


def rate(point: Point) -> float:
    """Requests per second that it served."""
    return point.measured.throughput_rps


def p99(point: Point) -> float:
    """In milliseconds."""
    assert point.measured.p99_ms is not None
    return point.measured.p99_ms


def ends(point: Point) -> Spot:
    """Of the 95 % interval of its p99; the p99 itself where that is undetermined."""
    return point.measured.p99_low_ms or p99(point), point.measured.p99_high_ms or p99(point)


def _front(search: list[Point], result: Verified) -> tuple[list[Point], str, str]:
    """The front, its colour, and what it is."""
    if result.front:
        return result.front, "blue", "verified front, with 95 % intervals"
    held = with_outcome(search)
    best = front_indices([outcome for _, outcome in held])
    return [held[i][0] for i in best], "grey", "front so far, measured once, not verified"


def _axes(shown: Sequence[Point]) -> Plot:
    x = Axis.around(RATE, map(rate, shown), room=1.5)
    return Plot(x, Axis.around(P99, map(p99, shown), room=2)).axes()


def _curve(plot: Plot, own: list[Point], shape: str, colour: str) -> None:
    """A configuration's points, the least and the greatest load labelled with its share."""
    plot.curve([spot(p) for p in own], colour)
    for p in own:
        plot.mark(spot(p), shape, colour)
    plot.label(spot(own[0]), f"{own[0].share:g}", (-12, 6), "end")
    plot.label(spot(own[-1]), f"{own[-1].share:g}", (0, -12), "middle")
