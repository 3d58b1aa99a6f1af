"""The wall time of a study: all that its sittings took, from the start of each command on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Clock:
    """What is spent and left of a budget.

    Earlier sittings took `earlier_s`; this one began at `began_s`, on the clock that `now` reads.
    """

    budget_s: float
    earlier_s: float = 0.0
    began_s: float = field(default_factory=time.perf_counter)
    now: Callable[[], float] = time.perf_counter

    @property
    def spent_s(self) -> float:
        """Seconds of all sittings so far."""
        return self.earlier_s + self.now() - self.began_s

    @property
    def left_s(self) -> float:
        """Seconds until the budget is over, less than 0 afterwards."""
        return self.budget_s - self.spent_s

    def until_share(self, share: float, since_s: float = 0.0) -> float:
        """Seconds until this share of what was left after `since_s` is spent, or less than 0."""
        return since_s + share * (self.budget_s - since_s) - self.spent_s


def process_began_s() -> float:
    """When this process was started, on the clock of `time.perf_counter`."""
    return time.perf_counter() - time.time() + float(psutil.Process().create_time())
