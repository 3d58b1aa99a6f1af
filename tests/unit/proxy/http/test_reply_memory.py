"""What a connection's replies hold of the memory is given back, however the connection ends."""

import asyncio
import socket

import pytest

from dlbench.proxy.http.connection import HttpProtocol, Limits
from dlbench.proxy.http.memory import Memory
from dlbench.proxy.http.reply import JSON_TYPE, Stream

MIB = 1 << 20
LIMITS = Limits(4096, 8 * MIB, 60.0, 60.0, 60.0, 10)
TENSOR = b"content-type: application/octet-stream\r\n"
PATIENCE_S = 60


class Held:
    """A connection whose requests are answered by hand."""

    async def __aenter__(self):
        self.memory, self.responds = Memory(64 * MIB), []
        self.client, theirs = socket.socketpair()
        self.client.setblocking(False)
        loop = asyncio.get_running_loop()
        _, self.protocol = await loop.connect_accepted_socket(self._connect, theirs)
        return self

    async def __aexit__(self, *_):
        self.client.close()

    def _connect(self):
        return HttpProtocol(
            lambda _, respond: self.responds.append(respond), LIMITS, set(), memory=self.memory
        )

    async def ask(self, *lines, version="1.1", count=1):
        """The functions that answer so many requests."""
        head = "".join(f"{line}\r\n" for line in ("Host: h", *lines))
        request = f"GET /a HTTP/{version}\r\n{head}\r\n".encode()
        await asyncio.get_running_loop().sock_sendall(self.client, count * request)
        await self.until(lambda: len(self.responds) == count)
        return self.responds

    async def until(self, true):
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                await asyncio.sleep(0)


@pytest.fixture
def run():
    def start(story):
        async def told():
            async with Held() as held:
                await story(held)

        asyncio.run(told())

    return start


def test_a_client_that_goes_while_its_reply_is_packed(run):
    async def story(held):
        (respond,) = await held.ask("Accept-Encoding: gzip")
        respond(200, JSON_TYPE, [bytes(4 * MIB)])
        assert held.memory.held == 4 * MIB
        held.client.close()
        await held.until(lambda: not held.memory.held)

    run(story)


def test_replies_after_one_that_ends_the_connection(run):
    """A stream without chunks ends with the connection: what is ready behind it is never sent."""

    async def story(held):
        first, second, third = await held.ask("Connection: keep-alive", version="1.0", count=3)
        second(200, TENSOR, [bytes(MIB)])
        first(200, TENSOR, Stream(lambda: iter([b"a"]), 2 * MIB))
        await held.until(lambda: held.protocol.gone)
        third(200, TENSOR, [bytes(MIB)])
        await held.until(lambda: not held.memory.held)

    run(story)


def test_work_behind_a_reply_that_ends_the_connection_is_given_up(run):
    async def story(held):
        given_up = []
        first, second = await held.ask("Connection: keep-alive", version="1.0", count=2)
        second.__self__.waits(lambda: given_up.append("second"))
        first(200, TENSOR, Stream(lambda: iter([b"a"]), 0))
        await held.until(lambda: held.protocol.gone)
        assert given_up == ["second"]

    run(story)
