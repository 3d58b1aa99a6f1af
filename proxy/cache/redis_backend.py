"""Redis as the result cache's second level."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlbench.proxy.cache.shared_backend import Item

# One to read and one to write.
CONNECTIONS = 2
# Longer than any bound of the backend's, which decides how long to wait: 5 s is the last retry.
SOCKET_TIMEOUT_S = 5.0


class RedisServer:
    """A Redis server by its URL, through redis-py."""

    def __init__(self, url: str) -> None:
        # Imported here: it takes 0.1 s that a proxy without Redis need not pay.
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        # RESP2 and no driver name: two round trips less, and servers before Redis 6 do as well.
        self._client = Redis.from_url(
            url,
            max_connections=CONNECTIONS,
            protocol=2,
            driver_info=None,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
        )

    async def connect(self) -> None:
        await self._client.connection_pool.disconnect()
        await self._client.ping()

    async def read(self, names: Sequence[bytes]) -> Sequence[bytes | None]:
        # redis-py's types leave open whether it was told to decode text.
        return cast("list[bytes | None]", await self._client.mget(names))

    async def write(self, items: Sequence[Item]) -> str:
        """In one pipeline, a SET each: MSET knows no time to live."""
        pipeline = self._client.pipeline(transaction=False)
        for item in items:
            pipeline.set(item.name, item.value, px=ceil(1000 * item.ttl_s) or None)
        replies = await pipeline.execute(raise_on_error=False)
        return next((str(reply) for reply in replies if isinstance(reply, Exception)), "")

    async def close(self) -> None:
        await self._client.aclose()
