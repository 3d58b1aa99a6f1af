"""The result cache's second level, behind the cache of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from dlbench.proxy.cache.memcached_backend import MemcachedServer
from dlbench.proxy.cache.redis_backend import RedisServer
from dlbench.proxy.cache.shared_backend import SharedBackend
from dlbench.proxy.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.cache.shared_backend import ValueServer
    from dlbench.proxy.request import Outputs
    from dlbench.proxy.settings import ServerSettings

    Found = Callable[[Outputs | None], None]


class Backend(Protocol):
    """Results that proxies share, by key."""

    async def startup(self) -> None:
        """Try to connect; a server that is away is asked again from then on."""
        ...

    async def shutdown(self) -> None:
        """Write what is pending, for a bounded time, and part; later calls do nothing."""
        ...

    def fetch(self, key: bytes, found: Found) -> None:
        """Call `found` once: with the result, or with None after `shared_backend.FETCH_TIMEOUT_S` at most."""
        ...

    def store(self, key: bytes, outputs: Outputs, ttl_s: float, *, combined: bool = False) -> None:
        """Write a result soon, a `combined` one with others of its window. Never blocks or raises."""
        ...

    def __bool__(self) -> bool:
        """Whether a look-up can find anything."""
        ...


class NoBackend:
    """No server."""

    async def startup(self) -> None:
        """There is nothing to connect to."""

    async def shutdown(self) -> None:
        """There is nothing to write to."""

    def fetch(self, key: bytes, found: Found) -> None:  # noqa: ARG002 - no key is there
        found(None)

    def store(self, key: bytes, outputs: Outputs, ttl_s: float, *, combined: bool = False) -> None:
        """Forget it."""

    def __bool__(self) -> bool:
        return False


SERVERS: dict[str, Callable[[str], ValueServer]] = {
    "redis": RedisServer,
    "rediss": RedisServer,
    "memcached": MemcachedServer,
}


def make_backend(settings: ServerSettings) -> Backend:
    """The backend that `settings` names, the null object for none.

    Raises:
        StartError: the URL is of no server that is known.
    """
    if not settings.cache_backend:
        return NoBackend()
    url = urlsplit(settings.cache_backend)
    if url.scheme not in SERVERS or not url.hostname:
        raise StartError(
            f"--cache-backend {settings.cache_backend!r} is not a {' or '.join(SERVERS)} URL, "
            "such as redis://127.0.0.1:6379/0"
        )
    # Without the password that a URL may hold.
    name = f"{url.scheme}://{url.hostname}:{url.port or 'default port'}"
    return SharedBackend(
        SERVERS[url.scheme](settings.cache_backend), name, settings.cache_window_ms / 1000
    )
