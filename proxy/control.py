"""The private line to a proxy: JSON lines over an inherited Unix socket, never the public port.

Its end is also the proxy's end: a parent that dies takes the proxy with it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import ProxyError
from dlbench.proxy.knob import restart_knobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.serving.repository import Repository
    from dlbench.proxy.serving.served import ServedModel


class NoControl:
    """The null object: no process holds the other end."""

    def tell(self, event: dict[str, Any]) -> None:
        """Do nothing."""

    def serve(self, repository: Repository) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Control(asyncio.Protocol):
    """Answers the commands `configure`, `counters` and `stop`."""

    def __init__(self, stop: Callable[[], None], stop_now: Callable[[], None]) -> None:
        self._stop, self._stop_now = stop, stop_now
        self._buffer = b""
        self._transport: Any = None
        self._repository: Repository | None = None

    @classmethod
    async def open(cls, fd: int, stop: Callable[[], None], stop_now: Callable[[], None]) -> Control:
        """Take over the inherited descriptor; `stop` is the command, `stop_now` the line's end."""
        loop = asyncio.get_running_loop()
        line = socket.socket(fileno=fd)
        _, control = await loop.create_unix_connection(lambda: cls(stop, stop_now), sock=line)
        return control

    def tell(self, event: dict[str, Any]) -> None:
        """Send a line."""
        self._transport.write(orjson.dumps(event) + b"\n")

    def serve(self, repository: Repository) -> None:
        """From now on commands are for its first model."""
        self._repository = repository

    def close(self) -> None:
        """Hang up, once everything that was said has been sent."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - gone is gone
        self._stop_now()

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self.tell(self._answer(line))

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            command = orjson.loads(line)
            return {"ok": True, **COMMANDS[command["op"]](self, command)}
        except (ProxyError, ValidationError, KeyError, TypeError, orjson.JSONDecodeError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _configure(self, command: dict[str, Any]) -> dict[str, Any]:
        """Change knobs in place; the cache is empty afterwards."""
        dispatcher = self._served()[1].dispatcher
        now = dispatcher.core.config.model_dump()
        wanted = ServingConfig.model_validate({**now, **command["knobs"]})
        for name in sorted(restart_knobs()):
            if getattr(wanted, name) != now[name]:
                raise ProxyError(f"{name} needs a restart")
        dispatcher.configure(wanted)
        return {}

    def _counters(self, _: dict[str, Any]) -> dict[str, Any]:
        repository, model = self._served()
        counts = model.stats.counters()
        return {**counts, "in_flight": model.in_flight, "pids": repository.pids}

    def _halt(self, _: dict[str, Any]) -> dict[str, Any]:
        self._stop()
        return {}

    def _served(self) -> tuple[Repository, ServedModel]:
        if self._repository is None or not self._repository.models:
            raise ProxyError("not ready yet")
        return self._repository, self._repository.models[0]


COMMANDS: dict[str, Callable[[Control, dict[str, Any]], dict[str, Any]]] = {
    "configure": Control._configure,
    "counters": Control._counters,
    "stop": Control._halt,
}
