"""A proxy from start to end: workers, front, control line, and a drain at the end.

`python -m dlbench.proxy.main --settings JSON --config JSON [--control-fd N]` is how the tuner
starts one; `dlbench serve` calls `run` in its own process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import signal
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dlbench.proxy.access import NoTokens, Tokens, refuse_public
from dlbench.proxy.api import Api
from dlbench.proxy.async_results import AsyncResults, RespondAsync
from dlbench.proxy.backend import make_backend
from dlbench.proxy.clock import now_ns
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.control import Control, NoControl
from dlbench.proxy.errors import ProxyError, StartError
from dlbench.proxy.http import HttpProtocol, Limits
from dlbench.proxy.metrics import Exposition
from dlbench.proxy.repository import Repository
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.tls import tls_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.served import ModelInfo

# How often connections are looked at for time-outs.
SWEEP_S = 0.5
BACKLOG = 4096
DRAIN_POLL_S = 0.02
# How long a drain leaves idle connections open. A client that sends just then would find its
# connection reset; this way it gets its answer, and with it the news.
GRACE_S = 0.2


@dataclass(frozen=True)
class StartInfo:
    """What a proxy says once it is ready; `grpc` is the address of that service, if there is one."""

    url: str
    models: list[ModelInfo]
    grpc: str = ""


def run(
    settings: ServerSettings,
    config: ServingConfig,
    control_fd: int | None = None,
    announce: Callable[[StartInfo], None] = lambda _: None,
) -> int:
    """Serve until told to stop; returns the exit code.

    Raises:
        ProxyError: it could not start, or its workers kept dying.
    """
    proxy = Proxy(settings, config, announce)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(proxy.run(control_fd))
    return 0


class Proxy:
    """The parts of a proxy and the order in which they come and go."""

    def __init__(
        self,
        settings: ServerSettings,
        config: ServingConfig,
        announce: Callable[[StartInfo], None],
    ) -> None:
        self._settings = settings
        self._config = config
        self._announce = announce
        self._stopping = asyncio.Event()
        self._patient = True
        self._failure: ProxyError | None = None
        self._connections: set[HttpProtocol] = set()

    async def run(self, control_fd: int | None) -> None:
        """Start up, serve, shut down."""
        control: Control | NoControl = NoControl()
        if control_fd is not None:
            control = await Control.open(control_fd, self._stop, self._stop_now)
        try:
            await self._run(control)
        finally:
            control.close()
            await asyncio.sleep(0)  # the loop closes it in its next round

    async def _run(self, control: Control | NoControl) -> None:
        try:
            started = await self._started(control)
        except ProxyError as error:
            control.tell({"event": "failed", "error": str(error)})
            raise
        if not started:
            return
        await self._main_loop()
        await self._shutdown()
        if self._failure is not None:
            raise self._failure

    async def _started(self, control: Control | NoControl) -> bool:
        """Start up, unless someone says stop before that is done."""
        startup = asyncio.ensure_future(self._startup(control))
        stop = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((startup, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if startup.done():
            startup.result()
            return True
        startup.cancel()
        await asyncio.wait((startup,))
        return False

    async def _startup(self, control: Control | NoControl) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        settings = self._settings
        refuse_public(settings.host, settings.token_file, insecure=settings.insecure)
        self._tls = tls_context(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        self._backend = make_backend(settings)
        await self._backend.startup()
        self._repository = Repository(settings, self._config, self._backend, self._give_up)
        await self._repository.startup()
        try:
            url = await self._listen()
        except ProxyError:
            await self._repository.shutdown()
            raise
        info = StartInfo(url, [model.info for model in self._repository.models])
        control.serve(self._repository)
        control.tell({"event": "ready", "url": url, **_first(info), "pids": self._repository.pids})
        self._announce(info)

    async def _main_loop(self) -> None:
        """Watch the clock for slow clients until someone says stop."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), SWEEP_S)
            for connection in list(self._connections):
                connection.check_time(loop.time())

    async def _shutdown(self) -> None:
        """Accept nothing more, answer what was accepted, stop the workers."""
        self._server.close()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(0)  # what lies in the sockets already counts as accepted: read it
        deadline = began + self._settings.drain_timeout_s
        while self._connections and self._patient and loop.time() < deadline:
            self._drain_connections(loop.time(), graceful=loop.time() < began + GRACE_S)
            await asyncio.sleep(DRAIN_POLL_S)
        await self._repository.shutdown()
        await self._backend.shutdown()

    def _drain_connections(self, now: float, *, graceful: bool) -> None:
        for connection in list(self._connections):
            connection.drain()
            connection.check_time(now)
            if not graceful:
                connection.close_if_idle()

    async def _listen(self) -> str:
        settings = self._settings
        results = AsyncResults(settings.async_results, int(settings.async_ttl_s * 1e9))
        exposition = Exposition(lambda: self._repository.models, lambda: len(self._connections))
        api = Api(self._repository, RespondAsync(results, now_ns), exposition)
        access = Tokens.from_file(settings.token_file) if settings.token_file else NoTokens()
        limits = _limits(settings)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: HttpProtocol(api.handle, limits, self._connections, access=access),
                settings.host,
                settings.port,
                backlog=BACKLOG,
                ssl=self._tls,
            )
        except OSError as error:
            raise StartError(_cannot_listen(settings.host, settings.port, error)) from None
        host, port, *_ = self._server.sockets[0].getsockname()
        scheme = "https" if self._tls else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def _give_up(self, error: ProxyError) -> None:
        self._failure = error
        self._stop()

    def _on_signal(self) -> None:
        """The first one drains, a second one means it."""
        if self._stopping.is_set():
            self._stop_now()
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()

    def _stop_now(self) -> None:
        """Nobody waits for a drain any more."""
        self._patient = False
        self._stop()


def _first(info: StartInfo) -> dict[str, Any]:
    """What is said of the model that the tuner asked for."""
    return asdict(info.models[0]) if info.models else {}


def _limits(settings: ServerSettings) -> Limits:
    return Limits(
        settings.max_header_kb * 1024,
        settings.max_body_mb * 1024 * 1024,
        settings.header_timeout_s,
        settings.body_timeout_s,
        settings.idle_timeout_s,
    )


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: --port takes another, 0 any free one"
    return f"cannot listen on {host} port {port}: {error.strerror or error} (--host, --port)"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _main() -> None:
    parser = argparse.ArgumentParser(prog="dlbench.proxy.main")
    parser.add_argument("--settings", required=True, type=ServerSettings.model_validate_json)
    parser.add_argument("--config", required=True, type=ServingConfig.model_validate_json)
    parser.add_argument("--control-fd", type=int)
    arguments = parser.parse_args()
    try:
        run(arguments.settings, arguments.config, arguments.control_fd)
    except ProxyError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    _main()
