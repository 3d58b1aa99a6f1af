"""memcached as the result cache's second level.

pymemcache in threads rather than one of the asyncio clients: it sends many sets in one round trip
(aiomcache and emcache await each), and it is the client that most people run.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from math import ceil
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlbench.proxy.cache.shared_backend import Item

    Arguments = TypeVarTuple("Arguments")
    Result = TypeVar("Result")

DEFAULT_PORT = 11211
# Of one receive; how long a whole look-up may take is the backend's business.
SOCKET_TIMEOUT_S = 0.5
# memcached takes longer times for dates (its protocol.txt, "Expiration times").
LONGEST_TTL_S = 30 * 24 * 3600
# Key, item header and flags count against -I (item_size_max) too.
ITEM_HEAD_BYTES = 512


class MemcachedServer:
    """A memcached server by its URL, through pymemcache."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        address = (parts.hostname or "", parts.port or DEFAULT_PORT)
        self._reader, self._writer = ClientThread(address), ClientThread(address)
        self._largest = 0

    async def connect(self) -> None:
        for line in (self._reader, self._writer):
            await line.run(line.client.close)
        found = await self._reader.run(self._reader.client.stats, "settings")
        self._largest = int(found[b"item_size_max"]) - ITEM_HEAD_BYTES

    async def read(self, names: Sequence[bytes]) -> Sequence[bytes | None]:
        found = await self._reader.run(self._reader.client.get_many, names)
        return [found.get(name) for name in names]

    async def write(self, items: Sequence[Item]) -> str:
        """What is larger than the server's limit is not sent: a refusal would cost the connection."""
        fitting = [item for item in items if len(item.value) <= self._largest]
        for ttl_s, group in groupby(fitting, lambda item: item.ttl_s):
            values = {item.name: item.value for item in group}
            await self._writer.run(self._writer.client.set_many, values, _exptime(ttl_s), False)
        if len(fitting) < len(items):
            return (
                f"some are larger than its limit of {self._largest} bytes (memcached -I sets "
                "the limit)"
            )
        return ""

    async def close(self) -> None:
        for line in (self._reader, self._writer):
            await line.close()


class ClientThread:
    """A client and the thread that it lives in, since it must not be used by two at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        # Imported here, as Redis is: a proxy without memcached does without.
        from pymemcache import Client

        self.client = Client(
            address, connect_timeout=SOCKET_TIMEOUT_S, timeout=SOCKET_TIMEOUT_S, no_delay=True
        )
        self._thread = ThreadPoolExecutor(1, "memcached")

    async def run(self, call: Callable[[*Arguments], Result], *args: *Arguments) -> Result:
        """Return or raise what `call` does; it finishes in its thread even if abandoned."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    async def close(self) -> None:
        """Close the connection once the thread is done with it, and end the thread."""
        self._thread.submit(self.client.close)
        self._thread.shutdown(wait=False)


def _exptime(ttl_s: float) -> int:
    """The protocol's form of a time to live: whole seconds, a date if it is long, 0 for ever."""
    return ceil(ttl_s) if ttl_s <= LONGEST_TTL_S else ceil(time.time() + ttl_s)
