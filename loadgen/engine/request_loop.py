"""What the open and the closed loop share: their connections, and the record of how requests end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlbench.loadgen.transport.keepalive import IDLE, Connection, Owner, Result

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.loadgen.engine.recorder import Recorder
    from dlbench.loadgen.protocols.judge import Judge
    from dlbench.loadgen.protocols.payloads import Requests
    from dlbench.loadgen.schedule.schedule import Share

    Connect = Callable[[Any, Owner], Connection]

# A time that never comes.
FAR_NS = 2**62


class RequestLoop:
    """Base of both loops. `drained` says that every request that was begun has ended."""

    def __init__(
        self,
        loop: Any,  # noqa: ANN401 - gevent's loop is untyped, and must not be imported here
        connect: Connect,
        recorder: Recorder,
        requests: Requests,
        judge: Judge,
        limit: int,
        share: Share,
        *,
        fresh: bool = False,
    ) -> None:
        """Requests are those numbered `share.index`, `share.index + share.of` and so on.

        `fresh`: no keep-alive, every request has a connection of its own, opened for it.
        """
        self.traffic = recorder.traffic
        self.connections: set[Connection] = set()
        self.peak_connections = 0
        # Set when a connection was wanted and `limit`, or the system's, forbade it.
        self.exhausted = False
        self._limit = limit
        self._fresh = fresh
        self._loop, self._connect = loop, connect
        self._recorder, self._outcomes = recorder, recorder.outcomes
        self._request, self._judge = requests.at, judge
        self._first, self._step = share.index, share.of

    @property
    def in_flight(self) -> int:
        return sum(connection.index != IDLE for connection in self.connections)

    def sweep(self, now_ns: int, timeout_ns: int) -> None:
        """End the requests that have waited too long. Call it some ten times a second."""
        oldest = now_ns - timeout_ns
        for connection in [c for c in self.connections if c.index != IDLE and c.since_ns < oldest]:
            connection.fail("timeout", f"no reply in {timeout_ns / 1e9:g} s")

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        self.connections.clear()

    def replied(self, connection: Connection, result: Result, now_ns: int, body: bytes) -> None:
        raise NotImplementedError

    def failed(self, connection: Connection, kind: str, detail: str) -> None:
        raise NotImplementedError

    def _open(self) -> Connection | None:
        """A new connection, or None when there can be no more of them."""
        if len(self.connections) < self._limit:
            try:
                connection = self._connect(self._loop, self)
            except OSError:
                # Descriptors or ports have run out: what stands now is the limit. Where nothing
                # stands, nothing would ever be tried again.
                self._limit = max(1, len(self.connections))
            else:
                connection.closing = self._fresh
                self.connections.add(connection)
                self.peak_connections = max(self.peak_connections, len(self.connections))
                return connection
        self.exhausted = True
        return None
