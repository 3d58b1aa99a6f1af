"""The link to a worker on another machine, and what the two say before the first frame.

The node greets first, so that no token goes to a stranger, then the front says what it wants. From
there on it is frames, as over the Unix socket of a worker of our own. Nothing is encrypted: this is
for a network that is trusted, or for a tunnel.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from dlbench.proxy.access import read_tokens
from dlbench.proxy.errors import ProxyError, StartError
from dlbench.proxy.link import WorkerLink
from dlbench.proxy.tensors import signature_from

if TYPE_CHECKING:
    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.settings import ServerSettings
    from dlbench.proxy.tensors import Signature

LOG = logging.getLogger(__name__)

MAGIC = b"dlworker"
# 1: greeting, hello, frames.
VERSION = 1
GREETING = struct.Struct("<8sH")
# Magic, version, most rows in a batch, the model's fingerprint, bytes of the token that follows.
HELLO = struct.Struct("<8sHH64sH")
TOKEN_BYTES = 1024
# For each side to say its part; loading the model comes after it, and may take longer.
HELLO_TIMEOUT_S = 5.0
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


class Address(NamedTuple):
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
            raise StartError(f"{text!r} is no address of a node: write HOST:PORT")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class FrontHello(NamedTuple):
    """What a front tells a node."""

    max_batch_size: int
    fingerprint: bytes
    token: bytes

    @classmethod
    def of(cls, settings: ServerSettings, config: ServingConfig, fingerprint: bytes) -> Self:
        """For this front's nodes, which know its first token.

        Raises:
            StartError: the token file holds none.
        """
        token = read_tokens(settings.token_file)[0] if settings.token_file else b""
        return cls(config.max_batch_size, fingerprint, token)

    def encode(self) -> bytes:
        """As it goes over the wire."""
        rows, fingerprint, token = self
        return HELLO.pack(MAGIC, VERSION, rows, fingerprint, len(token)) + token


def check_version(magic: bytes, version: int) -> None:
    """Let a peer of our kind pass.

    Raises:
        StartError: it is something else, or of another time.
    """
    if magic != MAGIC:
        raise StartError("this is no dlbench worker talking to a front")
    if version != VERSION:
        raise StartError(
            f"one side speaks version {version} and the other {VERSION}: update dlbench"
        )


def tune(stream: socket.socket) -> None:
    """Send frames at once, and notice a peer that vanished."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in TCP_OPTIONS.items():
        if hasattr(socket, name):  # Linux has them all
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Greeting(asyncio.Protocol):
    """Waits for what a node says first; `heard` becomes its bytes."""

    def __init__(self) -> None:
        self.heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._bytes = b""

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        if len(self._bytes) >= GREETING.size and not self.heard.done():
            self.heard.set_result(self._bytes[: GREETING.size])

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.heard.done():
            text = "it closed the connection at once: no node, or one that is full"
            self.heard.set_exception(exc or ConnectionResetError(text))


class RemoteLink(WorkerLink):
    """A worker that a node runs for us, over TCP."""

    def __init__(self, address: Address, hello: FrontHello, signature: Signature) -> None:
        """`signature` is that of our own workers: the node's has to be the same."""
        super().__init__()
        self._address, self._front_hello, self._signature = address, hello, signature

    async def startup(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                await self._open()
            hello = await self.hello
            self._compare(signature_from(hello["signature"]))
        except TimeoutError:
            raise StartError(f"{self._address}: no answer in {HELLO_TIMEOUT_S:g} s") from None
        except (OSError, ProxyError) as error:
            raise StartError(f"{self._address}: {error}") from None
        LOG.info("a worker of %s is connected, on %s", self._address, hello["device"])
        return hello

    async def ended(self, exc: Exception | None) -> str:
        """At once: the process belongs to the node."""
        return f"the connection to {self._address} ended: {exc or 'closed'}"

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        transport, greeting = await loop.create_connection(Greeting, *self._address)
        try:
            check_version(*GREETING.unpack(await greeting.heard))
        except BaseException:
            transport.abort()
            raise
        tune(transport.get_extra_info("socket"))
        transport.set_protocol(self)
        self.connection_made(transport)
        transport.write(self._front_hello.encode())

    def _compare(self, found: Signature) -> None:
        if replace(self._signature, **BESIDE) != replace(found, **BESIDE):
            raise StartError("it understands the model otherwise: same --batch-axis and --shape?")
