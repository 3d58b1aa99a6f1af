"""The link to a worker on another machine.

Front and node prove to each other that they know a secret (`handshake.py`), over TLS where that is
wanted. From there on it is frames, as over the Unix socket of a worker of our own; but what comes is
held against the signature, since the machine is another one.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from dlbench.proxy.cache.cache_value import fits
from dlbench.proxy.errors import BrokenFrame, ProxyError, StartError
from dlbench.proxy.http.access import read_tokens
from dlbench.proxy.http.tls import node_context
from dlbench.proxy.tensors import signature_from
from dlbench.proxy.workers.handshake import (
    ANSWER,
    FRONT,
    GREETING_BYTES,
    KIND,
    NO_SECRET,
    NODE,
    WRONG_SECRET,
    FrontHello,
    check_kind,
    known,
    prove,
)
from dlbench.proxy.workers.link import WorkerLink

if TYPE_CHECKING:
    import ssl

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.settings import ServerSettings
    from dlbench.proxy.tensors import Signature
    from dlbench.proxy.workers.frames import Result

LOG = logging.getLogger(__name__)

# For a node to be reached and to prove itself; loading the model comes after it, and may take longer.
PROOF_TIMEOUT_S = 5.0
# Nobody has that much to say before the first frame, a worker's hello included.
MOST_BYTES = 1 << 20
# What signatures may differ in and still be the same model's.
BESIDE: dict[str, Any] = {"notes": (), "max_rows": 0, "max_bytes": 0}
# A machine that vanishes says nothing: after two silent seconds its kernel is asked every two, and
# what stays unanswered for eight has lost the connection.
TCP_OPTIONS = {
    "TCP_NODELAY": 1,
    "TCP_KEEPIDLE": 2,
    "TCP_KEEPINTVL": 2,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 8000,
}


class NodeAddress(NamedTuple):
    """Where a node listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """HOST:PORT, an IPv6 address in brackets.

        Raises:
            StartError: it is no such thing.
        """
        host, _, port = text.rpartition(":")
        if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise StartError(f"{text!r} is not the address of a node; use HOST:PORT")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Introduction(NamedTuple):
    """What a front has for its nodes: what it serves, the secret, and TLS if that is wanted."""

    hello: FrontHello
    secret: bytes = NO_SECRET
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, settings: ServerSettings, config: ServingConfig, fingerprint: bytes) -> Self:
        """For this front's nodes, which know its first secret.

        Raises:
            StartError: the file holds none, or the authorities cannot be read.
        """
        path = settings.node_token_file
        secret = read_tokens(path, "--node-token-file")[0] if path else NO_SECRET
        hello = FrontHello(config.max_batch_size, fingerprint)
        return cls(hello, secret, node_context(settings.node_tls_ca))


def tune(stream: socket.socket) -> None:
    """Send frames at once, and notice a peer that vanished."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in TCP_OPTIONS.items():
        if hasattr(socket, name):  # Linux has them all
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class FirstLine(asyncio.Protocol):
    """What a node says before the first frame, read so much at a time."""

    def __init__(self) -> None:
        self.heard = b""
        self._came = asyncio.Event()
        self._transport: Any = None
        self._end: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self._came.set()
        if len(self.heard) > MOST_BYTES:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        text = "it closed the connection at once: not a node, or one that is full or requires TLS"
        self._end = exc or ConnectionResetError(text)
        self._came.set()

    async def read(self, size: int) -> bytes:
        """The next `size` bytes.

        Raises:
            OSError: the connection ended before.
        """
        while len(self.heard) < size:
            self._came.clear()
            if self._end is not None:
                raise self._end
            await self._came.wait()
        found, self.heard = self.heard[:size], self.heard[size:]
        return found


class RemoteLink(WorkerLink):
    """A worker that a node runs for us, over TCP."""

    def __init__(
        self, address: NodeAddress, introduction: Introduction, signature: Signature
    ) -> None:
        """`signature` is that of our own workers: the node's must be equal."""
        super().__init__()
        self._address, self._introduction, self._signature = address, introduction, signature

    async def startup(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(PROOF_TIMEOUT_S):
                await self._open()
            hello = await self.hello
            self._compare(signature_from(hello["signature"]))
        except TimeoutError:
            raise StartError(f"{self._address}: no answer in {PROOF_TIMEOUT_S:g} s") from None
        except (OSError, ProxyError) as error:
            raise StartError(f"{self._address}: {error}") from None
        LOG.info("a worker of %s is connected, on %s", self._address, hello["device"])
        return hello

    async def ended(self, exc: Exception | None) -> str:
        """At once: the process belongs to the node."""
        return f"the connection to {self._address} ended: {exc or 'closed'}"

    def check(self, signature: Signature, result: Result, rows: int) -> None:
        """Raises BrokenFrame for what the model cannot have given."""
        if not fits(signature, result.tensors, rows):
            shapes = " ".join(str(list(tensor.shape)) for tensor in result.tensors)
            raise BrokenFrame(f"outputs of shape {shapes} for {rows} rows")

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        tls = self._introduction.tls
        transport, line = await loop.create_connection(FirstLine, *self._address, ssl=tls)
        try:
            await self._introduce(transport, line)
        except BaseException:
            transport.abort()
            raise
        tune(transport.get_extra_info("socket"))
        transport.set_protocol(self)
        self.connection_made(transport)
        self.feed(line.heard)

    async def _introduce(self, transport: asyncio.Transport, line: FirstLine) -> None:
        """Prove that we know the secret, and hear the node prove it.

        Raises:
            StartError: it is no node, of another version, or does not know the secret.
            OSError: the connection ended.
        """
        kind = await line.read(KIND.size)
        check_kind(kind)
        hello, secret, _ = self._introduction
        said = kind + await line.read(GREETING_BYTES - KIND.size) + hello.encode()
        proof = prove(secret, FRONT, said)
        transport.write(said[GREETING_BYTES:] + proof)
        right, answer = ANSWER.unpack(await line.read(ANSWER.size))
        if not right or known([secret], NODE, said + proof, answer) is None:
            raise StartError(WRONG_SECRET)

    def _compare(self, found: Signature) -> None:
        if replace(self._signature, **BESIDE) != replace(found, **BESIDE):
            raise StartError(
                "it reads the model differently; use the same --batch-axis, --shape and "
                "--rows-independent"
            )
