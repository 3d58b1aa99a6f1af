"""A cache server that several proxies share, read and written in batches.

Nothing that happens to the server reaches a request: while it is away every look-up is a miss and
every result is forgotten, and one line in the log says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from dlbench.proxy.cache.cache_value import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from dlbench.proxy.request import Outputs

    Found = Callable[[Outputs | None], None]
    Queued = TypeVar("Queued")

LOG = logging.getLogger(__name__)

# A server in the same data centre answers within 1 ms; one that takes this long is no help to a
# model that takes as long itself.
FETCH_TIMEOUT_S = 0.05
CONNECT_TIMEOUT_S = 1.0
WRITE_TIMEOUT_S = 2.0
FLUSH_TIMEOUT_S = 2.0
RETRY_FIRST_S, RETRY_LAST_S = 0.1, 5.0
# Commands in one round trip: packing more would hold up the loop for some milliseconds.
MAX_BATCH = 256
MAX_FETCHES = 4096
MAX_PENDING_BYTES = 64 * 2**20


class Item(NamedTuple):
    """A value on its way to the server; a `ttl_s` of 0 is for ever."""

    name: bytes
    value: bytes
    ttl_s: float

    @property
    def size_bytes(self) -> int:
        """Memory that it takes while it waits, Python's objects included (about 200 bytes)."""
        return len(self.value) + 200


class ValueServer(Protocol):
    """A connection to a server of values; any exception says that the server is away."""

    async def connect(self) -> None:
        """Reconnect and wait for an answer."""
        ...

    async def read(self, names: Sequence[bytes]) -> Sequence[bytes | None]:
        """The values of as many names, in one round trip."""
        ...

    async def write(self, items: Sequence[Item]) -> str:
        """Keep these, in one round trip; returns why some were refused, "" if none was."""
        ...

    async def close(self) -> None:
        """Let go of the connections."""
        ...


class Fetch(NamedTuple):
    """A look-up that waits for its answer."""

    key: bytes
    found: Found
    since_s: float


class SharedBackend:
    """One server, read and written by a task each; each has one round trip under way at a time.

    What comes up meanwhile goes out with the next one, so a busy server gets few large batches.
    """

    def __init__(self, server: ValueServer, name: str, window_s: float) -> None:
        """`name` is the server's in the log, `window_s` how long combined writes are gathered."""
        self.away = True
        self._server, self._name, self._window_s = server, name, window_s
        self._fetches: deque[Fetch] = deque()
        self._asked = asyncio.Event()
        self._pending: deque[Item] = deque()
        self._pending_bytes = 0
        self._stored, self._urgent, self._flushed = (asyncio.Event() for _ in range(3))
        self._flushed.set()
        self._tried = asyncio.Event()
        self._told_away = self._told_spoilt = False
        self._refusal = ""
        self._delay_s = RETRY_FIRST_S
        self._main: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        self._main = asyncio.create_task(self._main_loop())
        await self._tried.wait()

    async def shutdown(self) -> None:
        self._urgent.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await self._flushed.wait()
        if self._main is not None:
            self._end_loops()
            self._main.cancel()
            await asyncio.gather(self._main, return_exceptions=True)
        self._let_go()
        await self._server.close()

    def fetch(self, key: bytes, found: Found) -> None:
        if self.away or len(self._fetches) >= MAX_FETCHES:
            found(None)
            return
        self._fetches.append(Fetch(key, found, asyncio.get_running_loop().time()))
        self._asked.set()

    def store(self, key: bytes, outputs: Outputs, ttl_s: float, *, combined: bool = False) -> None:
        if self.away or self._pending_bytes >= MAX_PENDING_BYTES:
            return
        item = Item(_name(key), encode(key, outputs), ttl_s)
        self._pending.append(item)
        self._pending_bytes += item.size_bytes
        self._flushed.clear()
        self._stored.set()
        if not combined:
            self._urgent.set()

    def __bool__(self) -> bool:
        return True

    async def _main_loop(self) -> None:
        """Connect and serve until the server is lost, again and again, ever more slowly."""
        while True:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await self._server.connect()
                self._came()
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._serve(self._read_loop()))
                    tasks.create_task(self._serve(self._write_loop()))
            except* Exception as failed:
                self._lost(failed.exceptions[0])
            await asyncio.sleep(self._delay_s)
            self._delay_s = min(2 * self._delay_s, RETRY_LAST_S)

    async def _serve(self, loop: Coroutine[None, None, None]) -> None:
        """Run one of the two loops; the other one ends with it."""
        try:
            await loop
        finally:
            self._end_loops()

    def _end_loops(self) -> None:
        """Before they are cancelled: a client that is tidying up may take that for itself."""
        self.away = True
        for event in (self._asked, self._stored, self._urgent):
            event.set()

    async def _read_loop(self) -> None:
        while not self.away:
            await self._asked.wait()
            if fetches := _taken(self._fetches):
                await self._read(fetches)
            if not self._fetches:
                self._asked.clear()

    async def _read(self, fetches: list[Fetch]) -> None:
        """Answer these, whatever happens; a callback that fails does so on its own."""
        loop = asyncio.get_running_loop()
        values: Sequence[bytes | None] = [None] * len(fetches)
        try:
            async with asyncio.timeout_at(fetches[0].since_s + FETCH_TIMEOUT_S):
                values = await self._server.read([_name(fetch.key) for fetch in fetches])
            self._delay_s = RETRY_FIRST_S
        finally:
            for fetch, value in zip(fetches, values, strict=True):
                loop.call_soon(fetch.found, None if value is None else self._decoded(fetch, value))

    def _decoded(self, fetch: Fetch, value: bytes) -> Outputs | None:
        found = decode(fetch.key, value)
        if found is None and not self._told_spoilt:
            self._told_spoilt = True
            LOG.warning(
                "%s holds values that are corrupt or not ours; they count as misses", self._name
            )
        return found

    async def _write_loop(self) -> None:
        while not self.away:
            await self._stored.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._window_s):
                    await self._urgent.wait()
            while self._pending and not self.away:
                await self._write(_taken(self._pending))
            self._stored.clear()
            self._urgent.clear()
            self._flushed.set()

    async def _write(self, items: list[Item]) -> None:
        self._pending_bytes -= sum(item.size_bytes for item in items)
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            refusal = await self._server.write(items)
        if refusal and not self._refusal:
            LOG.warning("%s does not keep every result: %s", self._name, refusal)
        self._refusal = self._refusal or refusal

    def _came(self) -> None:
        self.away = False
        self._tried.set()
        if self._told_away:
            LOG.warning("%s is back", self._name)
        self._told_away = False

    def _lost(self, error: Exception) -> None:
        if not self._told_away:
            why = str(error) or type(error).__name__
            LOG.warning("%s is unreachable; results are not shared: %s", self._name, why)
        self._told_away = True
        self._let_go()
        self._tried.set()

    def _let_go(self) -> None:
        """Drop all waiting requests and results of an unreachable server."""
        self.away = True
        self._pending.clear()
        self._pending_bytes = 0
        for event in (self._asked, self._stored, self._urgent):
            event.clear()
        self._flushed.set()
        waiting = list(self._fetches)
        self._fetches.clear()
        for fetch in waiting:
            asyncio.get_running_loop().call_soon(fetch.found, None)


def _name(key: bytes) -> bytes:
    """What a server knows a key by: printable, since memcached takes nothing else."""
    return b"dlbench:" + key.hex().encode()


def _taken(queue: deque[Queued]) -> list[Queued]:
    """The next batch, out of the queue."""
    return [queue.popleft() for _ in range(min(len(queue), MAX_BATCH))]
