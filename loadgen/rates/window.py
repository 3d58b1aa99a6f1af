"""What one window of load showed."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class OpenWindow:
    """Load at a rate that the server does not choose.

    `p99_ms`: None where too few requests came for one, inf where it falls among those that failed.
    `at_least`: the p99 is that or more, since the window was ended early. `saturated`: the server
    did not keep up; then `completed_rps`, if known, is what it can. `disturbed`: others used the machine, or the client
    was late. Windows of one `moment` were side by side, and share how fast the machine then was.
    """

    rate_rps: float
    duration_s: float
    p99_ms: float | None = None
    at_least: bool = False
    saturated: bool = False
    completed_rps: float | None = None
    disturbed: bool = False
    moment: int = 0

    @property
    def failed(self) -> bool:
        """Whether the rate was too high for any bound."""
        return self.saturated or self.p99_ms == math.inf


@dataclass(frozen=True)
class ClosedWindow:
    """Load by so many users that the server is never idle: its capacity, measured."""

    throughput_rps: float
    duration_s: float
    disturbed: bool = False
    moment: int = 0


Window = OpenWindow | ClosedWindow
