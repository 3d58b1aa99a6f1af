"""The bounds on p99 that a study answers for. Pure."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = (1.0, 2.0, 5.0)
# A second, or for a slower model some steps more than it takes at least.
HIGHEST_MS, LEAST_STEPS = 1000.0, 4
MOST_STEPS = 8


def ladder(least_ms: float) -> tuple[float, ...]:
    """Bounds in 1-2-5 steps from the first over `least_ms` to a second, in ms, rising.

    `least_ms` is the p99 of a server with hardly any load: what no bound may be below.
    """
    found: list[float] = []
    for bound_ms in _steps():
        if bound_ms > least_ms:
            found.append(bound_ms)
        if len(found) >= LEAST_STEPS and bound_ms >= HIGHEST_MS:
            break
    return tuple(found[:MOST_STEPS])


def _steps() -> Iterator[float]:
    for exponent in count(-3):
        yield from (float(f"{step:g}e{exponent}") for step in STEPS)
