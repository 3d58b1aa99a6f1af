"""Draws what a stall does to an open and to a closed loop: `python docs/load_testing_figure.py`."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PICTURE = Path(__file__).with_name("open-loop.svg")
# Seconds: of the picture, of the stall, between two requests, and to answer one.
SPAN, STALL, EVERY, SERVICE = 3.0, (1.0, 2.0), 0.1, 0.04
WIDTH, LEFT, ROW, TOP, GAP = 760, 20, 7, 46, 64
SCALE = (WIDTH - 2 * LEFT) / (SPAN + SERVICE)
# Readable on white and on black; the media query is for pages that follow the reader's setting.
STYLE = """
text { font: 14px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.stall { fill: #808080; opacity: .22 }
.quick { stroke: #1a7f37 } .held { stroke: #cf222e }
.axis { stroke: #808080; stroke-width: 1 }
line { stroke-width: 4 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .quick { stroke: #3fb950 } .held { stroke: #ff7b72 }
}
"""


class Request(NamedTuple):
    """When it was due, and when its reply came (s)."""

    due: float
    done: float

    @property
    def is_held(self) -> bool:
        return self.done - self.due > 2 * SERVICE


def answered(at: float) -> float:
    """When the server answers what reaches it at this time; during the stall it answers nothing."""
    done = at + SERVICE
    return STALL[1] + SERVICE if STALL[0] < done <= STALL[1] else done


def open_loop() -> Iterator[Request]:
    """The schedule waits for nobody."""
    for number in range(round(SPAN / EVERY)):
        yield Request(number * EVERY, answered(number * EVERY))


def closed_loop() -> Iterator[Request]:
    """One user: the next request follows the last reply."""
    at = 0.0
    while True:
        yield Request(at, answered(at))
        at = max(at + EVERY, answered(at))


def picture() -> str:
    """The whole SVG."""
    loops = {
        "Open loop: a request every 0.1 s": list(open_loop()),
        "Closed loop: a request every 0.1 s, but not before the last reply": list(
            takewhile(lambda request: request.due < SPAN, closed_loop())
        ),
    }
    parts, y = [], TOP
    for title, requests in loops.items():
        parts += panel(title, requests, y)
        y += ROW * len(requests) + GAP
    height = y - GAP + 40
    parts.append(label(LEFT, height - 8, "Each line is a request, from its due time to its reply."))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    name = "<title>A stall of one second, seen by an open and by a closed loop</title>"
    return "\n".join([head, name, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"


def panel(title: str, requests: list[Request], top: int) -> Iterator[str]:
    """One loop: its stall, its requests, and what it would report."""
    held, height = [r for r in requests if r.is_held], ROW * len(requests)
    verb = "wait" if len(held) > 1 else "waits"
    yield label(LEFT, top - 26, title, "title")
    yield label(LEFT, top - 8, f"{len(held)} of {len(requests)} requests {verb} for the stall")
    yield (
        f'<rect class="stall" x="{x(STALL[0])}" y="{top}" '
        f'width="{(STALL[1] - STALL[0]) * SCALE:.1f}" height="{height}"/>'
    )
    yield label(x(STALL[1]) - 168, top + 18, "the server stands still")
    for row, request in enumerate(requests):
        at = top + ROW * row + ROW / 2
        kind = "held" if request.is_held else "quick"
        yield (
            f'<line class="{kind}" x1="{x(request.due)}" x2="{x(request.done)}" y1="{at}" y2="{at}"/>'
        )
    base = top + height
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - LEFT}" y1="{base}" y2="{base}"/>'


def x(seconds: float) -> float:
    """Where a time is."""
    return round(LEFT + seconds * SCALE, 1)


def label(left: float, baseline: float, text: str, kind: str = "") -> str:
    """A line of text."""
    return f'<text class="{kind}" x="{left}" y="{baseline}">{text}</text>'


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
