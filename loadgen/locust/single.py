"""Single requests from a locustfile's own tasks, over one connection of the engine's."""

from __future__ import annotations

import time
from itertools import count
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import AsyncResult

from dlbench.loadgen.engine.connector import connector
from dlbench.loadgen.locust.bulk_stats import METHOD
from dlbench.loadgen.locust.locustfile import profile_of
from dlbench.loadgen.protocols.discovery import discover
from dlbench.loadgen.protocols.judge import judge_of
from dlbench.loadgen.protocols.payloads import requests_of
from dlbench.loadgen.transport.keepalive import IDLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from locust.env import Environment

    from dlbench.loadgen.transport.keepalive import Connection, Result

NS_PER_MS = 1e6
OK = 200


class RequestFailed(Exception):
    """What Locust shows of a request that failed: the kind of error."""


class SingleRequests:
    """Asks the server once what it serves; then one request at a time. Raises LoadError."""

    def __init__(self, environment: Environment, host: str, load: Mapping[str, Any]) -> None:
        self._environment = environment
        self._profile = profile_of(load)
        self._target = discover(host, self._profile)
        self._requests = requests_of(self._target, self._profile, time.time_ns())
        self._judge = judge_of(self._target, self._profile, self._requests)
        self._connect = connector(self._target, self._profile)
        self._numbers = count()
        self._connection: Connection | None = None
        self._answer: AsyncResult[tuple[Result, int, bytes]] = AsyncResult()
        # The connection counts its bytes here: [sent, received].
        self.traffic = [0, 0]

    def infer(self, number: int | None = None) -> bytes:
        """Send request `number` (None: the next one); return the reply's body, perhaps empty."""
        number = next(self._numbers) if number is None else number
        self._answer = AsyncResult()
        began_ns = monotonic_ns()
        self._submit(number, began_ns)
        result, done_ns, body = self._ended()
        if result == OK:
            result = self._judge(body, number) or OK
        self._record(result, (done_ns - began_ns) / NS_PER_MS, body)
        return body

    def _ended(self) -> tuple[Result, int, bytes]:
        with gevent.Timeout(self._profile.timeout_s, False):
            self._answer.wait()
        if not self._answer.ready():
            self.close()
            return "timeout", monotonic_ns(), b""
        answer: tuple[Result, int, bytes] = self._answer.get()
        return answer

    def _submit(self, number: int, began_ns: int) -> None:
        connection = self._connection
        if connection is None or connection.closing:
            self.close()
            self._connection = connection = self._connect(gevent.get_hub().loop, self)
        connection.submit(self._requests.at(number), 0, began_ns)

    def _record(self, result: Result, time_ms: float, body: bytes) -> None:
        kind = result if isinstance(result, str) else f"status_{result}"
        self._environment.events.request.fire(  # type: ignore[no-untyped-call]
            request_type=METHOD,
            name=self._target.path,
            response_time=time_ms,
            response_length=len(body),
            exception=None if result == OK else RequestFailed(kind),
            context={},
        )

    def replied(self, connection: Connection, result: Result, now_ns: int, body: bytes) -> None:
        """A reply has come: called by the connection."""
        connection.index = IDLE
        self._answer.set((result, now_ns, body))

    def failed(self, connection: Connection, kind: str, detail: str) -> None:
        """The connection is closed: called by the connection."""
        if connection is self._connection:
            self._connection = None
        if connection.index != IDLE:
            self._answer.set((kind, monotonic_ns(), detail.encode()))

    def close(self) -> None:
        """End the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
