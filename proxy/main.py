"""A proxy from start to end: workers, front, control line, and a drain at the end.

`python -m dlbench.proxy.main --settings JSON --config JSON [--control-fd N]` is how the tuner
starts one; `dlbench serve` calls `run` in its own process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import signal
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dlbench.proxy.cache.backend import make_backend
from dlbench.proxy.clock import now_ns
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.control import Control, NoControl
from dlbench.proxy.descriptors import check_descriptors, descriptor_limit
from dlbench.proxy.errors import ProxyError
from dlbench.proxy.http.access import NoTokens, Tokens, refuse_public
from dlbench.proxy.http.json_process import Aside
from dlbench.proxy.http.listener import HttpFront
from dlbench.proxy.http.memory import Memory, most_bytes
from dlbench.proxy.protocols.async_results import AsyncResults, RespondAsync
from dlbench.proxy.protocols.routes import Api
from dlbench.proxy.serving.repository import Repository
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.telemetry import logs
from dlbench.proxy.telemetry.metrics import Exposition
from dlbench.proxy.telemetry.spans import make_spans

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.serving.served import ModelInfo


# A few thousand requests' objects. Measured with silero at 25,000/s: a tenth less processor time of
# the front and half the p99 against the interpreter's defaults.
GC_YOUNG_OBJECTS = 20_000
GC_GENERATION = 20
# What JSON takes as Python's objects, per byte: lists of one short number are the worst that anybody
# sends who means it.
ASIDE_RATIO = 32


class Front(Protocol):
    """What clients connect to."""

    async def shutdown(self, patient: Callable[[], bool]) -> None:
        """Accept nothing more, and answer what was accepted for as long as somebody is patient."""
        ...


@dataclass(frozen=True)
class StartInfo:
    """What a proxy reports once it is ready; `grpc` is the gRPC service's address, if any."""

    url: str
    models: list[ModelInfo]
    grpc: str = ""


def run(
    settings: ServerSettings,
    config: ServingConfig,
    control_fd: int | None = None,
    announce: Callable[[StartInfo], None] = lambda _: None,
) -> int:
    """Serve until stopped; return the exit code.

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
        self._access_log = logs.configure(settings.log_format, access=settings.access_log)
        self._stopping = asyncio.Event()
        self._patient = True
        self._failure: ProxyError | None = None
        self._parts = contextlib.AsyncExitStack()  # what is closed at the end, in reverse order

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
        _collect_rarely()
        await self._stopping.wait()
        await self._parts.aclose()
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
        if self._failure is not None:  # one model's workers died while another was loading
            raise self._failure
        return False

    async def _startup(self, control: Control | NoControl) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        async with contextlib.AsyncExitStack() as parts:
            info = await self._start_parts(parts)
            self._parts = parts.pop_all()
        control.serve(self._repository)
        control.tell({"event": "ready", **_shown(info), "pids": self._repository.pids})
        self._announce(info)

    async def _start_parts(self, parts: contextlib.AsyncExitStack) -> StartInfo:
        """Start everything in order; `parts` then knows how to close it."""
        settings = self._settings
        models = 1 + len(settings.also)
        check_descriptors(self._config, models, descriptor_limit())
        refuse_public(settings.host, settings.token_file, insecure=settings.insecure)
        access = Tokens.from_file(settings.token_file) if settings.token_file else NoTokens()
        spans = make_spans(settings.otlp_endpoint)
        parts.push_async_callback(asyncio.to_thread, spans.shutdown)
        backend = make_backend(settings)
        parts.push_async_callback(backend.shutdown)
        await backend.startup()
        memory = Memory(most_bytes(settings.max_memory_mb))
        http = HttpFront(settings, access, memory)
        aside = Aside(min(memory.left, ASIDE_RATIO * settings.max_body_mb << 20))
        parts.push_async_callback(aside.shutdown)
        self._repository = Repository(settings, self._config, backend, spans, self._give_up, aside)
        parts.push_async_callback(self._repository.shutdown)
        await self._repository.startup()
        results = AsyncResults(settings.async_results, int(settings.async_ttl_s * 1e9), memory)
        exposition = Exposition(lambda: self._repository.models, lambda: http.connections)
        api = Api(self._repository, RespondAsync(results, now_ns, memory), exposition)
        url = await http.startup(self._access_log.around(spans.around(api.handle)))
        fronts: list[Front] = [http]
        parts.push_async_callback(self._drain, fronts)
        grpc = ""
        if settings.grpc_port is not None:
            from dlbench.proxy.protocols.grpc.server import GrpcFront  # needs the extra `grpc`

            front = GrpcFront(self._repository, access, settings, memory)
            grpc = f"{settings.host}:{await front.startup()}"
            fronts.append(front)
        return StartInfo(url, [model.info for model in self._repository.models], grpc)

    async def _drain(self, fronts: list[Front]) -> None:
        await asyncio.gather(*(front.shutdown(lambda: self._patient) for front in fronts))

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
        """Stop at once, without draining."""
        self._patient = False
        self._stop()


def _shown(info: StartInfo) -> dict[str, Any]:
    """What the starter is told: the addresses, and the first model, which the tuner serves."""
    first = asdict(info.models[0]) if info.models else {}
    return {"url": info.url, "grpc": info.grpc, **first}


def _collect_rarely() -> None:
    """Let the garbage collector look at requests seldom, and at what is here for good never.

    Requests die by their reference counts; the default of 700 young objects walks through those in
    flight with every batch.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_OBJECTS, GC_GENERATION, GC_GENERATION)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Uvloop if it is installed."""
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
