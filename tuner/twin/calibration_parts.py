"""A calibration's parts, by name: what was measured before is kept, what there is no time for left out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dlbench.tuner.errors import OutOfTime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Part = dict[str, Any]  # JSON


class Parts:
    """Measures a part once. Every new one is handed to `keep` with all before it."""

    def __init__(
        self,
        left_s: Callable[[], float] = lambda: math.inf,
        known: Mapping[str, Part] | None = None,
        keep: Callable[[Mapping[str, Part]], None] = lambda _: None,
    ) -> None:
        self.left_s, self._keep = left_s, keep
        self._known, self._late_s = dict(known or {}), -math.inf
        self.left_out: list[str] = []

    def get(self, name: str, expected_s: float, measure: Callable[[], Part]) -> Part | None:
        """A part as kept, or measured; None where it is expected to take longer than is left."""
        if name in self._known:
            return self._known[name]
        if expected_s > self.left_s():
            self.left_out.append(name)
            return None
        # Twice as long as expected is given up.
        self._late_s = -expected_s
        try:
            found = measure()
        except OutOfTime:
            self.left_out.append(name)
            return None
        self._known[name] = found
        self._keep(self._known)
        return found

    @property
    def is_late(self) -> bool:
        """Whether the part under way takes far longer than it was expected to."""
        return self.left_s() < self._late_s
