"""The closed loop: users that each wait for a reply before sending the next request."""

from __future__ import annotations

import heapq
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from dlbench.loadgen.engine import timerfd
from dlbench.loadgen.engine.alarm import ALARMS
from dlbench.loadgen.engine.recorder import ANSWERS, OK
from dlbench.loadgen.engine.request_loop import FAR_NS, RequestLoop
from dlbench.loadgen.transport.keepalive import IDLE, Connection, Result

if TYPE_CHECKING:
    from collections.abc import Iterator


class ClosedLoop(RequestLoop):
    """Each user sends its next request when the reply to the last one is there, and it has thought.

    `think` yields the pauses (ns); None: there are none.
    """

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - the base's own
        users: int,
        think: Iterator[int] | None = None,
        fresh: bool = False,
    ) -> None:
        super().__init__(*args, fresh=fresh)
        self._running = True
        # Whether replies are followed by anything but the next request.
        self._pausing = think is not None
        self._next_number = self._first
        # Users that neither wait for a reply nor think: all at first, later those that failed.
        self._absent = users
        self._pauses = think
        # When each pause ends; the second number keeps the heap from comparing connections.
        self._thinking: list[tuple[int, int, Connection]] = []
        self._alarm = ALARMS[timerfd.SUPPORTED](self._loop, self._wake) if think else None
        # Pre-bound: these are called for every request.
        recorder = self._recorder
        self._append_number, self._append_sent = recorder.number.append, recorder.sent.append
        self._append_done, self._append_outcome = recorder.done.append, recorder.outcome.append
        self._append_connect_ns = recorder.connect_ns.append

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
        """Bring the users that are absent in."""
        while self._running and self._absent:
            connection = self._open()
            if connection is None:
                return
            self._absent -= 1
            self._submit(connection, monotonic_ns())

    def cancel(self) -> None:
        """Send nothing more."""
        self._running, self._pausing = False, True
        self._thinking.clear()
        for connection in [c for c in self.connections if c.index == IDLE]:
            self._drop(connection)

    def close(self) -> None:
        super().close()
        if self._alarm is not None:
            self._alarm.close()
            self._alarm = None

    def sweep(self, now_ns: int, timeout_ns: int) -> None:
        super().sweep(now_ns, timeout_ns)
        # Failed users come back here and not at once: a refusing server must not make them spin.
        self.start()

    def replied(self, connection: Connection, result: Result, now_ns: int, body: bytes) -> None:
        fault = self._judge(body, connection.index) if result in ANSWERS else result
        code = self._outcomes.of_result(fault, body) if fault else OK
        self._record(connection, now_ns, code)
        if connection.closing or self._pausing:
            self._pause(connection, now_ns)
        else:
            self._submit(connection, now_ns)

    def failed(self, connection: Connection, kind: str, detail: str) -> None:
        self.connections.discard(connection)
        if connection.index != IDLE:
            self._record(connection, monotonic_ns(), self._outcomes.code(kind, detail))
            connection.index = IDLE
            self._absent += 1

    def _record(self, connection: Connection, now_ns: int, code: int) -> None:
        self._append_number(connection.index)
        self._append_sent(connection.sent_ns)
        self._append_done(now_ns)
        self._append_outcome(code)
        self._append_connect_ns(connection.connect_ns)

    def _submit(self, connection: Connection, now_ns: int) -> None:
        number = self._next_number
        self._next_number = number + self._step
        connection.submit(self._request(number), number, now_ns)

    def _drop(self, connection: Connection) -> None:
        connection.close()
        self.connections.discard(connection)

    def _pause(self, connection: Connection, now_ns: int) -> None:
        """A user that thinks, needs another connection, or is no longer wanted."""
        connection.index = IDLE
        if connection.closing or not self._running:
            self._drop(connection)
        if self._pauses is None or not self._running:
            self._absent += 1
            self.start()
            return
        wake_ns = now_ns + next(self._pauses)
        heapq.heappush(self._thinking, (wake_ns, len(self._recorder.done), connection))
        if self._thinking[0][2] is connection:
            self._arm()

    def _arm(self) -> None:
        if self._alarm is not None:
            self._alarm.arm(self._thinking[0][0] if self._thinking else FAR_NS)

    def _wake(self) -> None:
        now_ns, thinking = monotonic_ns(), self._thinking
        while thinking and thinking[0][0] <= now_ns:
            _, _, connection = heapq.heappop(thinking)
            if connection.closing:
                self._absent += 1
            else:
                self._submit(connection, now_ns)
        self.start()
        self._arm()
