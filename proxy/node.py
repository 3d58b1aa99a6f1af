"""A node: a machine that lends workers to fronts elsewhere, one process for each connection.

A front that connects, and may, gets a worker whose socket is that connection: the node itself sees no
frame. A thread each says hello and then waits until the front or the worker is gone.
"""

from __future__ import annotations

import contextlib
import logging
import select
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, NoReturn

from dlbench.proxy import frames
from dlbench.proxy.access import NoTokens, Tokens, refuse_public
from dlbench.proxy.errors import ModelError, ProxyError, StartError, Unauthorized
from dlbench.proxy.link import meaning, reap, spawn_for
from dlbench.proxy.pool import arguments
from dlbench.proxy.remote import (
    GREETING,
    HELLO,
    HELLO_TIMEOUT_S,
    MAGIC,
    TOKEN_BYTES,
    VERSION,
    Address,
    FrontHello,
    check_version,
    tune,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.model import ModelFile
    from dlbench.proxy.settings import ServerSettings

LOG = logging.getLogger(__name__)

# A process with the model in its memory each: more than any front should ask of one machine.
MOST_CONNECTIONS = 64
# Of a peer that has closed its end; elsewhere than on Linux it shows when the worker finds out.
HUNG_UP = getattr(select, "POLLRDHUP", select.POLLHUP)


class Node:
    """Serves one model to fronts, until it is interrupted."""

    def __init__(self, source: ModelFile, settings: ServerSettings, config: ServingConfig) -> None:
        """Raises StartError if there is no token in the token file."""
        self._source, self._settings, self._config = source, settings, config
        self._access = Tokens.from_file(settings.token_file) if settings.token_file else NoTokens()
        # By number: a worker's decides on its device.
        self._open: dict[int, tuple[socket.socket, threading.Thread]] = {}

    def run(self, address: Address, announce: Callable[[Address], None]) -> None:
        """Listen until SIGINT or SIGTERM; no worker is left then.

        Raises:
            StartError: nobody can listen there, or anybody could come.
        """
        host, token_file = address.host, self._settings.token_file
        refuse_public(host, token_file, insecure=self._settings.insecure, option="--listen")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server(address, family=family)
        except OSError as error:
            raise StartError(f"--listen {address}: {error.strerror}") from None
        with listener, contextlib.suppress(KeyboardInterrupt):
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            announce(Address(host, listener.getsockname()[1]))
            self._main_loop(listener)
        self._shutdown()

    def _main_loop(self, listener: socket.socket) -> NoReturn:
        while True:
            stream, peer = listener.accept()
            number = next((n for n in range(MOST_CONNECTIONS) if n not in self._open), None)
            if number is None:
                LOG.warning("%s is refused: there are %d already", peer[0], MOST_CONNECTIONS)
                stream.close()
                continue
            name = str(Address(*peer[:2]))
            thread = threading.Thread(target=self._serve, args=(number, stream, name), daemon=True)
            self._open[number] = stream, thread
            thread.start()

    def _shutdown(self) -> None:
        """Hang up; the threads then end their workers."""
        talks = list(self._open.values())
        for stream, _ in talks:
            with contextlib.suppress(OSError):  # closed meanwhile
                stream.shutdown(socket.SHUT_RDWR)
        for _, thread in talks:
            thread.join()

    def _serve(self, number: int, stream: socket.socket, name: str) -> None:
        try:
            with stream:
                self._talk(number, stream, name)
        except OSError as error:
            LOG.warning("%s is gone: %s", name, error)
        finally:
            del self._open[number]

    def _talk(self, number: int, stream: socket.socket, name: str) -> None:
        tune(stream)
        try:
            hello = hear(stream)
            self._check(hello)
        except ProxyError as error:
            LOG.warning("%s is refused: %s", name, error)
            stream.sendall(b"".join(frames.encode_text(frames.FAILURE, 0, str(error).encode())))
            return
        self._work(number, stream, name, hello)

    def _check(self, hello: FrontHello) -> None:
        try:
            self._access.check(b"Bearer " + hello.token)
        except Unauthorized:
            raise StartError("wrong token: front and node need the same --token-file") from None
        if hello.fingerprint != self._source.fingerprint():
            raise ModelError(
                f"{self._source.path.name} or its weights differ between front and node"
            )

    def _work(self, number: int, stream: socket.socket, name: str, hello: FrontHello) -> None:
        config = self._config.model_copy(update={"max_batch_size": hello.max_batch_size})
        told = arguments(str(self._source.path), self._settings, config, number)
        told["fingerprint"] = hello.fingerprint.hex()  # the file may change until it is loaded
        lifeline, theirs = socket.socketpair()
        with lifeline:
            with theirs:
                process = spawn_for(told, stream, theirs)
            LOG.info("worker %d (process %d) is for %s", number, process.pid, name)
            _wait(stream, lifeline)
        stream.close()
        LOG.info("worker %d of %s %s", number, name, meaning(reap(process)))


def hear(stream: socket.socket) -> FrontHello:
    """Greet a front and take its hello.

    Raises:
        StartError: it is not one of ours.
        OSError: it is gone, or too slow.
    """
    deadline = time.monotonic() + HELLO_TIMEOUT_S
    stream.settimeout(HELLO_TIMEOUT_S)
    stream.sendall(GREETING.pack(MAGIC, VERSION))
    head = _receive(stream, HELLO.size, deadline)
    magic, version, rows, fingerprint, size = HELLO.unpack(head)
    check_version(magic, version)
    if size > TOKEN_BYTES:
        raise StartError(f"a token has at most {TOKEN_BYTES} bytes")
    token = _receive(stream, size, deadline)
    stream.settimeout(None)
    return FrontHello(rows, fingerprint, token)


def _receive(stream: socket.socket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no hello in time")
        stream.settimeout(left_s)
        piece = stream.recv(size - len(data))
        if not piece:
            raise ConnectionResetError("closed before its hello")
        data += piece
    return data


def _wait(stream: socket.socket, lifeline: socket.socket) -> None:
    """Until the front hangs up, or the worker, at the other end of the lifeline, ends."""
    ends = select.poll()
    ends.register(stream, HUNG_UP)
    ends.register(lifeline, select.POLLIN)
    ends.poll()
