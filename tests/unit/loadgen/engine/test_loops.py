"""The loops without a network: what they ask of their connections, on a fake event loop."""

import socket
from collections import namedtuple
from itertools import repeat
from time import monotonic_ns

import pytest

from dlbench.loadgen.engine.closed_loop import ClosedLoop
from dlbench.loadgen.engine.open_loop import OPEN_AT_ONCE, OpenLoop
from dlbench.loadgen.engine.recorder import OK, PENDING, Recorder
from dlbench.loadgen.engine.request_loop import FAR_NS
from dlbench.loadgen.transport.keepalive import IDLE, Http

Address = namedtuple("Address", "family sockaddr")
Share = namedtuple("Share", "index of")


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


class Numbers:
    """Requests that are their numbers; `asked` keeps them in the order in which they were sent."""

    def __init__(self):
        self.asked = []

    def at(self, number):
        self.asked.append(number)
        return b"%d" % number


def judge(body, number):
    """Right replies repeat the request."""
    return "" if body == b"%d" % number else "wrong_output"


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        yield Address(socket.AF_INET, server.getsockname())


@pytest.fixture
def make(listener):
    made = []

    def make(kind, rows=0, limit=1000, share=(0, 1), **options):
        recorder, requests = Recorder(rows), Numbers()
        loop = kind(
            FakeLoop(),
            *(Http(listener), recorder, requests, judge, limit, Share(*share)),
            **options,
        )
        made.append(loop)
        return loop, recorder, requests.asked

    yield make
    for loop in made:
        loop.close()


@pytest.fixture
def make_open(make):
    return lambda due_ns, **options: make(
        OpenLoop, len(due_ns), due_ns=[*due_ns, FAR_NS], **options
    )


@pytest.fixture
def make_closed(make):
    def start(users, **options):
        made = make(ClosedLoop, users=users, **options)
        made[0].start()
        return made

    return start


def kinds(recorder):
    return [recorder.outcomes.names[code] for code in recorder.outcome]


def test_only_what_is_due_is_begun(make_open):
    loop, _, _ = make_open([10, 20, 30])
    loop.send_due(20)
    assert (loop.begun, loop.next_due_ns) == (2, 30)


def test_a_burst_opens_a_bounded_number_of_connections_at_once(make_open):
    loop, _, _ = make_open([0] * 100)
    loop.send_due(0)
    again_ns = loop.open_more(1)
    assert len(loop.connections) == OPEN_AT_ONCE
    assert loop.open_more(again_ns - 1) == again_ns
    assert len(loop.connections) == OPEN_AT_ONCE
    loop.open_more(again_ns)
    assert len(loop.connections) == 2 * OPEN_AT_ONCE


def test_the_limit_makes_requests_wait_and_is_noted(make_open):
    loop, _, _ = make_open([0] * 10, limit=3)
    loop.send_due(0)
    assert loop.open_more(1) == FAR_NS
    assert len(loop.connections) == 3
    assert loop.exhausted
    assert loop.in_flight == 10


def test_a_reply_frees_its_connection_for_the_request_that_waits_longest(make_open):
    loop, recorder, _ = make_open([0] * 3, limit=1)
    loop.send_due(0)
    loop.open_more(1)
    (connection,) = loop.connections
    assert connection.index == 0
    loop.replied(connection, 200, 5, b"0")
    assert connection.index == 1
    assert recorder.outcome.tolist() == [0, PENDING, PENDING]
    loop.replied(connection, 503, 6, b"busy")
    assert kinds(recorder)[1] == "status_503"
    assert recorder.outcomes.examples == {"status_503": "busy"}


def test_requests_time_out_in_flight_and_while_they_wait(make_open):
    loop, recorder, _ = make_open([0, 0, 100], limit=1)
    loop.send_due(100)
    loop.open_more(101)
    loop.sweep(60, timeout_ns=50)
    assert [recorder.outcome[i] == PENDING for i in range(3)] == [False, False, True]
    assert {recorder.outcomes.names[code] for code in recorder.outcome[:2]} == {"timeout"}


def test_after_cancel_nothing_more_is_begun(make_open):
    loop, _, _ = make_open([0, 10, 20])
    loop.send_due(5)
    loop.cancel()
    loop.send_due(1000)
    assert loop.begun == 1
    assert not loop.drained


def test_replies_are_judged_by_the_number_of_their_request(make_open):
    loop, recorder, asked = make_open([0] * 3, limit=1, share=(1, 4))
    loop.send_due(0)
    loop.open_more(1)
    (connection,) = loop.connections
    for body in (b"1", b"2", b"9"):
        loop.replied(connection, 200, 5, body)
    assert asked == [1, 5, 9]
    assert kinds(recorder) == ["ok", "wrong_output", "ok"]
    assert recorder.outcomes.examples == {"wrong_output": "2"}


def test_an_error_is_not_judged(make_open):
    loop, recorder, _ = make_open([0] * 2, limit=1)
    loop.send_due(0)
    loop.open_more(1)
    (connection,) = loop.connections
    loop.replied(connection, 302, 5, b"0")
    loop.replied(connection, "grpc_unavailable", 5, b"1")
    assert kinds(recorder) == ["status_302", "grpc_unavailable"]


def test_the_wait_for_a_connection_is_written_down(make_open):
    loop, recorder, _ = make_open([0] * 2, limit=1)
    loop.send_due(0)
    loop.open_more(1)
    (connection,) = loop.connections
    connection.connect_ns = 7
    loop.replied(connection, 200, 5, b"0")
    loop.replied(connection, 200, 5, b"1")
    assert recorder.connect_ns.tolist() == [7, 0]


def test_from_a_pool_a_request_is_sent_in_time_and_waits_for_its_connection(make_open):
    loop, recorder, _ = make_open([0] * 3, limit=1, pooled=True)
    loop.send_due(2)
    loop.open_more(3)
    (connection,) = loop.connections
    for number in range(3):
        loop.replied(connection, 200, 10 * number + 10, b"%d" % number)
    assert recorder.sent.tolist() == [2, 2, 2]
    assert recorder.connect_ns.tolist() == [1, 8, 18]


def test_while_a_whole_pool_is_busy_only_replies_wake_it(make_open):
    loop, recorder, asked = make_open([0, 0, 5, 90], limit=1, pooled=True)
    calls = []
    loop.on_call = lambda: calls.append(loop.ended)
    loop.wake(0)
    assert loop.wake(1) == FAR_NS
    (connection,) = loop.connections
    loop.replied(connection, 200, 7, b"0")  # takes what became due meanwhile along
    assert (loop.begun, calls) == (3, [])
    loop.replied(connection, 200, 8, b"1")
    loop.replied(connection, 200, 9, b"2")
    assert calls == [3]  # it is free: the schedule counts again
    assert loop.wake(10) == 90
    assert recorder.sent.tolist() == [0, 0, 5, 0]
    assert asked == [0, 1, 2]


def test_a_pool_whose_last_request_timed_out_while_waiting_wakes_up(make_open):
    loop, _, _ = make_open([0, 0, 90], limit=1, pooled=True)
    calls = []
    loop.wake(0)
    loop.on_call = lambda: calls.append(loop.ended)
    assert loop.wake(1) == FAR_NS
    loop.sweep(60, timeout_ns=50)
    assert calls
    assert loop.wake(61) == 90


def test_what_became_due_while_a_pool_was_busy_has_begun_when_the_run_ends(make_open):
    loop, _, _ = make_open([0, 0, 5], limit=1, pooled=True)
    loop.wake(0)
    loop.sweep(6, timeout_ns=50)
    loop.cancel()
    assert loop.begun == 3


def test_what_becomes_due_while_a_pool_is_busy_waited_for_it_and_was_not_late(make_open):
    loop, recorder, _ = make_open([0, 0, 5, 90], limit=1, pooled=True)
    loop.wake(0)
    loop.wake(1)
    (connection,) = loop.connections
    loop.replied(connection, 200, 4, b"0")  # nobody waits any more, but the connection is busy
    loop.replied(connection, 200, 40, b"1")
    loop.replied(connection, 200, 41, b"2")
    assert recorder.sent.tolist() == [0, 0, 5, 0]
    assert recorder.connect_ns.tolist()[:3] == [0, 4, 35]


def test_a_pooled_client_that_woke_late_was_late(make_open):
    loop, recorder, _ = make_open([0, 0, 5], limit=1, pooled=True)
    loop.wake(30)
    (connection,) = loop.connections
    for number in range(3):
        loop.replied(connection, 200, 10 * number + 40, b"%d" % number)
    assert recorder.sent.tolist() == [30, 30, 30]


@pytest.mark.parametrize("closing", [True, False])
def test_a_pool_that_loses_its_connections_while_it_rests_gets_others(make_open, closing):
    loop, _, asked = make_open([0, 0, 5, 90], limit=1, pooled=True)
    loop.on_call = lambda: calls.append(loop.ended)
    calls = []
    loop.wake(0)
    loop.wake(1)
    (connection,) = loop.connections
    loop.replied(connection, 200, 4, b"0")
    calls.clear()
    if closing:
        connection.closing = True
        loop.replied(connection, 200, 4, b"1")
    else:
        connection.fail("closed")
    assert calls
    loop.wake(6)
    assert len(loop.connections) == 1
    assert asked == [0, 1, 2]


def test_a_pool_for_which_the_system_has_no_connection_asks_again(make_open, monkeypatch):
    def none_left(_loop, _owner):
        raise OSError("no more")

    loop, _, asked = make_open([0, 90], limit=4, pooled=True)
    monkeypatch.setattr(loop, "_connect", none_left)
    loop.wake(0)
    calls = []
    loop.on_call = lambda: calls.append(1)
    monkeypatch.undo()
    loop.sweep(1, timeout_ns=50)
    assert calls
    loop.wake(2)
    assert asked == [0]


def test_a_small_pool_is_not_exhausted_before_the_first_request(make_open):
    loop, _, _ = make_open([5], limit=3, pooled=True)
    loop.open_ahead()
    assert not loop.exhausted


def test_without_keep_alive_those_that_wait_longest_come_first(make_open):
    loop, _, asked = make_open([0, 0, 4], fresh=True, limit=1)
    loop.send_due(0)
    (connection,) = loop.connections
    loop.replied(connection, 200, 5, b"0")
    loop.wake(6)
    assert asked == [0, 1]


def test_without_keep_alive_every_request_opens_its_own_connection_at_once(make_open):
    loop, _, asked = make_open([0] * 100, fresh=True)
    loop.open_ahead()
    assert not loop.connections
    loop.send_due(0)
    assert len(loop.connections) == 100
    first, *_ = loop.connections
    loop.replied(first, 200, 5, b"")
    assert first.closing
    assert len(loop.connections) == 99
    assert asked == list(range(100))


def test_without_keep_alive_the_limit_is_a_limit_too(make_open):
    woken = []
    loop, _, asked = make_open([0] * 5, fresh=True, limit=2)
    loop.on_call = lambda: woken.append(loop.wake(9))
    loop.send_due(0)
    assert len(loop.connections) == 2
    for number in (0, 1, 2):
        connection = next(c for c in loop.connections if c.index == number)
        loop.replied(connection, 200, 5, b"%d" % number)
    assert len(woken) == 3
    assert asked == list(range(5))


# --- the closed loop -------------------------------------------------------------------------------


def test_users_take_the_next_numbers(make_closed):
    loop, recorder, asked = make_closed(2, share=(1, 3))
    first, second = sorted(loop.connections, key=lambda c: c.index)
    loop.replied(second, 200, 5, b"4")
    loop.replied(first, 200, 6, b"nothing")
    assert asked == [1, 4, 7, 10]
    assert recorder.number.tolist() == [4, 1]
    assert kinds(recorder) == ["ok", "wrong_output"]
    assert len(recorder.connect_ns) == 2


def test_a_failed_user_comes_back_with_the_next_sweep(make_closed):
    loop, recorder, _ = make_closed(2)
    first, *_ = loop.connections
    first.fail("closed", "so it was")
    assert len(loop.connections) == 1
    loop.sweep(0, 1)
    assert loop.in_flight == 2
    assert recorder.outcomes.examples == {"closed": "so it was"}


def test_a_user_that_thinks_is_not_in_flight(make_closed):
    loop, _, asked = make_closed(2, think=repeat(FAR_NS // 2))
    first, *_ = loop.connections
    loop.replied(first, 200, 5, b"")
    loop.sweep(0, 1)
    assert loop.in_flight == 1
    assert asked == [0, 1]
    assert first.index == IDLE
    assert not first.closing


def test_a_user_that_has_thought_goes_on_with_its_connection(make_closed):
    loop, _, asked = make_closed(1, think=iter([0, FAR_NS // 2]))
    (connection,) = loop.connections
    loop.replied(connection, 200, monotonic_ns(), b"0")
    loop._wake()
    assert connection.index == 1
    assert loop.connections == {connection}
    assert asked == [0, 1]


def test_a_connection_that_ends_while_its_user_thinks_is_replaced_afterwards(make_closed):
    loop, recorder, _ = make_closed(1, think=repeat(0))
    (connection,) = loop.connections
    loop.replied(connection, 200, monotonic_ns(), b"0")
    connection.fail("closed")
    loop.sweep(0, 1)
    assert not loop.connections
    loop._wake()
    (other,) = loop.connections
    assert other.index == 1
    assert recorder.outcome.tolist() == [OK]


def test_without_keep_alive_users_change_their_connection(make_closed):
    loop, _, asked = make_closed(1, fresh=True)
    (connection,) = loop.connections
    loop.replied(connection, 200, 5, b"0")
    (other,) = loop.connections
    assert other is not connection
    assert asked == [0, 1]


@pytest.mark.parametrize("think", [None, repeat(0)])
def test_a_cancelled_loop_is_drained_when_the_last_reply_is_there(make_closed, think):
    loop, _, asked = make_closed(2, think=think)
    first, second = loop.connections
    if think:
        loop.replied(first, 200, 5, b"0")
    loop.cancel()
    assert not loop.drained
    for connection in {first, second} & loop.connections:
        loop.replied(connection, 200, 5, b"0")
    assert loop.drained
    assert asked == [0, 1]


def test_users_without_a_connection_try_again_when_the_system_had_none(make_closed, monkeypatch):
    def exhausted(_loop, _owner):
        raise OSError("no more")

    loop, _, asked = make_closed(0)
    loop._absent = 2
    monkeypatch.setattr(loop, "_connect", exhausted)
    loop.start()
    assert loop.exhausted
    monkeypatch.undo()
    loop.sweep(0, 1)
    assert asked == [0]
