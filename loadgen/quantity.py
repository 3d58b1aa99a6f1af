"""Numbers as people read them: every output takes its digits from here, and none has an exponent.

Pure. Tables keep one unit to a column; a sentence says `duration`, which is in seconds from one on.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import NamedTuple

UNDETERMINED = "undetermined"
# From here on a ratio is said as times, below it in per cent.
FAR_APART = 2
THOUSANDFOLD = 1000


def digits(value: float, count: int = 3) -> str:
    """So many significant digits, but every one before the point: `0.0042`, `4.32`, `12,345`."""
    if abs(value) >= 10 ** (count - 1):
        return f"{value:,.0f}"
    return f"{Decimal(f'{value:.{count}g}'):f}"


def duration(seconds: float, count: int = 3) -> str:
    """`0.85 ms`, `120 ms`, `4.3 s`."""
    in_ms = digits(1000 * seconds, count)
    return f"{in_ms} ms" if seconds < 1 and in_ms != "1,000" else f"{digits(seconds, count)} s"


def latency(value_ms: float, longest_ms: float | None = None, count: int = 3) -> str:
    """Milliseconds without their unit: `12.3`, and `> 1,000` of one that is among failed requests.

    Nothing else is known of that one: it is longer than `longest_ms`, the longest that was seen.
    """
    if math.isfinite(value_ms):
        return digits(value_ms, count)
    return "unbounded" if longest_ms is None else f"> {digits(longest_ms, count)}"


def interval(
    low: float | None,
    high: float | None,
    longest_ms: float | None = None,
    count: int = 3,
    joint: str = ", ",
) -> str:
    """`[8.2, 20]`, `[820, > 1,000]`, or `undetermined`."""
    if low is None or high is None:
        return UNDETERMINED
    ends = (latency(end, longest_ms, count) for end in (low, high))
    return f"[{(', ' if math.isinf(high) else joint).join(ends)}]"


class Sides(NamedTuple):
    """What is said of a ratio above 1, and of one below."""

    more: str
    less: str


HIGHER, SLOWER = Sides("higher", "lower"), Sides("slower", "faster")


def change(ratio: float, sides: Sides) -> str:
    """The ratio of two figures in words: `the same`, `5 % lower`, `450 times faster`.

    Where they are far apart it is the larger over the smaller. The ratio is finite and above 0.
    """
    return _words(_changed(ratio, sides))


def change_interval(low: float | None, high: float | None, sides: Sides) -> str:
    """An interval of such a ratio: `3 to 5 % lower`, `5 % faster to 2 % slower`, `at least …`.

    Nothing is learnt from how far beyond a thousandfold it goes.
    """
    if low is None or high is None or (low <= 0 and math.isinf(high)):
        return UNDETERMINED
    if math.isinf(high):
        return f"at {'least' if low >= 1 else 'most'} {change(low, sides)}"
    if low <= 0:
        return f"at {'least' if high < 1 else 'most'} {change(high, sides)}"
    alike = (low >= 1) == (high >= 1)
    far_apart = alike and max(high, 1 / low) >= FAR_APART
    one, other = (_changed(end, sides, THOUSANDFOLD, far_apart=far_apart) for end in (low, high))
    if not alike or one == other:
        return " to ".join(dict.fromkeys((_words(one), _words(other))))
    near, far = (one, other) if low >= 1 else (other, one)
    return f"{near.amount} to {_words(far)}"


class _Changed(NamedTuple):
    amount: str
    unit: str
    side: str


def _words(changed: _Changed) -> str:
    return "".join(changed) if changed.amount != "0" else "the same"


def _changed(
    ratio: float, sides: Sides, most: float = math.inf, *, far_apart: bool = False
) -> _Changed:
    larger, side = max(ratio, 1 / ratio), sides.more if ratio >= 1 else sides.less
    if larger > most:
        return _Changed(f"> {digits(most)}", " times ", side)
    if far_apart or larger >= FAR_APART:
        return _Changed(digits(larger), " times ", side)
    return _Changed(digits(round(abs(ratio - 1) * 100, 1), 2), " % ", side)
