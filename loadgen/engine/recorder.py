"""What a run writes down for each request while it runs: its times and its outcome, no more.

The times stay raw `time.monotonic_ns()` values until the run is over.
"""

from __future__ import annotations

from array import array

OK = 0
# Any 2xx is an answer; whether it is a right one its content says.
ANSWERS = frozenset(range(200, 300))
PENDING = -1
# Characters of an example: a line or two of what a server says is wrong.
EXAMPLE_LENGTH = 300


class Outcomes:
    """Names of the ways a request can end, as small numbers. 0 is always "ok"."""

    def __init__(self) -> None:
        self._codes = {"ok": OK}
        # What is not an answer is an error of its status' name.
        self.by_result: dict[int | str, int] = {}
        # What the first request of each kind of error got: a reply's body, or a reason.
        self.examples: dict[str, str] = {}

    def code(self, kind: str, example: bytes | str = b"") -> int:
        """The number of a kind; the first example that says anything is kept."""
        if example and kind not in self.examples:
            # Four bytes are the most that a character takes.
            text = example[: 4 * EXAMPLE_LENGTH]
            text = text if isinstance(text, str) else text.decode(errors="replace")
            self.examples[kind] = text[:EXAMPLE_LENGTH]
        return self._codes.setdefault(kind, len(self._codes))

    def of_result(self, result: int | str, body: bytes) -> int:
        """The number of an HTTP status, or of a kind of error, whose body is its example."""
        if result not in self.by_result:
            kind = result if isinstance(result, str) else f"status_{result}"
            self.by_result[result] = self.code(kind, body)
        return self.by_result[result]

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
        # How long a request waited for its connection, to stand or (from a pool) to be free; 0: it did not.
        self.connect_ns = array("q", bytes(8 * requests))
        # Closed loop only: which of the load's requests each row is. In an open loop the row tells.
        self.number = array("q")
        # Bytes [sent, received]: a list, because a hot path increments it.
        self.traffic = [0, 0]
