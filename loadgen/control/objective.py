"""A service level objective that a server must meet: `p99<50ms,errors<0.1%`."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from dlbench.loadgen.analysis.statistics import holds, minimum_samples, quantile
from dlbench.loadgen.quantity import latency

if TYPE_CHECKING:
    from dlbench.loadgen.analysis.statistics import Floats

MS_PER_UNIT = {"us": 1e-3, "ms": 1.0, "s": 1e3}
LATENCY = re.compile(r"p(\d+(?:\.\d+)?)<=?(\d+(?:\.\d+)?)(us|ms|s)")
WITHOUT_UNIT = re.compile(r"p\d+(\.\d+)?<=?\d+(\.\d+)?")
ERRORS = re.compile(r"errors<=?(\d+(?:\.\d+)?)%")
# A failed request is infinitely late: it is over every bound, this one too.
ANY_REPLY_MS = sys.float_info.max


@dataclass(frozen=True)
class Bound:
    """At least a share `q` of all requests is answered within `most_ms`."""

    q: float
    most_ms: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """`p99<50ms` or `errors<1%`; raises ValueError with what is allowed."""
        if match := LATENCY.fullmatch(text):
            bound = cls(float(match[1]) / 100, float(match[2]) * MS_PER_UNIT[match[3]])
        elif match := ERRORS.fullmatch(text):
            bound = cls(1 - float(match[1]) / 100, ANY_REPLY_MS)
        elif WITHOUT_UNIT.fullmatch(text):
            raise ValueError(f"{text} needs a unit: {text}ms or {text}s")
        else:
            raise ValueError(
                f"{text!r} is not an objective; write p99<50ms, p99.9<1s or errors<0.1%"
            )
        if not (0.5 <= bound.q < 1 and bound.most_ms > 0):
            raise ValueError(
                f"{text!r} is out of range: p50 to p99.99, times above 0, errors above 0 to 50 %"
            )
        return bound

    def seen(self, ordered_ms: Floats, longest_ms: float | None) -> str:
        """What these latencies show, shortest first; an infinite one is over `longest_ms`."""
        if self.most_ms == ANY_REPLY_MS:
            return f"errors {np.isinf(ordered_ms).sum() / max(1, len(ordered_ms)):.3%}"
        value = quantile(ordered_ms, self.q)
        shown = "none" if value is None else f"{latency(value, longest_ms)} ms"
        return f"p{100 * self.q:g} {shown}"


@dataclass(frozen=True)
class Objective:
    """Bounds that must all hold, parsed from `text`."""

    text: str
    bounds: tuple[Bound, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """One bound or several with commas between, in any case, with blanks anywhere.

        Quantiles from p50 on (no mean: one slow reply moves it) in us, ms or s. Raises ValueError.
        """
        text = "".join(text.lower().split())
        return cls(text, tuple(Bound.parse(part) for part in text.split(",")))

    def __str__(self) -> str:
        return self.text

    def holds(self, latencies_ms: Floats, confidence: float) -> bool | None:
        """Whether a run met every bound; None: it cannot tell with this confidence.

        `latencies_ms` of *all* requests in the order of time, infinite for those that failed. So a
        server that refuses what it cannot do in time is not taken for a fast one, and failures
        that come in a row count as the one event that they are.
        """
        found = [holds(latencies_ms, b.most_ms, b.q, confidence) for b in self.bounds]
        if all(found):
            return True
        return False if False in found else None

    def seen(self, latencies_ms: Floats, longest_ms: float | None = None) -> str:
        """What a run showed of each bound: `p99 31.2 ms, errors 0 %`, or `p99 > 1,000 ms`."""
        ordered = np.sort(latencies_ms)
        return ", ".join(bound.seen(ordered, longest_ms) for bound in self.bounds)

    def least_requests(self, confidence: float) -> int:
        """Independent requests that can bear one over the bound: 662 for p99 and 99 %."""
        return max(minimum_samples(bound.q, 1, confidence) for bound in self.bounds)
