"""The worker processes as the front sees them: started, fed, watched and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import orjson

from dlbench.proxy import frames
from dlbench.proxy.errors import DeviceError, ModelError, StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.settings import ServerSettings

# Large enough that two batches of a few hundred kilobytes fit and nobody waits for the other.
SOCKET_BUFFER_BYTES = 4 << 20
STOP_TIMEOUT_S = 5.0
# How fast the smoothed service time follows: about the last ten batches.
SMOOTHING = 0.1


class WorkerLink(asyncio.Protocol):
    """One worker process and the socket to it.

    The owner sets `on_result(link, number, result or error text)` and `on_lost(link)`.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.hello: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.on_result: Callable[[WorkerLink, int, frames.Result | str], None]
        self.on_lost: Callable[[WorkerLink], None] = lambda _: None
        self.item_sizes: Sequence[int] = ()
        self.service_ns = 0.0
        self.alive = True
        self._arguments = arguments
        self._reader = frames.Reader()
        self._transport: Any = None
        self._process: subprocess.Popen[bytes] | None = None

    async def startup(self) -> dict[str, Any]:
        """Start the process and wait for its hello.

        Raises:
            StartError: the worker could not load the model; the text is its own.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "dlbench.proxy.worker",
                    str(theirs.fileno()),
                    orjson.dumps(self._arguments).decode(),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=ours)
        return await self.hello

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def send(self, pieces: list[Any]) -> None:
        """Hand over a frame."""
        self._transport.writelines(pieces)

    def took(self, compute_ns: int) -> None:
        """Remember how long a batch took, smoothed."""
        before = self.service_ns or compute_ns
        self.service_ns = before + SMOOTHING * (compute_ns - before)

    async def shutdown(self) -> None:
        """Close the socket, which ends the worker; one that does not obey is killed."""
        self.on_lost = lambda _: None
        if self._transport is not None:
            self._transport.close()
        if self._process is not None:
            await asyncio.to_thread(_reap, self._process)

    def kill(self) -> None:
        """End the worker at once."""
        if self._transport is not None:
            self._transport.abort()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for kind, number, body in self._reader.feed(data):
            HANDLERS[kind](self, number, body)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a death is a death
        self.alive = False
        if not self.hello.done():
            self.hello.set_exception(
                StartError(f"a worker died while loading the model{self._code()}")
            )
        self.on_lost(self)

    def said_hello(self, _: int, body: memoryview) -> None:
        """The worker is ready."""
        self.hello.set_result(orjson.loads(body))

    def finished(self, number: int, body: memoryview) -> None:
        """A batch is done."""
        self.on_result(self, number, frames.decode_result(body, self.item_sizes))

    def failed(self, number: int, body: memoryview) -> None:
        """A batch failed, or loading did."""
        text = bytes(body).decode(errors="replace")
        if self.hello.done():
            self.on_result(self, number, text)
        else:
            kind = DeviceError if text.startswith("--device") else ModelError
            self.hello.set_exception(kind(text))

    def _code(self) -> str:
        if self._process is None:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        code = self._process.returncode
        return "" if code is None else f" ({_meaning(code)})"


HANDLERS: dict[int, Callable[[WorkerLink, int, memoryview], None]] = {
    frames.HELLO: WorkerLink.said_hello,
    frames.RESULT: WorkerLink.finished,
    frames.FAILURE: WorkerLink.failed,
}


async def start_workers(
    path: str, settings: ServerSettings, config: ServingConfig, count: int
) -> list[WorkerLink]:
    """Start `count` workers at once; if one fails, none is left.

    Raises:
        ModelError, DeviceError, StartError: in the first failing worker's words.
    """
    starts = (start_worker(path, settings, config) for _ in range(count))
    found = await asyncio.gather(*starts, return_exceptions=True)
    links = [link for link in found if isinstance(link, WorkerLink)]
    if errors := [error for error in found if isinstance(error, BaseException)]:
        await asyncio.gather(*(link.shutdown() for link in links))
        raise errors[0]
    return links


async def start_worker(path: str, settings: ServerSettings, config: ServingConfig) -> WorkerLink:
    """Start one worker; a start that fails or is cancelled leaves no process."""
    link = WorkerLink(
        {
            "path": path,
            "device": settings.device,
            "intra_op_threads": config.intra_op_threads,
            "max_batch_size": config.max_batch_size,
            "batch_axis": settings.batch_axis,
            "shape": settings.shape,
        }
    )
    try:
        await link.startup()
    except BaseException:
        link.kill()
        raise
    return link


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _meaning(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def now_ns() -> int:
    """The clock that queues and time-outs are measured with."""
    return time.monotonic_ns()
