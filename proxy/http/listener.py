"""The HTTP front: listens, watches the clock for slow clients, and drains at the end."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

from dlbench.proxy.errors import StartError
from dlbench.proxy.http.connection import HttpProtocol
from dlbench.proxy.http.head import HeadMemo
from dlbench.proxy.http.hosts import AllowedHosts
from dlbench.proxy.http.limits import Limits
from dlbench.proxy.http.tls import tls_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.http.access import Access
    from dlbench.proxy.http.connection import HttpRequest, Respond
    from dlbench.proxy.http.memory import Memory
    from dlbench.proxy.settings import ServerSettings

# How often connections are looked at for time-outs.
SWEEP_S = 0.5
BACKLOG = 4096
DRAIN_POLL_S = 0.02
# How long a drain leaves idle connections open. A client that sends just then would find its
# connection reset; this way it gets its answer, and with it the news.
GRACE_S = 0.2
TLS_GOODBYE_S = 5.0


class HttpFront:
    """All HTTP connections of a proxy."""

    def __init__(self, settings: ServerSettings, access: Access, memory: Memory) -> None:
        """Raises StartError if a certificate or key cannot be used, or a host cannot be allowed."""
        self._settings, self._access, self._memory = settings, access, memory
        self._hosts = AllowedHosts(settings.host, settings.allowed_hosts)
        self._tls = tls_context(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        self._limits = _limits(settings, memory)
        self._heads = HeadMemo()
        self._connections: set[HttpProtocol] = set()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def startup(self, handle: Callable[[HttpRequest, Respond], None]) -> str:
        """Listen; returns the URL.

        Raises:
            StartError: the address cannot be had.
        """
        settings, connections = self._settings, self._connections
        limits, access, heads, memory = self._limits, self._access, self._heads, self._memory
        hosts = self._hosts

        def connect() -> HttpProtocol:
            return HttpProtocol(
                handle,
                limits,
                connections,
                access=access,
                heads=heads,
                hosts=hosts,
                memory=memory,
            )

        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                connect,
                settings.host,
                settings.port,
                backlog=BACKLOG,
                **self._tls_options(),
            )
        except OSError as error:
            raise StartError(_cannot_listen(settings, error)) from None
        host, port, *_ = self._server.sockets[0].getsockname()
        self._sweeping = asyncio.ensure_future(self._main_loop())
        scheme = "https" if self._tls else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    async def shutdown(self, patient: Callable[[], bool]) -> None:
        """Accept nothing more, and answer what was accepted for as long as somebody is patient."""
        self._server.close()
        self._sweeping.cancel()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(0)  # what lies in the sockets already counts as accepted: read it
        deadline = began + self._settings.drain_timeout_s
        while self._connections and patient() and loop.time() < deadline:
            self._drain(loop.time(), graceful=loop.time() < began + GRACE_S)
            await asyncio.sleep(DRAIN_POLL_S)

    def _tls_options(self) -> dict[str, Any]:
        """TLS options: a handshake has the time of a head, a goodbye little."""
        if self._tls is None:
            return {}
        return {
            "ssl": self._tls,
            "ssl_handshake_timeout": self._settings.header_timeout_s,
            "ssl_shutdown_timeout": TLS_GOODBYE_S,
        }

    async def _main_loop(self) -> None:
        """Close connections whose clients take too long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            for connection in list(self._connections):
                connection.check_time(loop.time())

    def _drain(self, now: float, *, graceful: bool) -> None:
        for connection in list(self._connections):
            connection.drain()
            connection.check_time(now)
            if not graceful:
                connection.close_if_idle()


def _limits(settings: ServerSettings, memory: Memory) -> Limits:
    return Limits(
        settings.max_header_kb * 1024,
        min(settings.max_body_mb * 1024 * 1024, memory.left),
        settings.header_timeout_s,
        settings.body_timeout_s,
        settings.idle_timeout_s,
        settings.max_connections,
    )


def _cannot_listen(settings: ServerSettings, error: OSError) -> str:
    host, port = settings.host, settings.port
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another --port, or 0 for any free one"
    return f"cannot listen on {host} port {port}: {error.strerror or error} (--host, --port)"
