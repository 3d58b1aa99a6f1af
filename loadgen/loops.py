"""What the open and the closed loop share: their connections, and the record of how requests end."""

from __future__ import annotations

from collections import deque
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from dlbench.loadgen.connection import IDLE, Address, Bytes, Connection
from dlbench.loadgen.replies import Heads

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.loadgen.recorder import Recorder


FAR_NS = 2**62
# 16,000 connections a second: half of a core's time, and what a stall at 16,000/s needs.
OPEN_AT_ONCE = 16
OPEN_EVERY_NS = 1_000_000


class RequestLoop:
    """Base of both loops. `drained` says that every request that was begun has ended."""

    def __init__(
        self,
        loop: Any,  # noqa: ANN401 - gevent's loop is untyped, and must not be imported here
        address: Address,
        recorder: Recorder,
        next_request: Callable[[], Bytes],
        limit: int,
    ) -> None:
        self.heads = Heads()
        self.traffic = recorder.traffic
        self.connections: set[Connection] = set()
        self.peak_connections = 0
        # Set when a connection was wanted and `limit`, or the system's, forbade it.
        self.exhausted = False
        self._limit = limit
        self._loop, self._address = loop, address
        self._recorder = recorder
        self._codes = recorder.outcomes.by_status
        self._next_request = next_request

    @property
    def in_flight(self) -> int:
        return sum(connection.index != IDLE for connection in self.connections)

    def sweep(self, now_ns: int, timeout_ns: int) -> None:
        """End the requests that have waited too long. Call it some ten times a second."""
        oldest = now_ns - timeout_ns
        for connection in [c for c in self.connections if c.index != IDLE and c.since_ns < oldest]:
            connection.fail("timeout")

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        self.connections.clear()

    def _open(self) -> Connection | None:
        """A new connection, or None when there can be no more of them."""
        if len(self.connections) < self._limit:
            try:
                connection = Connection(self._loop, self._address, self)  # type: ignore[arg-type]
            except OSError:
                # Descriptors or ports have run out: what stands now is the limit.
                self._limit = len(self.connections)
            else:
                self.connections.add(connection)
                self.peak_connections = max(self.peak_connections, len(self.connections))
                return connection
        self.exhausted = True
        return None

    def _code(self, status: int) -> int:
        return self._recorder.outcomes.of_status(status)


class OpenLoop(RequestLoop):
    """Sends every request when it is due, on a free connection or a new one."""

    def __init__(self, *args: Any, due_ns: list[int]) -> None:  # noqa: ANN401 - the base's own
        """`due_ns` are absolute times in order; the last one is a sentinel that never comes."""
        super().__init__(*args)
        self._due = due_ns
        # Called when requests begin to wait for a connection: have `open_more` called soon.
        self.on_shortage: Callable[[], None] = lambda: None
        self._free: list[Connection] = []
        self._waiting: deque[int] = deque()
        self._short = False
        self._next_open_ns = 0
        self.begun = 0
        self.ended = 0
        # Pre-bound: these are written for every request.
        self._sent, self._done = self._recorder.sent, self._recorder.done
        self._outcome = self._recorder.outcome

    @property
    def next_due_ns(self) -> int:
        return self._due[self.begun]

    @property
    def drained(self) -> bool:
        return self.ended == self.begun

    @property
    def in_flight(self) -> int:
        return self.begun - self.ended

    def send_due(self, now_ns: int) -> None:
        """Send everything whose time has come; late requests are still sent."""
        due = self._due
        while due[self.begun] <= now_ns:
            index = self.begun
            self.begun += 1
            if self._free:
                self._free.pop().submit(self._next_request(), index, due[index])
            else:
                self._waiting.append(index)

    def open_more(self, now_ns: int) -> int:
        """Open some connections if requests wait for one; when to call again (FAR_NS: no need).

        Not as many as wait, and not all the time: opening costs ten times as much as sending, for
        both sides. A client that opens one for each late request, instead of reading the replies
        that would free another, is later still the next time, and never comes back from that.
        """
        self._short = False
        if not self._waiting:
            return FAR_NS
        if now_ns < self._next_open_ns:
            return self._next_open_ns
        for _ in range(min(OPEN_AT_ONCE, len(self._waiting))):
            connection = self._open()
            if connection is None:
                return FAR_NS
            index = self._waiting.popleft()
            connection.submit(self._next_request(), index, self._due[index])
        self._next_open_ns = monotonic_ns() + OPEN_EVERY_NS
        return self._next_open_ns if self._waiting else FAR_NS

    def open_ahead(self) -> None:
        """Some connections before the first request is due."""
        for _ in range(OPEN_AT_ONCE):
            if connection := self._open():
                self._free.append(connection)

    def cancel(self) -> None:
        """Send nothing more: the rest of the schedule is dropped."""
        del self._due[self.begun : -1]

    def sweep(self, now_ns: int, timeout_ns: int) -> None:
        super().sweep(now_ns, timeout_ns)
        waiting = self._waiting
        while waiting and self._due[waiting[0]] < now_ns - timeout_ns:
            self._end(waiting.popleft(), now_ns, now_ns, self._recorder.outcomes.code("timeout"))

    def replied(self, connection: Connection, status: int, now_ns: int) -> None:
        index = connection.index
        self._sent[index] = connection.sent_ns
        self._done[index] = now_ns
        code = self._codes.get(status)
        self._outcome[index] = self._code(status) if code is None else code
        self.ended += 1
        connection.index = IDLE
        if connection.closing:
            connection.close()
            self.connections.discard(connection)
            self._check_shortage()
        elif self._waiting:
            index = self._waiting.popleft()
            connection.submit(self._next_request(), index, self._due[index])
        else:
            self._free.append(connection)
        # A burst of replies must not make the schedule wait for the timer's turn.
        if self._due[self.begun] <= now_ns:
            self.send_due(now_ns)
            self._check_shortage()

    def failed(self, connection: Connection, kind: str) -> None:
        self.connections.discard(connection)
        index, connection.index = connection.index, IDLE
        if index == IDLE:
            self._free = [other for other in self._free if other is not connection]
            return
        now_ns = monotonic_ns()
        self._end(index, connection.sent_ns, now_ns, self._recorder.outcomes.code(kind))
        self._check_shortage()

    def _check_shortage(self) -> None:
        if self._waiting and not self._short:
            self._short = True
            self.on_shortage()

    def _end(self, index: int, sent_ns: int, done_ns: int, code: int) -> None:
        self._sent[index], self._done[index] = sent_ns, done_ns
        self._outcome[index] = code
        self.ended += 1


class ClosedLoop(RequestLoop):
    """Each user sends its next request when the reply to the last one is there."""

    def __init__(self, *args: Any, users: int) -> None:  # noqa: ANN401 - the base's own
        super().__init__(*args)
        self._users = users
        self._running = True
        # Pre-bound: these are called for every request.
        self._append_sent = self._recorder.sent.append
        self._append_done = self._recorder.done.append
        self._append_outcome = self._recorder.outcome.append

    @property
    def drained(self) -> bool:
        return not self._running and not self.connections

    @property
    def begun(self) -> int:
        """Length of the record, which here grows when requests end."""
        return len(self._recorder.done)

    @property
    def ended(self) -> int:
        return len(self._recorder.done)

    def start(self) -> None:
        """Bring the users that have no connection (at first: all; later: after a failure) in."""
        while self._running and len(self.connections) < self._users:
            connection = self._open()
            if connection is None:
                return
            connection.submit(self._next_request(), 0, monotonic_ns())

    def cancel(self) -> None:
        """Send nothing more."""
        self._running = False

    def sweep(self, now_ns: int, timeout_ns: int) -> None:
        super().sweep(now_ns, timeout_ns)
        # Failed users come back here and not at once: a refusing server must not make them spin.
        self.start()

    def replied(self, connection: Connection, status: int, now_ns: int) -> None:
        code = self._codes.get(status)
        self._append_sent(connection.sent_ns)
        self._append_done(now_ns)
        self._append_outcome(self._code(status) if code is None else code)
        if self._running and not connection.closing:
            connection.submit(self._next_request(), 0, now_ns)
            return
        connection.index = IDLE
        connection.close()
        self.connections.discard(connection)
        if len(self.connections) < self._users:
            self.start()

    def failed(self, connection: Connection, kind: str) -> None:
        self.connections.discard(connection)
        if connection.index != IDLE:
            connection.index = IDLE
            now_ns = monotonic_ns()
            code = self._recorder.outcomes.code(kind)
            self._append_sent(connection.sent_ns)
            self._append_done(now_ns)
            self._append_outcome(code)
