"""Servers that misbehave: every failure is counted by its kind, none ends the run."""

import json
import math
import os
import socket
import socketserver
import threading
from contextlib import contextmanager

import psutil
import pytest

from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.location import locate
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols import server_times
from dlbench.loadgen.protocols.discovery import discover
from dlbench.loadgen.protocols.http_link import HttpLink
from dlbench.loadgen.protocols.server_times import server_clock
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import TensorSpec
from testbed.servers import measure_some

BODY = b'{"outputs": []}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
SPEC = TensorSpec(name="x", datatype="FP32", shape=(-1, 4), batch_axis=0)


class Handler(socketserver.StreamRequestHandler):
    """Reads one request after the other and answers each with the server's script."""

    def handle(self):
        try:
            while self.read_request() and self.server.script(self):
                pass
        except OSError:
            pass

    def read_request(self):
        self.line = self.rfile.readline().decode(errors="replace")
        length = 0
        while (header := self.rfile.readline()) not in (b"\r\n", b""):
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        self.body = self.rfile.read(length)
        return bool(self.line)

    def send(self, *pieces):
        for piece in pieces:
            self.wfile.write(piece)
        return True


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


@contextmanager
def server(script):
    with Server(("127.0.0.1", 0), Handler) as served:
        served.script = script
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_address[1]}"
        finally:
            served.shutdown()
            thread.join()


def target(url):
    path = "/v2/models/m/infer"
    return Target(url=url, model="m", path=path, inputs=(SPEC,), supports_binary=True)


def profile(**changes):
    return LoadProfile(**{"duration_s": 0.4, "warmup_s": 0, "timeout_s": 60, **changes})


def measured(generator, url, load):
    return measure_some(generator, target(url), profile(**load))


def then_close(*pieces):
    def script(handler):
        handler.send(*pieces)
        return False

    return script


def forever(handler):
    """Say nothing until the other side gives up."""
    handler.rfile.read()
    return False


def in_pieces(handler):
    for at in range(0, len(OK), 7):
        handler.send(OK[at : at + 7])
    return True


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

GOOD = {
    "chunked": lambda handler: handler.send(CHUNKED),
    "in pieces": in_pieces,
    "100 first": lambda handler: handler.send(b"HTTP/1.1 100 Continue\r\n\r\n", OK),
    "one reply per connection": then_close(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "ended by closing": then_close(b"HTTP/1.1 200 OK\r\n\r\n{}"),
    "HTTP/1.0 without a length": then_close(b"HTTP/1.0 200 OK\r\n\r\n{}"),
    "202": lambda handler: handler.send(status(b"202 Soon", b"later")),
    "204 without a body": lambda handler: handler.send(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "large": lambda handler: handler.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
    ),
}


def status(line, body=b""):
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (line, len(body), body)


MOVED = b"HTTP/1.1 301 Moved\r\nLocation: https://other/v2\r\nContent-Length: 0\r\n\r\n"
# What comes at once, and then byte after byte: replies that never end, and are never silent for long.
TRICKLES = {
    "trickles its header": (b"HTTP/1.1 200 OK\r\nX-Trickle: ", b"x"),
    "trickles a body of a known length": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
        b"x",
    ),
    "trickles chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n",
    ),
    "trickles until it closes": (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "trickles interim replies": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


def trickling(head, byte):
    """Ends when the client hangs up: a write fails then."""

    def script(handler):
        handler.send(head)
        while True:
            handler.send(byte)
            threading.Event().wait(0.02)

    return script


# Script, kind of the error, and what its example has to say.
BAD = {
    "5xx": (lambda h: h.send(status(b"500 Oh", b"out of memory")), "status_500", "out of memory"),
    "3xx": (lambda h: h.send(status(b"302 Go", b"elsewhere")), "status_302", "elsewhere"),
    "a redirect": (lambda h: h.send(MOVED), "status_301", "to https://other/v2: use that URL"),
    "closes": (lambda _: False, "closed", "before a reply"),
    "closes within a reply": (then_close(OK[:-3]), "cut_off", "within a reply"),
    "closes within a chunk": (then_close(CHUNKED[:-9]), "cut_off", "within a reply"),
    "closes after 1xx": (then_close(b"HTTP/1.1 100 Continue\r\n\r\n"), "cut_off", "within"),
    "garbage": (then_close(b"SSH-2.0-OpenSSH_9\r\n\r\n"), "bad_reply", "OpenSSH"),
    "two replies to one request": (lambda h: h.send(OK + OK), "bad_reply", "second reply"),
    "switches protocols": (
        then_close(b"HTTP/1.1 101 Go\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
        *("bad_reply", "Upgrade"),
    ),
}

LOADS = {
    "open": {"rate": 60, "arrivals": "constant"},
    "open without keep-alive": {"rate": 60, "arrivals": "constant", "keep_alive": False},
    "closed": {"users": 3},
    "closed without keep-alive": {"users": 3, "keep_alive": False},
}


def open_sockets(generator):
    return len(psutil.Process(generator._process.pid).net_connections("tcp"))


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("kind", GOOD)
def test_replies_of_every_kind_are_successes(generator, kind, load):
    with server(GOOD[kind]) as url:
        found = measured(generator, url, LOADS[load])
    assert found.errors == {}
    assert found.p99_ms > 0
    assert open_sockets(generator) == 0


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("case", BAD)
def test_failures_are_counted_by_kind_with_an_example(generator, case, load):
    script, kind, example = BAD[case]
    with server(script) as url:
        found = measured(generator, url, LOADS[load])
    assert set(found.errors) == {kind}, found
    assert found.errors[kind] == found.requests
    assert example in found.error_examples[kind]
    assert found.error_rate == 1
    assert found.p99_ms == math.inf
    assert found.verdict == "invalid"
    assert kind in found.reason
    assert open_sockets(generator) == 0


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("kind", ["says nothing", *TRICKLES])
def test_a_server_that_never_answers_or_never_ends(generator, kind, load):
    script = trickling(*TRICKLES[kind]) if kind in TRICKLES else forever
    with server(script) as url:
        found = measured(generator, url, {"timeout_s": 0.3, **LOADS[load]})
    assert set(found.errors) == {"timeout"}
    assert found.errors["timeout"] == found.requests
    assert "no reply in 0.3 s" in found.error_examples["timeout"]
    assert found.verdict == "invalid"
    assert open_sockets(generator) == 0


@pytest.mark.parametrize("load", LOADS)
def test_a_server_that_does_not_accept(generator, load):
    """Two connections fill its queue; what knocks after that waits, and is given up in time."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            given = {"timeout_s": 0.3, **LOADS[load]}
            found = measured(generator, f"http://127.0.0.1:{port}", given)
    assert set(found.errors) == {"timeout"}
    assert open_sockets(generator) == 0


def test_a_reply_that_nobody_asked_for_ends_its_connection_and_nothing_else(generator):
    """A surplus reply comes when the connection is idle: it must not answer the next request."""

    def script(handler):
        handler.send(OK)
        while unread(handler.connection):
            os.sched_yield()
        return handler.send(OK)

    with server(script) as url:
        given = profile(rate=4, duration_s=1.5, arrivals="constant")
        found, _ = generator.measure(target(url), given)
    assert found.errors == {}
    assert found.requests == 6
    assert open_sockets(generator) == 0


def unread(connection):
    """Whether the other end, a process on this machine, has yet to read what was sent to it."""
    ends = [f":{port:04X}" for _, port in (connection.getpeername(), connection.getsockname())]
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table]
    return any(
        row[1].endswith(ends[0]) and row[2].endswith(ends[1]) and not row[4].endswith(":00000000")
        for row in rows
    )


@pytest.mark.parametrize("load", LOADS)
def test_nobody_listens(generator, load, dead_port):
    found = measured(generator, f"http://127.0.0.1:{dead_port}", LOADS[load])
    assert set(found.errors) == {"connect"}
    assert found.error_examples == {"connect": "Connection refused"}
    # A refused user comes back at its own pace: it does not spin.
    assert found.requests < 100


def test_some_failures_among_successes(generator):
    lock, served = threading.Lock(), []

    def every_fourth_fails(handler):
        with lock:
            served.append(1)
            fails = len(served) % 4 == 0
        return handler.send(BAD_GATEWAY if fails else OK)

    with server(every_fourth_fails) as url:
        found, samples = generator.measure(target(url), profile(rate=100, arrivals="constant"))
    assert found.errors == {"status_502": 10}
    assert len(samples.latencies_ns) == 30
    assert found.verdict != "ok"


BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"


# --- discovery: one line for everything that is not a V2 server that is ready ---------------------


def reply(document, status="200 OK"):
    body = json.dumps(document).encode()
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def v2(models=("m",), shape=(-1, 4), runs=lambda shape: True, ready=True):
    """A V2 server by table; `runs` says which input shapes the model takes."""
    metadata = {"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": shape}]}

    def script(handler):
        method, path, _ = handler.line.split()
        answers = {
            ("GET", "/v2"): ({"name": "s", "extensions": []}, "200 OK"),
            ("POST", "/v2/repository/index"): ([{"name": name} for name in models], "200 OK"),
            ("GET", "/v2/models/m"): (metadata, "200 OK"),
            ("GET", "/v2/models/m/ready"): ({}, "200 OK" if ready else "503 Busy"),
        }
        if path.endswith("/infer"):
            got = json.loads(handler.body)["inputs"][0]["shape"]
            error = ({"error": f"cannot run {got}"}, "400 Bad Request")
            return handler.send(reply(*(({}, "200 OK") if runs(got) else error)))
        return handler.send(reply(*answers.get((method, path), ({"error": "no"}, "404 No"))))

    return script


def test_the_only_model_is_found():
    with server(v2()) as url:
        found = discover(url, LoadProfile())
    assert found.model == "m"
    assert found.inputs == (SPEC,)
    assert not found.supports_binary
    assert found.notes == ()


def test_the_size_that_runs_is_named():
    with server(v2(shape=(-1, -1), runs=lambda shape: 200 <= shape[1] <= 600)) as url:
        found = discover(url, LoadProfile())
    assert found.inputs[0].shape == (-1, 256)
    assert "[1, 256] is a guess" in found.notes[0]


def test_height_and_width_are_tried_as_a_pair():
    with server(v2(shape=(-1, 3, -1, -1), runs=lambda shape: shape[2:] == [48, 192])) as url:
        found = discover(url, LoadProfile())
    assert found.inputs[0].shape == (-1, 3, 48, 192)


@pytest.mark.parametrize("sizes", [(77,), (-1, 77), (1, 77)])
def test_a_stated_size_is_taken(sizes):
    with server(v2(shape=(-1, -1), runs=lambda shape: shape == [1, 77])) as url:
        found = discover(url, LoadProfile(shape={"x": sizes}))
    assert found.inputs[0].shape == (-1, 77)


WRONG = {
    "nothing there": (lambda h: h.send(reply({}, "404 No")), "", "404: nothing at /v2"),
    "redirects": (
        lambda h: h.send(MOVED),
        "",
        r"301 to https://other/v2: use that URL, https://other\)",
    ),
    "redirects to another path of its own": (
        lambda h: h.send(MOVED.replace(b"https://other", b"/api")),
        "",
        r"301 to http://127.0.0.1:\d+/api/v2: use that URL, http://127.0.0.1:\d+/api",
    ),
    "not a V2 inference server, 404": (lambda h: h.send(reply({}, "404 No")), "", "not as a V2"),
    "HTML": (lambda h: h.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<ht>"), "", "as a V2"),
    "other JSON": (lambda h: h.send(reply({"hello": 1})), "", "not as a V2"),
    "not HTTP": (then_close(b"SSH-2.0-OpenSSH_9\r\n"), "", "does not speak HTTP"),
    "several models": (v2(models=("a", "b")), "", "serves a, b; name one"),
    "no model": (v2(models=()), "", "serves none"),
    "another model": (v2(), "/v2/models/other", "status 404|has no"),
    "not ready": (v2(ready=False), "", "not ready"),
    "no size runs": (v2(shape=(-1, -1), runs=lambda _: False), "", "--shape NAME=D1,D2"),
    "refuses": (v2(runs=lambda _: False), "", "rejects .* cannot run"),
}


@pytest.mark.parametrize("case", WRONG)
def test_everything_else_is_one_clear_line(case):
    script, path, message = WRONG[case]
    with server(script) as url, pytest.raises(TargetError, match=message) as caught:
        discover(url + path, LoadProfile())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["says nothing", *TRICKLES])
def test_before_the_load_a_reply_that_never_ends_is_given_up(kind):
    script = trickling(*TRICKLES[kind]) if kind in TRICKLES else forever
    with server(script) as url, pytest.raises(TargetError, match=r"within 300 ms \(--timeout\)"):
        discover(url, LoadProfile(timeout_s=0.3))


@pytest.mark.parametrize("scheme", ["https", "grpc", "grpcs"])
def test_before_the_load_a_handshake_that_never_ends_is_given_up(scheme):
    with server(forever) as url, pytest.raises(TargetError) as caught:
        discover(url.replace("http", scheme) + "/m", LoadProfile(timeout_s=0.3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("load", LOADS)
def test_under_load_a_handshake_that_never_ends_is_given_up(generator, load):
    with server(forever) as url:
        tls = target(url.replace("http", "https"))
        found, _ = generator.measure(tls, profile(tls_insecure=True, timeout_s=0.3, **LOADS[load]))
    assert set(found.errors) == {"timeout"}
    assert open_sockets(generator) == 0


@pytest.mark.parametrize("kind", ["says nothing", *TRICKLES])
def test_the_servers_statistics_do_not_hold_a_result_up(kind, monkeypatch):
    monkeypatch.setattr(server_times, "TIMEOUT_S", 0.3)
    script = trickling(*TRICKLES[kind]) if kind in TRICKLES else forever
    with server(script) as url:
        clock = server_clock(target(url).model_copy(update={"statistics": True}), LoadProfile())
        assert clock.read() is None


@pytest.mark.parametrize("kind", GOOD)
def test_before_the_load_replies_of_every_kind_are_read(kind):
    with server(GOOD[kind]) as url:
        location = locate(f"{url}/", LoadProfile(protocol="plain"))
        with HttpLink(location, LoadProfile(timeout_s=5)) as link:
            assert link.send("GET", "/x").is_success


def test_an_unreachable_server(dead_port):
    with pytest.raises(TargetError, match="cannot reach"):
        discover(f"http://127.0.0.1:{dead_port}", LoadProfile())


@pytest.mark.parametrize(
    ("shape", "message"), [({"y": (4,)}, "no input 'y'"), ({"x": (4, 4, 4)}, "does not fit")]
)
def test_a_shape_that_does_not_fit(shape, message):
    with server(v2()) as url, pytest.raises(TargetError, match=message):
        discover(url, LoadProfile(shape=shape))
