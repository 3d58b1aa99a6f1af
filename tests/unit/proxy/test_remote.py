"""What front and node say before the first frame, over sockets and without a worker."""

import asyncio
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy import node as nodes
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import StartError
from dlbench.proxy.node import hear
from dlbench.proxy.remote import (
    GREETING,
    HELLO,
    MAGIC,
    TCP_OPTIONS,
    TOKEN_BYTES,
    VERSION,
    Address,
    FrontHello,
    RemoteLink,
    tune,
)
from dlbench.proxy.settings import ServerSettings

HELLOS = st.builds(
    FrontHello,
    st.integers(1, 4096),
    st.binary(min_size=64, max_size=64),
    st.binary(max_size=TOKEN_BYTES),
)


def heard(*pieces, end=True):
    """What a node makes of bytes from a front."""
    front, node = socket.socketpair()
    with front, node:
        for piece in pieces:
            front.sendall(piece)
        if end:
            front.shutdown(socket.SHUT_WR)
        found = hear(node)
        assert front.recv(100) == GREETING.pack(MAGIC, VERSION)
        assert node.gettimeout() is None  # the worker's reads are blocking ones
        return found


@given(HELLOS, st.integers(0, 2000))
def test_a_hello_arrives_as_it_was_in_however_many_pieces(hello, cut):
    data = hello.encode()
    assert heard(data[:cut], data[cut:], end=False) == hello


@given(HELLOS, st.data())
def test_half_a_hello_is_none(hello, data):
    whole = hello.encode()
    with pytest.raises(ConnectionResetError, match="closed before its hello"):
        heard(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=300).filter(lambda data: not data.startswith(MAGIC)))
def test_garbage_is_refused_before_anything_else(data):
    with pytest.raises((StartError, ConnectionResetError)):
        heard(data)


def test_another_version_and_an_endless_token_are_refused():
    with pytest.raises(StartError, match=f"one side speaks version 9 and the other {VERSION}"):
        heard(HELLO.pack(MAGIC, 9, 1, bytes(64), 0))
    with pytest.raises(StartError, match="at most 1024 bytes"):
        heard(HELLO.pack(MAGIC, VERSION, 1, bytes(64), TOKEN_BYTES + 1))


def test_a_front_that_drips_its_hello_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(nodes, "HELLO_TIMEOUT_S", 0.1)
    front, node = socket.socketpair()
    over = threading.Event()

    def drip():
        while not over.wait(0.02):
            front.sendall(b"d")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        with pytest.raises(TimeoutError):  # the 78 bytes of a hello take 1.6 s at this rate
            hear(node)
    finally:
        over.set()
        dripping.join()
        front.close()
        node.close()


def test_both_ends_notice_when_the_other_machine_vanishes():
    with socket.socket() as stream:
        tune(stream)
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name, value in TCP_OPTIONS.items():
            assert stream.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value, name


@pytest.mark.parametrize("text", ["10.0.0.2:9000", "node-1:0", "[::1]:65535"])
def test_an_address_is_read_and_written(text):
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["", "host", ":9000", "host:", "host:x", "host:65536", "host:-1"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(StartError, match="write HOST:PORT"):
        Address.parse(text)


def test_the_token_of_a_front_is_the_first_in_its_file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("# ours\n\nfirst\nsecond\n")
    config = ServingConfig(max_batch_size=16)
    with_tokens = ServerSettings(token_file=str(path))
    assert FrontHello.of(with_tokens, config, b"f") == FrontHello(16, b"f", b"first")
    assert FrontHello.of(ServerSettings(), config, b"f") == FrontHello(16, b"f", b"")


class Stranger:
    """Something that listens and says one thing; `asked` is what it was told before it ended."""

    def __init__(self, said):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(*self._listener.getsockname())
        self._said, self.asked = said, b""
        self._thread = threading.Thread(target=self._talk)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join()
        self._listener.close()

    def _talk(self):
        stream, _ = self._listener.accept()
        with stream:
            stream.sendall(self._said)
            if not self._said:
                return
            try:
                while data := stream.recv(100):
                    self.asked += data
            except ConnectionResetError:
                pass


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "this is no dlbench worker"),
        (GREETING.pack(MAGIC, 2), "one side speaks version 2"),
        (b"", "no node, or one that is full"),
    ],
)
def test_a_stranger_is_named_and_told_no_token(said, why):
    async def scenario(address):
        link = RemoteLink(address, FrontHello(8, bytes(64), b"secret"), None)
        with pytest.raises(StartError, match=f"^{address}: .*{why}"):
            await link.startup()
        await link.shutdown()

    with Stranger(said) as stranger:
        asyncio.run(scenario(stranger.address))
    assert stranger.asked == b""
