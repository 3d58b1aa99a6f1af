"""HTTP, TLS and gRPC connections under the loops, against real servers and misbehaving ones."""

import selectors
import socket
import ssl
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from time import monotonic, monotonic_ns

import grpc
import psutil
import pytest

from dlbench.loadgen.credentials import tls_context
from dlbench.loadgen.engine.closed_loop import ClosedLoop
from dlbench.loadgen.engine.recorder import Recorder
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover
from dlbench.loadgen.transport import http2
from dlbench.loadgen.transport.grpc_connection import Grpc
from dlbench.loadgen.transport.http2 import Flag, Kind, frame, header_block
from dlbench.loadgen.transport.keepalive import READ, Http
from dlbench.loadgen.transport.tls import Tls
from testbed.servers import measure_some

Address = namedtuple("Address", "family sockaddr")
Share = namedtuple("Share", "index of")
PATIENCE_S = 60
METHOD = "/test.Service/Echo"


# --- an event loop of the shape of gevent's, so that the tests need no gevent --------------------


class Watcher:
    def __init__(self, loop, fd, events):
        self._loop, self._key = loop, (fd, events)

    def start(self, callback):
        self._loop.watch(self._key, callback)

    def stop(self):
        self._loop.watch(self._key, None)

    close = stop


class PollLoop:
    """Runs the callbacks of readable and writable descriptors until told that it is enough."""

    def __init__(self):
        self._selector = selectors.DefaultSelector()
        self._callbacks = {}

    def io(self, fd, events):
        return Watcher(self, fd, events)

    def watch(self, key, callback):
        self._callbacks.pop(key, None)
        if callback is not None:
            self._callbacks[key] = callback
        fd, events = key[0], sum(event for fd, event in self._callbacks if fd == key[0])
        with suppress(KeyError):
            self._selector.unregister(fd)
        if events:
            self._selector.register(fd, events)

    def run(self, is_over):
        deadline = monotonic() + PATIENCE_S
        while not is_over():
            assert monotonic() < deadline
            for key, events in self._selector.select(0.05):
                for event in (1, 2):
                    callback = self._callbacks.get((key.fd, event))
                    if callback is not None and events & event:
                        callback()

    def close(self):
        self._selector.close()


class Given:
    """The same request again and again; `judge` keeps what came back."""

    def __init__(self, request):
        self._request = request
        self.bodies = []

    def at(self, _number):
        return self._request

    def judge(self, body, _number):
        self.bodies.append(body)
        return ""


@pytest.fixture
def load():
    """A function: as many requests as wanted by some users; the kinds of their ends, and bodies."""

    def run(connect, request, count=6, users=2, timeout_s=PATIENCE_S):
        recorder, given = Recorder(), Given(request)
        with closing(PollLoop()) as poll:
            loop = ClosedLoop(
                *(poll, connect, recorder, given, given.judge, 100, Share(0, 1)), users=users
            )
            loop.start()

            def is_over():
                loop.sweep(monotonic_ns(), int(timeout_s * 1e9))
                return loop.ended >= count

            poll.run(is_over)
            loop.close()
        kinds = {recorder.outcomes.names[code] for code in recorder.outcome}
        return namedtuple("Load", "kinds bodies examples recorder")(
            kinds, given.bodies, recorder.outcomes.examples, recorder
        )

    before = open_sockets()
    yield run
    assert open_sockets() <= before


def open_sockets():
    """Connections that this process began: a client's ports are not those of a listener."""
    found = psutil.Process().net_connections("tcp")
    listening = {one.laddr for one in found if one.status == "LISTEN"}
    return sum(one.laddr not in listening and one.status == "ESTABLISHED" for one in found)


def address(port):
    return Address(socket.AF_INET, ("127.0.0.1", port))


# --- servers ---------------------------------------------------------------------------------------


@contextmanager
def serving(script, context=None):
    """A port; `script(connection)` runs in a thread for each connection, which then ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:

        def accept():
            with ThreadPoolExecutor(16) as pool, suppress(OSError):
                while True:
                    pool.submit(serve, listener.accept()[0])

        def serve(connection):
            with connection, suppress(OSError):
                connection.settimeout(PATIENCE_S)
                if context is None:
                    script(connection)
                else:
                    with context.wrap_socket(connection, server_side=True) as secure:
                        script(secure)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def http_echo(connection):
    """Answers every request with its body."""
    with connection.makefile("rb") as lines:
        while lines.readline():
            length = 0
            while (line := lines.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                length = int(value) if name == b"Content-Length" else length
            body = lines.read(length)
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
            connection.sendall(head + body)


def http_request(body):
    return b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.fixture(scope="module")
def server_context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "localhost.pem", certificate / "localhost.key")
    return context


@pytest.fixture
def trusting(certificate):
    return tls_context(LoadProfile(tls_ca=str(certificate / "localhost.pem")))


# --- HTTPS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 16_384, 3_000_000])
def test_https_carries_bodies_of_any_size(load, server_context, trusting, size):
    body = b"x" * size
    with serving(http_echo, server_context) as port:
        got = load(Http(address(port), Tls(trusting, "localhost")), http_request(body))
    assert got.kinds == {"ok"}
    assert set(got.bodies) == {body}


def test_the_handshake_is_a_part_of_connecting(load, server_context, trusting):
    with serving(http_echo, server_context) as port:
        got = load(Http(address(port), Tls(trusting, "localhost")), http_request(b"x"), users=1)
    first, *others = got.recorder.connect_ns
    assert 0 < first < got.recorder.done[0] - got.recorder.sent[0]
    assert set(others) == {0}


def test_a_certificate_that_nobody_vouches_for(load, server_context):
    with serving(http_echo, server_context) as port:
        got = load(
            Http(address(port), Tls(tls_context(LoadProfile()), "localhost")), http_request(b"x")
        )
        assert got.kinds == {"tls"}
        assert "self-signed" in got.examples["tls"]
        insecure = tls_context(LoadProfile(tls_insecure=True))
        got = load(Http(address(port), Tls(insecure, "localhost")), http_request(b"x"))
        assert got.kinds == {"ok"}


def test_a_certificate_of_another_host(load, server_context, trusting):
    with serving(http_echo, server_context) as port:
        got = load(Http(address(port), Tls(trusting, "example.org")), http_request(b"x"))
    assert got.kinds == {"tls"}
    assert "example.org" in got.examples["tls"]


NO_TLS = {
    "plain HTTP": lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "hangs up": lambda connection: connection.recv(1),
}


@pytest.mark.parametrize("script", NO_TLS.values(), ids=NO_TLS)
def test_a_server_that_speaks_no_tls(load, trusting, script):
    with serving(script) as port:
        got = load(Http(address(port), Tls(trusting, "localhost")), http_request(b"x"))
    assert got.kinds == {"tls"}
    assert got.examples["tls"]


def test_a_handshake_that_does_not_end_is_a_timeout(load, trusting):
    with serving(lambda connection: connection.makefile("rb").read()) as port:
        wires = Tls(trusting, "localhost")
        got = load(Http(address(port), wires), http_request(b"x"), timeout_s=0.1)
    assert got.kinds == {"timeout"}


def test_a_tls_server_that_ends_within_a_reply(load, server_context, trusting):
    def script(connection):
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    with serving(script, server_context) as port:
        got = load(Http(address(port), Tls(trusting, "localhost")), http_request(b"x"))
    assert got.kinds == {"cut_off"}


# --- gRPC: a real server ---------------------------------------------------------------------------


class Echo(grpc.GenericRpcHandler):
    """Sends requests back; one that begins with a digit asks for that status."""

    def service(self, details):
        if details.method != METHOD:
            return None
        metadata = dict(details.invocation_metadata)
        return grpc.unary_unary_rpc_method_handler(partial(self._answer, metadata))

    def _answer(self, metadata, request, context):
        if request == b"token":
            return metadata.get("authorization", "").encode()
        if request[:1].isdigit():
            code = next(c for c in grpc.StatusCode if c.value[0] == int(request))
            context.abort(code, "50 % of it, für sich")
        return request


@contextmanager
def grpc_echo(credentials=None):
    server = grpc.server(
        ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 2**26)]
    )
    server.add_generic_rpc_handlers((Echo(),))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


def calls(port, wires=None, path=METHOD, **options):
    wire = () if wires is None else (wires,)
    return Grpc(address(port), *wire, authority="localhost", path=path, **options)


@pytest.fixture(scope="module")
def echo_port():
    with grpc_echo() as port:
        yield port


@pytest.mark.parametrize("size", [0, 10, 16_379, 65_531, 3_000_000])
def test_grpc_carries_messages_of_any_size(load, echo_port, size):
    message = b"x" * size
    got = load(calls(echo_port), message)
    assert got.kinds == {"ok"}
    assert set(got.bodies) == {message}


def test_many_calls_go_over_one_connection(load, echo_port):
    got = load(calls(echo_port), b"x" * 100_000, count=300, users=1)
    assert got.kinds == {"ok"}
    assert sum(ns > 0 for ns in got.recorder.connect_ns) == 1


def test_other_statuses_are_outcomes_of_their_names(load, echo_port):
    got = load(calls(echo_port), b"14")
    assert got.kinds == {"grpc_unavailable"}
    assert got.examples == {"grpc_unavailable": "50 % of it, für sich"}
    assert load(calls(echo_port, path="/no/such"), b"x").kinds == {"grpc_unimplemented"}


def test_the_token_is_sent_as_metadata(load, echo_port):
    got = load(calls(echo_port, token="secret"), b"token")
    assert set(got.bodies) == {b"Bearer secret"}


def test_grpc_over_tls(load, certificate, trusting):
    pair = (
        (certificate / "localhost.key").read_bytes(),
        (certificate / "localhost.pem").read_bytes(),
    )
    with grpc_echo(grpc.ssl_server_credentials([pair])) as port:
        got = load(calls(port, Tls(trusting, "localhost", "h2"), scheme="https"), b"x" * 200_000)
    assert got.kinds == {"ok"}


def test_a_tls_server_without_http2(load, server_context, trusting):
    with serving(http_echo, server_context) as port:
        got = load(calls(port, Tls(trusting, "localhost", "h2")), b"x")
    assert got.kinds == {"tls"}
    assert "h2" in got.examples["tls"]


# --- gRPC: servers by script, frame by frame ---------------------------------------------------------


class Peer:
    """The server's side of an HTTP/2 connection; attributes of frames come as the client sent them."""

    def __init__(self, connection):
        self._connection = connection
        self._lines = connection.makefile("rb")
        assert self._lines.read(len(http2.PREFACE)) == http2.PREFACE

    def send(self, *frames):
        self._connection.sendall(b"".join(frames))

    def read(self):
        head = self._lines.read(http2.HEAD_SIZE)
        if not head:
            raise ConnectionResetError
        high, low, kind, flags, stream = http2.FRAME_HEAD.unpack(head)
        return http2.Http2Frame(kind, flags, stream, self._lines.read(high << 8 | low))

    def until(self, kind, flag=0):
        while True:
            frame = self.read()
            if frame.kind == kind and frame.flags & flag == flag:
                return frame

    def call(self):
        """The stream of the next call, which has been read to its end."""
        return self.until(Kind.DATA, Flag.END_STREAM).stream


HEADERS = header_block([(b":status", b"200"), (b"content-type", b"application/grpc")])
TRAILERS = header_block([(b"grpc-status", b"0")])
MESSAGE = b"\0\0\0\0\5hello"


def head(stream, block=HEADERS, flags=Flag.END_HEADERS):
    return frame(Kind.HEADERS, flags, stream, block)


def data(stream, message=MESSAGE, flags=0):
    return frame(Kind.DATA, flags, stream, message)


def tail(stream, block=TRAILERS):
    return head(stream, block, Flag.END_HEADERS | Flag.END_STREAM)


def each_call(*makers):
    """A script that answers every call with these frames, each made for the call's stream."""

    def script(connection):
        peer = Peer(connection)
        peer.send(http2.settings({}))
        while True:
            stream = peer.call()
            peer.send(*(make(stream) for make in makers))

    return script


def split_head(stream):
    return head(stream, HEADERS[:4], flags=0) + frame(
        Kind.CONTINUATION, Flag.END_HEADERS, stream, HEADERS[4:]
    )


def padded(stream):
    return frame(Kind.DATA, Flag.PADDED, stream, b"\3" + MESSAGE + b"\0\0\0")


def table_update(stream):
    return head(stream, b"\x20" + HEADERS)


def in_two(stream):
    return data(stream, MESSAGE[:7]) + data(stream, MESSAGE[7:])


def unknown(_stream):
    return frame(77, 0xFF, 0, b"whatever")


def informational(stream):
    return head(stream, header_block([(b":status", b"103")]))


def late(stream):
    """Frames of a call that has ended."""
    return (data(stream - 2) + tail(stream - 2)) if stream > 1 else b""


GOOD = {
    "plain": (head, data, tail),
    "continuation": (split_head, data, tail),
    "padding": (head, padded, tail),
    "table size update": (table_update, data, tail),
    "two pieces": (head, in_two, tail),
    "unknown frames": (unknown, head, data, unknown, tail),
    "103 first": (informational, head, data, tail),
    "late frames": (late, head, data, late, tail),
}


@pytest.mark.parametrize("makers", GOOD.values(), ids=GOOD)
def test_replies_in_any_form(load, makers):
    with serving(each_call(*makers)) as port:
        got = load(calls(port), b"x")
    assert got.kinds == {"ok"}
    assert set(got.bodies) == {b"hello"}


def reset(reason):
    return lambda stream: frame(Kind.RST_STREAM, 0, stream, reason.to_bytes(4, "big"))


def only(*headers):
    return lambda stream: tail(stream, header_block(headers))


def garbage(_stream):
    return b"HTTP/1.1 400 Bad Request\r\n\r\n"


def compressed(stream):
    return data(stream, b"\1" + MESSAGE[1:])


BAD = {
    "reset": ((reset(2),), "grpc_internal", "RST_STREAM INTERNAL_ERROR"),
    "refused": ((head, reset(7)), "grpc_unavailable", "REFUSED_STREAM"),
    "trailers only": (
        (only((b":status", b"200"), (b"grpc-status", b"8"), (b"grpc-message", b"full%21")),),
        *("grpc_resource_exhausted", "full!"),
    ),
    "no gRPC": ((only((b":status", b"503")),), "status_503", ""),
    "no status": ((head, lambda s: data(s, flags=Flag.END_STREAM)), "bad_reply", "grpc-status"),
    "no message": ((head, tail), "bad_reply", "not one"),
    "two messages": ((head, data, data, tail), "bad_reply", "not one"),
    "compressed": ((head, compressed, tail), "bad_reply", "uncompressed"),
    "another status": ((only((b"grpc-status", b"77")),), "grpc_77", ""),
    "HTTP/1.1": ((garbage,), "bad_reply", "400 Bad"),
    "another stream": ((lambda s: head(s + 2),), "bad_reply", "never made"),
    "a push": ((lambda s: frame(Kind.PUSH_PROMISE, 0, s),), "bad_reply", "push"),
    "wrong headers": ((lambda s: head(s, b"\xff\xff\xff"),), "bad_reply", "header block"),
    "wrong padding": (
        (lambda s: frame(Kind.DATA, Flag.PADDED, s, b"\x99"),),
        *("bad_reply", "padding"),
    ),
    "wrong settings": ((lambda _: frame(Kind.SETTINGS, 0, 0, b"1"),), "bad_reply", "SETTINGS"),
    "gone": (
        (lambda _: frame(Kind.GOAWAY, 0, 0, bytes(4) + b"\0\0\0\x0btoo many"),),
        *("closed", "GOAWAY ENHANCE_YOUR_CALM too many"),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_everything_else_is_counted_by_its_kind(load, case):
    makers, kind, example = BAD[case]
    with serving(each_call(*makers)) as port:
        got = load(calls(port), b"x")
    assert got.kinds == {kind}
    assert example in got.examples.get(kind, "")


def test_a_grpc_server_that_hangs_up(load):
    def before(connection):
        Peer(connection).call()

    def within(connection):
        peer = Peer(connection)
        peer.send(head(peer.call()))

    with serving(before) as port:
        assert load(calls(port), b"x").kinds == {"closed"}
    with serving(within) as port:
        assert load(calls(port), b"x").kinds == {"cut_off"}


def test_a_grpc_server_that_never_answers(load):
    with serving(each_call()) as port:
        assert load(calls(port), b"x", timeout_s=0.1).kinds == {"timeout"}


def test_a_connection_whose_server_goes_away_ends_its_call_first(load):
    def script(connection):
        peer = Peer(connection)
        stream = peer.call()
        peer.send(frame(Kind.GOAWAY, 0, 0, stream.to_bytes(4, "big") + bytes(4)))
        peer.send(head(stream), data(stream), tail(stream))
        with suppress(ConnectionResetError):
            peer.call()

    with serving(script) as port:
        got = load(calls(port), b"x", users=1)
    assert got.kinds == {"ok"}
    assert all(got.recorder.connect_ns)


def test_a_ping_is_answered_and_settings_are_acknowledged(load):
    seen = []

    def script(connection):
        peer = Peer(connection)
        peer.send(http2.settings({}), frame(Kind.PING, payload=b"12345678"))
        seen.append(peer.until(Kind.PING, Flag.ACK).payload)
        peer.send(frame(Kind.PING, Flag.ACK, payload=b"87654321"))

    with serving(script) as port:
        load(calls(port), b"x", count=1, users=1)
    assert seen[0] == b"12345678"


def test_no_more_is_sent_than_the_windows_allow(load):
    sizes = []

    def script(connection):
        peer = Peer(connection)
        # The first call's data is on its way with the default window; then the window shrinks.
        peer.send(http2.settings({http2.Setting.INITIAL_WINDOW_SIZE: 1000}))
        stream = peer.call()
        peer.send(head(stream), data(stream), tail(stream))
        while True:
            first = peer.until(Kind.DATA)
            sizes.append(len(first.payload))
            peer.send(http2.window_update(2005, first.stream), http2.window_update(3005))
            rest = peer.until(Kind.DATA, Flag.END_STREAM)
            sizes.append(len(rest.payload))
            peer.send(head(rest.stream), data(rest.stream), tail(rest.stream))

    with serving(script) as port:
        got = load(calls(port), b"x" * 3000, count=3, users=1)
    assert got.kinds == {"ok"}
    assert sizes[:4] == [1000, 2005, 1000, 2005]


def test_a_connection_ends_with_its_stream_numbers(load, monkeypatch):
    monkeypatch.setattr(http2, "LAST_STREAM", 5)
    with serving(each_call(head, data, tail)) as port:
        got = load(calls(port), b"x", count=6, users=1)
    assert got.kinds == {"ok"}
    assert [ns > 0 for ns in got.recorder.connect_ns] == [True, False, False] * 2


assert READ == selectors.EVENT_READ


# --- all of it together: the generator's process against our own proxy -------------------------------


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text("secret\n")
    return str(path)


@pytest.fixture(scope="module")
def urls(module_proxy, models, certificate, tokens):
    """By scheme, where a proxy of ours serves a model to whoever shows the token."""
    pair = {"tls_cert": f"{certificate}/localhost.pem", "tls_key": f"{certificate}/localhost.key"}
    common = {"grpc_port": 0, "token_file": tokens}
    found = {}
    for suffix, settings in (("", common), ("s", common | pair)):
        proxy = module_proxy(models.affine(), settings)
        found[f"http{suffix}"] = f"http{suffix}://localhost:{proxy.address[1]}"
        found[f"grpc{suffix}"] = f"grpc{suffix}://localhost:{proxy.first['grpc'].split(':')[-1]}"
    return found


LOADS = {
    "open": {"rate": 100},
    "closed": {"users": 3, "think_s": 0.01},
    "without keep-alive": {"users": 3, "keep_alive": False},
}


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("scheme", ["http", "https", "grpc", "grpcs"])
def test_our_own_proxy_by_every_way(generator, urls, certificate, tokens, scheme, load):
    profile = LoadProfile(
        **{"duration_s": 0.3, "warmup_s": 0, "token_file": tokens, **LOADS[load]},
        tls_ca=str(certificate / "localhost.pem"),
    )
    target = discover(f"{urls[scheme]}/affine" if "grpc" in scheme else urls[scheme], profile)
    found = measure_some(generator, target, profile)
    assert found.errors == {}, found.error_examples


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_a_wrong_certificate_is_said_for_each_request(generator, urls, tokens, certificate, scheme):
    trusted = LoadProfile(users=1, token_file=tokens, tls_ca=str(certificate / "localhost.pem"))
    target = discover(f"{urls[scheme]}/affine" if "grpc" in scheme else urls[scheme], trusted)
    load = {"users": 2, "duration_s": 0.3, "warmup_s": 0}
    found, _ = generator.measure(target, LoadProfile(**load, token_file=tokens))
    assert set(found.errors) == {"tls"}
    assert "self-signed" in found.error_examples["tls"]
