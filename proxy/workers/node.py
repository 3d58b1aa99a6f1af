"""A node: a machine that lends workers to fronts elsewhere, one process for each connection.

A front that connects, and proves that it may, gets a worker whose socket is that connection: without
TLS the node itself sees no frame. A thread each hears the proof and then waits until the front or
the worker is gone. Who has proved nothing yet has little time and a place that the next one takes.
"""

from __future__ import annotations

import contextlib
import logging
import select
import signal
import socket
import ssl
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from dlbench.proxy.errors import ModelError, ProxyError, StartError
from dlbench.proxy.http.access import read_tokens, refuse_public
from dlbench.proxy.http.tls import tls_context
from dlbench.proxy.workers import frames
from dlbench.proxy.workers.handshake import (
    ANSWER,
    FRONT,
    HELLO,
    HELLO_BYTES,
    KIND,
    NO_SECRET,
    NODE,
    PROOF_BYTES,
    WRONG_SECRET,
    FrontHello,
    check_kind,
    greeting,
    known,
    prove,
)
from dlbench.proxy.workers.link import meaning, reap, spawn_for
from dlbench.proxy.workers.relay import HUNG_UP, relay
from dlbench.proxy.workers.remote import NodeAddress, tune
from dlbench.proxy.workers.start import arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.models.model import ModelFile
    from dlbench.proxy.settings import ServerSettings

LOG = logging.getLogger(__name__)

# Workers lent, a process with the model in its memory each: more than any front should ask for.
MOST_WORKERS = 64
# Connections that have proved nothing: the next one takes the place of the oldest of them.
MOST_STRANGERS = 64
# For a front to prove itself, the TLS handshake included: it takes two ways there and back.
PROOF_TIMEOUT_S = 2.0
# When no connection can be taken (too many open files), it is tried again after this.
ACCEPT_PAUSE_S = 0.1


class Node:
    """Serves one model to fronts, until it is interrupted."""

    def __init__(self, source: ModelFile, settings: ServerSettings, config: ServingConfig) -> None:
        """Raises StartError if the secrets or the certificate cannot be read."""
        self._source, self._settings, self._config = source, settings, config
        path = settings.node_token_file
        self._secrets = read_tokens(path, "--node-token-file") if path else [NO_SECRET]
        self._tls = tls_context(settings.tls_cert, settings.tls_key, "")
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._strangers: dict[socket.socket, None] = {}  # the oldest first
        self._lent: dict[int, socket.socket] = {}  # by number: a worker's decides on its device

    def run(self, address: NodeAddress, announce: Callable[[NodeAddress], None]) -> None:
        """Listen until SIGINT or SIGTERM; no worker is left then.

        Raises:
            StartError: nobody can listen there, or anybody could come.
        """
        host, settings = address.host, self._settings
        refuse_public(
            host,
            settings.node_token_file,
            insecure=settings.insecure,
            option="--listen",
            token_option="--node-token-file",
        )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server(address, family=family)
        except OSError as error:
            raise StartError(f"--listen {address}: {error.strerror}") from None
        with listener, contextlib.suppress(KeyboardInterrupt):
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            announce(NodeAddress(host, listener.getsockname()[1]))
            self._main_loop(listener)
        self._shutdown()

    def _main_loop(self, listener: socket.socket) -> NoReturn:
        while True:
            try:
                stream, peer = listener.accept()
                line = self._secured(stream)
            except (ConnectionError, ssl.SSLError):  # it was gone before it was taken
                continue
            except OSError as error:
                LOG.warning("a connection could not be accepted: %s", error)
                time.sleep(ACCEPT_PAUSE_S)
                continue
            name = str(NodeAddress(*peer[:2]))
            thread = threading.Thread(target=self._serve, args=(line, name), daemon=True)
            with self._lock:
                self._make_room()
                self._strangers[line] = None
                self._threads.add(thread)
            thread.start()

    def _secured(self, stream: socket.socket) -> socket.socket:
        """The same, or with TLS, whose handshake is for the connection's own thread."""
        if self._tls is None:
            return stream
        return self._tls.wrap_socket(stream, server_side=True, do_handshake_on_connect=False)

    def _make_room(self) -> None:
        """A front proves itself within milliseconds: the oldest stranger is the least likely one."""
        if len(self._strangers) >= MOST_STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            _hang_up(oldest)

    def _shutdown(self) -> None:
        """Hang up; the threads then end their workers."""
        with self._lock:
            threads = list(self._threads)
            for line in [*self._strangers, *self._lent.values()]:
                _hang_up(line)
        for thread in threads:
            thread.join()

    def _serve(self, line: socket.socket, name: str) -> None:
        try:
            with line:
                self._talk(line, name)
        except OSError as error:
            LOG.warning("%s disconnected: %s", name, error)
        finally:
            with self._lock:
                self._strangers.pop(line, None)
                self._threads.discard(threading.current_thread())

    def _talk(self, line: socket.socket, name: str) -> None:
        tune(line)
        try:
            hello = hear(line, self._secrets)
        except ProxyError as error:
            LOG.warning("%s is refused: %s", name, error)
            return
        try:
            with self._place(line) as number:
                self._check(hello)
                self._work(number, line, name, hello)
        except ProxyError as error:
            LOG.warning("%s is refused: %s", name, error)
            line.sendall(b"".join(frames.encode_text(frames.FAILURE, 0, str(error).encode())))

    @contextlib.contextmanager
    def _place(self, line: socket.socket) -> Iterator[int]:
        """The number of a worker for a front that has proved itself: no stranger any more."""
        with self._lock:
            number = next((n for n in range(MOST_WORKERS) if n not in self._lent), None)
            if number is None:
                raise StartError(f"{MOST_WORKERS} workers are in use already")
            self._strangers.pop(line, None)
            self._lent[number] = line
        try:
            yield number
        finally:
            with self._lock:
                del self._lent[number]

    def _check(self, hello: FrontHello) -> None:
        if hello.fingerprint != self._source.fingerprint():
            raise ModelError(
                f"{self._source.path.name} or its weights differ between front and node"
            )

    def _work(self, number: int, line: socket.socket, name: str, hello: FrontHello) -> None:
        config = self._config.model_copy(update={"max_batch_size": hello.max_batch_size})
        told = arguments(str(self._source.path), self._settings, config, number)
        told["fingerprint"] = hello.fingerprint.hex()  # the file may change until it is loaded
        lifeline, theirs = socket.socketpair()
        with lifeline, _worker_side(line) as (stream, carry):
            with theirs:
                process = spawn_for(told, stream, theirs)
            LOG.info("worker %d (process %d) is for %s", number, process.pid, name)
            carry(lifeline)
        line.close()
        LOG.info("worker %d of %s %s", number, name, meaning(reap(process)))


def hear(line: socket.socket, known_secrets: Sequence[bytes]) -> FrontHello:
    """Greet a front, take its hello and its proof, and answer with ours.

    Raises:
        StartError: it is not one of ours, or knows none of the secrets.
        OSError: it is gone, or too slow.
    """
    deadline = time.monotonic() + PROOF_TIMEOUT_S
    line.settimeout(PROOF_TIMEOUT_S)
    if isinstance(line, ssl.SSLSocket):
        line.do_handshake()
    said = greeting()
    line.sendall(said)
    kind = _receive(line, KIND.size, deadline)
    check_kind(kind)
    rest = _receive(line, HELLO_BYTES - KIND.size, deadline)
    hello, proof = (kind + rest)[: HELLO.size], rest[-PROOF_BYTES:]
    secret = known(known_secrets, FRONT, said + hello, proof)
    if secret is None:
        line.sendall(ANSWER.pack(False, bytes(PROOF_BYTES)))
        raise StartError(WRONG_SECRET)
    line.sendall(ANSWER.pack(True, prove(secret, NODE, said + hello + proof)))
    line.settimeout(None)
    return FrontHello.decode(hello)


def _receive(line: socket.socket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no proof in time")
        line.settimeout(left_s)
        piece = line.recv(size - len(data))
        if not piece:
            raise ConnectionResetError("closed before it proved anything")
        data += piece
    return data


def _hang_up(line: socket.socket) -> None:
    """End a connection that another thread may be reading from, under TLS too."""
    with contextlib.suppress(OSError):  # closed meanwhile
        socket.socket.shutdown(line, socket.SHUT_RDWR)


@contextlib.contextmanager
def _worker_side(
    line: socket.socket,
) -> Iterator[tuple[socket.socket, Callable[[socket.socket], None]]]:
    """The socket for a worker, and what waits until front or worker has ended."""
    if not isinstance(line, ssl.SSLSocket):
        yield line, partial(_wait, line)
        return
    near, far = socket.socketpair()

    def carry(_: socket.socket) -> None:
        far.close()  # the worker has it, whose end then shows here
        with contextlib.suppress(OSError):
            relay(line, near)

    with near, far:
        yield far, carry


def _wait(line: socket.socket, lifeline: socket.socket) -> None:
    """Until the front hangs up, or the worker, at the other end of the lifeline, ends."""
    ends = select.poll()
    ends.register(line, HUNG_UP)
    ends.register(lifeline, select.POLLIN)
    ends.poll()
