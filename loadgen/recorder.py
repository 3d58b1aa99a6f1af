"""What a run writes down for each request while it runs: three times and an outcome, no more.

The times stay raw `time.monotonic_ns()` values until the run is over.
"""

from __future__ import annotations

from array import array

OK = 0
PENDING = -1


class Outcomes:
    """Names of the ways a request can end, as small numbers. 0 is always "ok"."""

    def __init__(self) -> None:
        self._codes = {"ok": OK}
        # 200 is what V2 clients demand; anything else is an error of its status' name.
        self.by_status: dict[int, int] = {200: OK}

    def code(self, name: str) -> int:
        return self._codes.setdefault(name, len(self._codes))

    def of_status(self, status: int) -> int:
        if status not in self.by_status:
            self.by_status[status] = self.code(f"status_{status}")
        return self.by_status[status]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._codes)


class Recorder:
    """Columns of a run. An open loop knows its length and writes by index, a closed one appends."""

    def __init__(self, requests: int = 0) -> None:
        self.outcomes = Outcomes()
        self.sent = array("q", bytes(8 * requests))
        self.done = array("q", bytes(8 * requests))
        self.outcome = array("h", [PENDING]) * requests
        # Bytes [sent, received]: a list, because a hot path increments it.
        self.traffic = [0, 0]
