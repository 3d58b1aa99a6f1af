"""One worker as the front sees it: the stream to it, the process behind that, and how both end."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import orjson

from dlbench.proxy.errors import BrokenFrame, DeviceError, ModelError, StartError
from dlbench.proxy.tensors import signature_from
from dlbench.proxy.workers import frames

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlbench.proxy.tensors import Buffer, Signature
    from dlbench.proxy.workers.frames import Frame, Result

# Large enough that two batches of a few hundred kilobytes fit and nobody waits for the other.
SOCKET_BUFFER_BYTES = 4 << 20
STOP_TIMEOUT_S = 5.0
# Of what a worker says of a failure: more than a line helps nobody.
MOST_TEXT_BYTES = 2000
# What ends a worker without a word of its own.
LIKELY_CAUSES = {
    signal.SIGKILL: " (out of memory?)",
    signal.SIGSEGV: " (a crash in native code)",
    signal.SIGABRT: " (a crash in native code)",
    signal.SIGBUS: " (a crash in native code)",
    signal.SIGILL: " (an instruction that this processor lacks)",
}
# The options that a worker names when it cannot have the device.
DEVICE_OPTIONS = ("--device", "--provider-option")


class WorkerLink(asyncio.BufferedProtocol, ABC):
    """The stream to one worker, wherever that runs.

    The owner sets `on_result(link, number, result or error text)` and `on_lost(link)`. After that
    `shutdown` waits for its end, and `death` says how it ended.
    """

    # Of the worker's process, where that is one of ours.
    pid: int | None = None

    def __init__(self) -> None:
        self.hello: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.on_result: Callable[[WorkerLink, int, Result | str], None]
        self.on_lost: Callable[[WorkerLink], None] = lambda _: None
        self.alive = True
        self.broken = False  # it sent what no worker sends
        self.death = ""
        self._reader = frames.FrameReader()
        self._reader.most_bytes = frames.MOST_HELLO_BYTES
        self._item_sizes: tuple[int, ...] = ()  # of the outputs
        self._outstanding = 0
        self._transport: Any = None
        self._burial: asyncio.Task[None] | None = None
        self._buried = asyncio.Event()

    @abstractmethod
    async def startup(self) -> dict[str, Any]:
        """Open the stream and wait for the worker's hello.

        Raises:
            ModelError, DeviceError: the worker could not load the model; the text is its own.
            StartError: it died meanwhile, or cannot be reached.
        """

    @abstractmethod
    async def ended(self, exc: Exception | None) -> str:
        """How the worker ended, once it has; its stream ended with `exc`, or was closed by us."""

    def send(self, pieces: Sequence[Buffer]) -> None:
        """Hand over a batch; to a worker that is gone already, its loss is about to be told."""
        self._outstanding += 1
        if not self._transport.is_closing():
            self._transport.writelines(pieces)

    async def shutdown(self) -> None:
        """Close the stream, which ends the worker."""
        self.on_lost = lambda _: None
        if self._transport is not None:
            self._transport.close()
        await self.ended(None)
        if self._transport is not None:
            self._transport.abort()  # what nobody reads any more must not hold it open
            await self._buried.wait()

    def kill(self, why: str = "killed by the proxy") -> None:
        """Kill the worker at once; its end is reported like any other."""
        self.death = self.death or why
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - a frame's size is known
        return self._reader.room()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for frame in self._reader.received(nbytes):
                HANDLERS.get(frame.kind, WorkerLink.misled)(self, frame)
        except BrokenFrame as error:
            self.broken = True
            self.kill(f"it sent an invalid message: {error}")

    def feed(self, data: bytes) -> None:
        """Take bytes that were read by somebody else."""
        while data:
            room = self.get_buffer(len(data))
            size = min(len(room), len(data))
            room[:size] = data[:size]
            self.buffer_updated(size)
            data = data[size:]

    def check(self, signature: Signature, result: Result, rows: int) -> None:
        """Raises BrokenFrame for what the model cannot have given; our own workers are believed."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        self._burial = asyncio.get_running_loop().create_task(self._bury(exc))
        self.on_lost(self)

    def said_hello(self, frame: Frame) -> None:
        """The worker is ready."""
        if self.hello.done():
            raise BrokenFrame("a second hello")
        try:
            hello = orjson.loads(frame.data)
            outputs = signature_from(hello["signature"]).outputs
            self._item_sizes = tuple(spec.item_size for spec in outputs)
            hello["device"], hello["device_reason"]
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise BrokenFrame("an empty hello") from None
        self._reader.most_bytes = frames.MOST_BYTES
        self.hello.set_result(hello)

    def misled(self, frame: Frame) -> None:
        """A frame that only we send."""
        raise BrokenFrame(f"a frame of kind {frame.kind}")

    def finished(self, frame: Frame) -> None:
        """A batch is done."""
        result = frames.decode_result(frame, self._item_sizes)
        self._done()
        self.on_result(self, frame.number, result)

    def failed(self, frame: Frame) -> None:
        """A batch failed, or loading did."""
        text = bytes(frame.data[:MOST_TEXT_BYTES]).decode(errors="replace")
        if self.hello.done():
            self._done()
            self.on_result(self, frame.number, text)
        else:
            kind = DeviceError if text.startswith(DEVICE_OPTIONS) else ModelError
            self.hello.set_exception(kind(text))

    def _done(self) -> None:
        if not self._outstanding:
            raise BrokenFrame("an unexpected answer")
        self._outstanding -= 1

    async def _bury(self, exc: Exception | None) -> None:
        """Wait for the worker's end: a socket may end a moment before its process."""
        self.death = self.death or await self.ended(exc)
        if not self.hello.done():
            self.hello.set_exception(
                StartError(f"a worker died while loading the model: {self.death}")
            )
        self._buried.set()


class ProcessLink(WorkerLink):
    """A worker process of our own, over a Unix socket."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__()
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    async def startup(self) -> dict[str, Any]:
        self._process, stream = spawn(self._arguments)
        self.pid = self._process.pid
        loop = asyncio.get_running_loop()
        connecting = asyncio.ensure_future(loop.create_unix_connection(lambda: self, sock=stream))
        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # uvloop never says that a connection is lost which was cancelled in the making.
            await connecting
            self.hello.cancel()
            raise
        return await self.hello

    async def ended(self, exc: Exception | None) -> str:  # noqa: ARG002 - the exit code says it all
        """Reap the process; one that does not end by itself is killed."""
        if self._process is None:
            return "never started"
        return meaning(await asyncio.to_thread(reap, self._process))

    def kill(self, why: str = "killed by the proxy") -> None:
        if self._process is not None:
            self._process.kill()
        super().kill(why)


HANDLERS: dict[int, Callable[[WorkerLink, Frame], None]] = {
    frames.HELLO: WorkerLink.said_hello,
    frames.RESULT: WorkerLink.finished,
    frames.FAILURE: WorkerLink.failed,
}


def spawn(arguments: dict[str, Any]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A worker process and our end of the socket to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    with theirs:
        return spawn_for(arguments, theirs), ours


def spawn_for(arguments: dict[str, Any], *streams: socket.socket) -> subprocess.Popen[bytes]:
    """A worker process that serves the first stream, and ends at once when the second one does."""
    numbers = [stream.fileno() for stream in streams]
    # -P: a json.py or numpy.py in the user's folder must not be taken for the real one.
    command = [sys.executable, "-P", "-m", "dlbench.proxy.workers.worker"]
    return subprocess.Popen(
        [*command, orjson.dumps(arguments).decode(), *map(str, numbers)],
        pass_fds=numbers,
        stdin=subprocess.DEVNULL,
    )


def meaning(code: int) -> str:
    """How a process ended, from its return code as `subprocess` gives it."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        number = signal.Signals(-code)
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-code}"
    return f"killed by {number.name}{LIKELY_CAUSES.get(number, '')}"


def reap(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process to end by itself, then make it; its return code."""
    try:
        return process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
