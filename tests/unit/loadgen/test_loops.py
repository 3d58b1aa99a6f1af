"""The loops without a network: what they ask of their connections, on a fake event loop."""

import socket
from collections import namedtuple

import pytest

from dlbench.loadgen.loops import FAR_NS, OPEN_AT_ONCE, OpenLoop
from dlbench.loadgen.recorder import PENDING, Recorder

Address = namedtuple("Address", "family sockaddr")


class FakeWatcher:
    def start(self, callback):
        pass

    def stop(self):
        pass

    def close(self):
        pass


class FakeLoop:
    def io(self, fd, events):
        return FakeWatcher()


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        yield Address(socket.AF_INET, server.getsockname())


@pytest.fixture
def make(listener):
    made = []

    def make(due_ns, limit=1000):
        recorder = Recorder(len(due_ns))
        loop = OpenLoop(
            FakeLoop(), listener, recorder, lambda: b"x", limit, due_ns=[*due_ns, FAR_NS]
        )
        made.append(loop)
        return loop, recorder

    yield make
    for loop in made:
        loop.close()


def test_only_what_is_due_is_begun(make):
    loop, _ = make([10, 20, 30])
    loop.send_due(20)
    assert (loop.begun, loop.next_due_ns) == (2, 30)


def test_a_burst_opens_a_bounded_number_of_connections_at_once(make):
    loop, _ = make([0] * 100)
    loop.send_due(0)
    again_ns = loop.open_more(1)
    assert len(loop.connections) == OPEN_AT_ONCE
    assert loop.open_more(again_ns - 1) == again_ns
    assert len(loop.connections) == OPEN_AT_ONCE
    loop.open_more(again_ns)
    assert len(loop.connections) == 2 * OPEN_AT_ONCE


def test_the_limit_makes_requests_wait_and_is_noted(make):
    loop, _ = make([0] * 10, limit=3)
    loop.send_due(0)
    assert loop.open_more(1) == FAR_NS
    assert len(loop.connections) == 3
    assert loop.exhausted
    assert loop.in_flight == 10


def test_a_reply_frees_its_connection_for_the_request_that_waits_longest(make):
    loop, recorder = make([0] * 3, limit=1)
    loop.send_due(0)
    loop.open_more(1)
    (connection,) = loop.connections
    assert connection.index == 0
    loop.replied(connection, 200, 5)
    assert connection.index == 1
    assert recorder.outcome.tolist() == [0, PENDING, PENDING]
    loop.replied(connection, 503, 6)
    assert recorder.outcomes.names[recorder.outcome[1]] == "status_503"


def test_requests_time_out_in_flight_and_while_they_wait(make):
    loop, recorder = make([0, 0, 100], limit=1)
    loop.send_due(100)
    loop.open_more(101)
    loop.sweep(60, timeout_ns=50)
    assert [recorder.outcome[i] == PENDING for i in range(3)] == [False, False, True]
    assert {recorder.outcomes.names[code] for code in recorder.outcome[:2]} == {"timeout"}


def test_after_cancel_nothing_more_is_begun(make):
    loop, _ = make([0, 10, 20])
    loop.send_due(5)
    loop.cancel()
    loop.send_due(1000)
    assert loop.begun == 1
    assert not loop.drained
