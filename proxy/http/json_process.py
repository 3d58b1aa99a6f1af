"""A process of its own for what would hold up everybody: large JSON, parsed and made into tensors.

A thread does not help: orjson holds the interpreter for as long as it parses, and 64 MB of nested
lists are two seconds and 1.6 GB. Here they are another process's, whose memory is bounded and which
is replaced when it dies. It is started when it is first needed, and takes one document at a time.

Both ends are our own code over a socket of our own, so functions and results travel as pickles,
bodies and tensors beside them as they are.
"""

from __future__ import annotations

import asyncio
import gc
import pickle
import resource
import signal
import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: F401 - there before the memory is bounded

from dlbench.proxy.errors import RequestError, TooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# How many parts there are, then the size of each: the pickle, and what lies beside it.
COUNT, SIZE = struct.Struct("<I"), struct.Struct("<Q")
# Rows of three numbers and more fill a body of 64 MB with fewer. Each takes a hundred bytes.
MOST_LISTS = 5_000_000
TOO_MUCH = "parsing this takes too much memory; send tensors as binary"


class Aside:
    """Calls functions in a process beside this one."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes` is what the process may take; what needs more is refused."""
        self._most_bytes = most_bytes
        # The one thread that speaks with the process is also the queue before it.
        self._thread = ThreadPoolExecutor(1, "aside")
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: socket.socket

    def call(self, function: Callable[..., Any], *arguments: object) -> asyncio.Future[Any]:
        """What the function returns for these arguments there; they are not kept here meanwhile.

        The future may end with a RequestError: the function's, or for want of memory. Cancelled
        before its turn, it lets go of the arguments at once and is not called.
        """
        work = [function, *arguments]
        queued = self._thread.submit(self._call, work)

        def let_go(_: asyncio.Future[Any]) -> None:
            if queued.cancelled():  # the thread keeps it in its queue all the same
                work.clear()

        future = asyncio.wrap_future(queued)
        future.add_done_callback(let_go)
        return future

    async def shutdown(self) -> None:
        """End the process, after what it is at."""
        await asyncio.to_thread(self._shutdown)

    def _call(self, work: list[Any]) -> Any:  # noqa: ANN401 - the function's
        if self._process is None:
            self._start()
        try:
            send(self._stream, work)
            work.clear()  # the body is there now, and not needed here any more
            failed, result = receive(self._stream)
        except OSError:
            self._end()
            raise TooLarge(TOO_MUCH) from None
        if failed:
            raise result
        return result

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            number = theirs.fileno()
            # -P: a json.py or numpy.py in the user's folder must not be taken for the real one.
            command = [sys.executable, "-P", "-m", "dlbench.proxy.http.json_process"]
            self._process = subprocess.Popen(
                [*command, str(number), str(self._most_bytes)],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
            )
        self._stream = ours

    def _end(self) -> None:
        """End the process, whatever it is at."""
        process, self._process = self._process, None
        if process is None:
            return
        self._stream.close()
        process.kill()
        process.wait()

    def _shutdown(self) -> None:
        if self._process is not None:
            with suppress(OSError):
                self._stream.shutdown(socket.SHUT_RDWR)  # nobody waits for what it is at
        self._thread.shutdown(cancel_futures=True)
        self._end()


def send(stream: socket.socket, value: object) -> None:
    """Send a value; its bytes of any length are not copied."""
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(value, 5, buffer_callback=buffers.append)
    parts = [memoryview(text), *(buffer.raw() for buffer in buffers)]
    sizes = b"".join(SIZE.pack(part.nbytes) for part in parts)
    stream.sendall(COUNT.pack(len(parts)) + sizes)
    for part in parts:
        stream.sendall(part)


def receive(stream: socket.socket) -> Any:  # noqa: ANN401 - whatever was sent
    """The next value.

    Raises:
        OSError: the other end has closed.
    """
    (count,) = COUNT.unpack(_exactly(stream, COUNT.size))
    sizes = _exactly(stream, count * SIZE.size)
    text, *buffers = [_exactly(stream, size) for (size,) in SIZE.iter_unpack(sizes)]
    return pickle.loads(text, buffers=buffers)


def _exactly(stream: socket.socket, size: int) -> bytearray:
    found = bytearray(size)
    view = memoryview(found)
    while view:
        count = stream.recv_into(view, 0, socket.MSG_WAITALL)
        if not count:
            raise ConnectionResetError("the other end has closed")
        view = view[count:]
    return found


def main() -> None:
    """Answer calls on the socket that the arguments name until it ends."""
    # Both may be sent to the whole group, but they are for the front, which ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    number, most_bytes = map(int, sys.argv[1:])
    _limit_memory(most_bytes)
    # Twenty million lists that live are walked through again and again: 28 s instead of two.
    gc.disable()
    stream = socket.socket(fileno=number)
    with suppress(OSError):
        while True:
            function, *arguments = receive(stream)
            send(stream, _outcome(function, arguments))
            del arguments


def _check_lists(arguments: Sequence[Any]) -> None:
    """Refuse what would be more lists and objects than numbers are worth, before it is parsed."""
    for text in arguments:
        body: Any = text.obj if isinstance(text, memoryview) else b""  # which cannot count
        if body.count(b"[") + body.count(b"{") > MOST_LISTS:
            raise TooLarge(f"more than {MOST_LISTS} lists and objects; send tensors as binary")


def _limit_memory(most_bytes: int) -> None:
    """Beside what the interpreter and NumPy have reserved; nowhere but on Linux is that known."""
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + most_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _outcome(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[bool, Any]:
    """Whether it failed, and what it returned or raised."""
    try:
        _check_lists(arguments)
        return False, function(*arguments)
    except RequestError as error:
        return True, error
    except (MemoryError, SystemError):  # the latter is orjson's way to say it
        return True, TooLarge(TOO_MUCH)
    except Exception as error:
        return True, RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
