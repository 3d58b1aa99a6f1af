"""The open loop: requests go out when they are due, whatever became of those before them."""

from __future__ import annotations

import sys
from collections import deque
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from dlbench.loadgen.engine.recorder import ANSWERS, OK
from dlbench.loadgen.engine.request_loop import FAR_NS, RequestLoop
from dlbench.loadgen.transport.keepalive import IDLE, Connection, Result

if TYPE_CHECKING:
    from collections.abc import Callable

# 16,000 connections a second: half of a core's time, and what a stall at 16,000/s needs.
OPEN_AT_ONCE = 16
OPEN_EVERY_NS = 1_000_000


class OpenLoop(RequestLoop):
    """Sends every request when it is due, on a free connection or a new one."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - the base's own
        due_ns: list[int],
        fresh: bool = False,
        pooled: bool = False,
    ) -> None:
        """`due_ns` are absolute times in order; the last one is a sentinel that never comes.

        `pooled`: the limit is the load's own, as that of a gateway, so a request that waits for a
        connection to be free waits for the server. It was sent in time, to the pool.
        """
        super().__init__(*args, fresh=fresh)
        self._due, self._pooled = due_ns, pooled
        # Called when a connection is to be opened, or one is free again: call `wake` soon.
        self.on_call: Callable[[], None] = lambda: None
        self._free: list[Connection] = []
        self._waiting: deque[int] = deque()
        self._lack = self._open_for if fresh else self._waiting.append
        self._open_at_once = sys.maxsize if fresh else OPEN_AT_ONCE
        # Whether `on_call` was called since; whether only replies can help now.
        self._called = self._resting = False
        self._next_open_ns = 0
        self.begun = 0
        self.ended = 0
        # Pre-bound: these are written for every request.
        self._sent, self._done = self._recorder.sent, self._recorder.done
        self._outcome, self._connect_ns = self._recorder.outcome, self._recorder.connect_ns

    @property
    def next_due_ns(self) -> int:
        return self._due[self.begun]

    def wake(self, now_ns: int) -> int:
        """Send what is due, open connections where they lack; when to call again.

        Not while a whole pool is busy: a request that becomes due then can only wait, and waking for
        each costs the server beside us more than the requests do. The replies take them along.
        """
        self.send_due(now_ns)
        open_ns = self.open_more(now_ns)
        self._resting = self._pooled and open_ns == FAR_NS and bool(self._waiting)
        return FAR_NS if self._resting else min(open_ns, self.next_due_ns)

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
                self._submit(self._free.pop(), index)
            else:
                # While nobody looked at the schedule, all were busy: it waited since it was due.
                self._sent[index] = due[index] if self._resting else now_ns
                self._lack(index)

    def _submit(self, connection: Connection, index: int) -> None:
        request = self._request(self._first + self._step * index)
        connection.submit(request, index, self._due[index])

    def _open_for(self, index: int) -> None:
        connection = None if self._waiting else self._open()
        if connection is None:
            self._waiting.append(index)
        else:
            self._submit(connection, index)

    def _submit_waiting(self, connection: Connection, now_ns: int) -> None:
        """Give the connection, free or new, to the request that waits longest."""
        index = self._waiting.popleft()
        since_ns = self._sent[index]
        self._submit(connection, index)
        if self._pooled:
            connection.sent_ns, connection.connect_ns = since_ns, now_ns - since_ns

    def open_more(self, now_ns: int) -> int:
        """Open some connections if requests wait for one; when to call again (FAR_NS: no need).

        Not as many as wait, and not all the time: opening costs ten times as much as sending, for
        both sides. A client that opens one for each late request, instead of reading the replies
        that would free another, is later still the next time, and never comes back from that.
        """
        self._called = False
        if not self._waiting:
            return FAR_NS
        if now_ns < self._next_open_ns:
            return self._next_open_ns
        for _ in range(min(self._open_at_once, len(self._waiting))):
            connection = self._open()
            if connection is None:
                return FAR_NS
            self._submit_waiting(connection, now_ns)
        self._next_open_ns = monotonic_ns() + OPEN_EVERY_NS
        return self._next_open_ns if self._waiting else FAR_NS

    def open_ahead(self) -> None:
        """Some connections before the first request is due."""
        for _ in range(0 if self._fresh else min(OPEN_AT_ONCE, self._limit)):
            if connection := self._open():
                self._free.append(connection)

    def cancel(self) -> None:
        """Send nothing more: the rest of the schedule is dropped."""
        del self._due[self.begun : -1]

    def sweep(self, now_ns: int, timeout_ns: int) -> None:
        super().sweep(now_ns, timeout_ns)
        self.send_due(now_ns)
        waiting = self._waiting
        while waiting and self._due[waiting[0]] < now_ns - timeout_ns:
            code = self._outcomes.code("timeout", "no connection was free")
            index = waiting.popleft()
            self._end(index, self._sent[index] if self._pooled else now_ns, now_ns, code)
        if self._resting and (not waiting or len(self.connections) < self._limit):
            self._call()

    def replied(self, connection: Connection, result: Result, now_ns: int, body: bytes) -> None:
        index = connection.index
        self._sent[index] = connection.sent_ns
        self._done[index] = now_ns
        # An answer is judged, anything else is an error by itself.
        fault = self._judge(body, self._first + self._step * index) if result in ANSWERS else result
        self._outcome[index] = self._outcomes.of_result(fault, body) if fault else OK
        if connection.connect_ns:
            self._connect_ns[index] = connection.connect_ns
        self.ended += 1
        connection.index = IDLE
        if self._resting:
            self.send_due(now_ns)  # to wait behind the others, before a connection is free
        if connection.closing:
            connection.close()
            self.connections.discard(connection)
            self._call_if_short()
        elif self._waiting:
            self._submit_waiting(connection, now_ns)
        else:
            self._free.append(connection)
            if self._resting:
                self._call()
        # A burst of replies must not make the schedule wait for the timer's turn.
        if self._due[self.begun] <= now_ns:
            self.send_due(now_ns)
            self._call_if_short()

    def failed(self, connection: Connection, kind: str, detail: str) -> None:
        self.connections.discard(connection)
        index, connection.index = connection.index, IDLE
        if index == IDLE:
            self._free = [other for other in self._free if other is not connection]
            return
        self._connect_ns[index] = connection.connect_ns
        code = self._outcomes.code(kind, detail)
        self._end(index, connection.sent_ns, monotonic_ns(), code)
        self._call_if_short()

    def _end(self, index: int, sent_ns: int, now_ns: int, code: int) -> None:
        self._sent[index], self._done[index], self._outcome[index] = sent_ns, now_ns, code
        self.ended += 1

    def _call_if_short(self) -> None:
        if self._waiting or self._resting:
            self._call()

    def _call(self) -> None:
        if not self._called:
            self._called = True
            self.on_call()
