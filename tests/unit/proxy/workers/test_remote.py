"""What front and node say before the first frame, over sockets and without a worker."""

import asyncio
import socket
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import StartError
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.workers import node as nodes
from dlbench.proxy.workers.handshake import (
    ANSWER,
    FRONT,
    GREETING_BYTES,
    HELLO_BYTES,
    KIND,
    MAGIC,
    NODE,
    VERSION,
    FrontHello,
    greeting,
    known,
    prove,
)
from dlbench.proxy.workers.node import hear
from dlbench.proxy.workers.remote import TCP_OPTIONS, Introduction, NodeAddress, RemoteLink, tune

HELLO = FrontHello(8, bytes(range(64)))
SECRET = b"secret"


class Front:
    """A front's end of a socket to a node's, and what the node makes of it in a thread."""

    def __init__(self):
        self.stream, self._node = socket.socketpair()
        self.stream.settimeout(20)
        self._thread = threading.Thread(target=self._hear)
        self.heard = None

    def __enter__(self):
        self._thread.start()
        self.greeting = self.read(GREETING_BYTES)
        return self

    def __exit__(self, *_):
        self.stream.close()
        self._thread.join()
        self._node.close()

    def _hear(self):
        try:
            self.heard = hear(self._node, [b"other", SECRET])
            assert self._node.gettimeout() is None  # the worker's reads are blocking ones
        except (StartError, OSError) as error:
            self.heard = error
            self._node.shutdown(socket.SHUT_RDWR)

    def read(self, size):
        return self.stream.recv(size, socket.MSG_WAITALL)

    def outcome(self):
        self._thread.join()
        return self.heard


def test_a_front_that_proves_itself_is_heard_and_the_node_proves_itself_too():
    with Front() as front:
        said = front.greeting + HELLO.encode()
        proof = prove(SECRET, FRONT, said)
        for byte in said[GREETING_BYTES:] + proof:  # in however many pieces
            front.stream.sendall(bytes([byte]))
        right, answer = ANSWER.unpack(front.read(ANSWER.size))
        assert right
        assert known([SECRET], NODE, said + proof, answer)
        assert front.outcome() == HELLO


def overheard():
    """What went over the wire when somebody else was let in."""
    with Front() as front:
        said = front.greeting + HELLO.encode()
        sent = said[GREETING_BYTES:] + prove(SECRET, FRONT, said)
        front.stream.sendall(sent)
        front.read(ANSWER.size)
    return sent


@pytest.mark.parametrize("wrong", ["nothing known", "replay", "the greeting's proof"])
def test_a_front_that_does_not_know_the_secret_learns_nothing(wrong):
    replayed = overheard()
    with Front() as front:
        said = front.greeting + HELLO.encode()
        sent = {
            "nothing known": said[GREETING_BYTES:] + prove(b"", FRONT, said),
            "replay": replayed,
            "the greeting's proof": said[GREETING_BYTES:] + prove(SECRET, NODE, said),
        }[wrong]
        front.stream.sendall(sent)
        assert front.read(ANSWER.size) == bytes(ANSWER.size)
        assert front.read(1) == b""
        assert "wrong secret" in str(front.outcome())


@given(st.integers(0, HELLO_BYTES - 1))
def test_half_a_hello_is_none(size):
    with Front() as front:
        said = front.greeting + HELLO.encode()
        sent = said[GREETING_BYTES:] + prove(SECRET, FRONT, said)
        front.stream.sendall(sent[:size])
        front.stream.shutdown(socket.SHUT_WR)
        assert "closed before it proved anything" in str(front.outcome())


@given(st.binary(min_size=KIND.size, max_size=300).filter(lambda data: not data.startswith(MAGIC)))
def test_garbage_is_refused_before_anything_else(data):
    with Front() as front:
        front.stream.sendall(data)
        assert "does not speak the protocol of dlbench workers" in str(front.outcome())


def test_a_front_that_drips_its_hello_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(nodes, "PROOF_TIMEOUT_S", 0.1)
    front, node = socket.socketpair()
    over = threading.Event()

    def drip():
        for byte in HELLO.encode():
            if over.wait(0.02):
                return
            front.sendall(bytes([byte]))

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        with pytest.raises(TimeoutError):  # its 140 bytes take 2.8 s at this rate
            hear(node, [SECRET])
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
    assert str(NodeAddress.parse(text)) == text


@pytest.mark.parametrize("text", ["", "host", ":9000", "host:", "host:x", "host:65536", "host:-1"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(StartError, match="use HOST:PORT"):
        NodeAddress.parse(text)


def test_the_secret_of_a_front_is_the_first_in_its_file(tmp_path):
    path = tmp_path / "secrets"
    path.write_text("# ours\n\nfirst\nsecond\n")
    config = ServingConfig(max_batch_size=16)
    settings = ServerSettings(node_token_file=str(path), token_file="elsewhere")
    hello = FrontHello(16, b"f")
    assert Introduction.of(settings, config, b"f") == Introduction(hello, b"first")
    assert Introduction.of(ServerSettings(), config, b"f") == Introduction(hello, b"")


class Stranger:
    """Something that listens and says one thing; `asked` is what it was told before it ended."""

    def __init__(self, said):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = NodeAddress(*self._listener.getsockname())
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
        with stream, suppress(ConnectionError):  # whoever gives up on it may do so at any byte
            for said in self._said:
                stream.sendall(said)
                if not said:
                    return
                if said is not self._said[-1]:
                    self.asked += stream.recv(HELLO_BYTES, socket.MSG_WAITALL)
            while data := stream.recv(1000):
                self.asked += data


def refusal(said):
    """Why a front does not take who says this for a node, and what it told them."""

    async def scenario(address):
        link = RemoteLink(address, Introduction(HELLO, SECRET), None)
        with pytest.raises(StartError, match=f"^{address}: ") as error:
            await link.startup()
        await link.shutdown()
        return str(error.value)

    with Stranger(said) as stranger:
        why = asyncio.run(scenario(stranger.address))
    return why, stranger.asked


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak the protocol of dlbench workers"),
        (KIND.pack(MAGIC, VERSION + 1), f"protocol versions differ ({VERSION + 1} and"),
        (b"", "not a node, or one that is full or requires TLS"),
        (bytes(2 << 20), "does not speak the protocol of dlbench workers"),
    ],
)
def test_a_stranger_is_named_and_told_nothing(said, why):
    found, asked = refusal([said])
    assert why in found
    assert asked == b""


@pytest.mark.parametrize(
    "answer", [ANSWER.pack(True, bytes(32)), ANSWER.pack(False, bytes(32)), bytes(2 << 20)]
)
def test_a_listener_that_does_not_know_the_secret_gets_no_frame_and_no_secret(answer):
    found, asked = refusal([greeting(), answer])
    assert "wrong secret" in found
    assert len(asked) == HELLO_BYTES
    assert SECRET not in asked


def test_a_listener_that_sends_our_own_proof_back_is_none():
    """It even repeats our nonce in its greeting: the roles differ."""
    listener = socket.create_server(("127.0.0.1", 0))

    def reflect():
        stream, _ = listener.accept()
        with stream:
            stream.sendall(greeting())
            heard = stream.recv(HELLO_BYTES, socket.MSG_WAITALL)
            stream.sendall(ANSWER.pack(True, heard[-32:]))
            stream.recv(1)

    async def scenario(address):
        link = RemoteLink(address, Introduction(HELLO, SECRET), None)
        with pytest.raises(StartError, match="wrong secret"):
            await link.startup()
        await link.shutdown()

    thread = threading.Thread(target=reflect)
    thread.start()
    try:
        asyncio.run(scenario(NodeAddress(*listener.getsockname())))
    finally:
        thread.join()
        listener.close()
