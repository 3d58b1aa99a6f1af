"""The store of results under any sequence of events, and the handlers around it."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from dlbench.proxy.errors import BadRequest, NotFound, Overloaded, TooMany
from dlbench.proxy.http.connection import HttpRequest
from dlbench.proxy.http.head import RequestHead
from dlbench.proxy.http.memory import Memory
from dlbench.proxy.protocols.async_results import PENDING, AsyncResults, RespondAsync

MOST, TTL = 3, 100


class StoreMachine(RuleBasedStateMachine):
    """Compared with a model that is plainly right: a list of what was begun and finished."""

    ids = Bundle("ids")

    def __init__(self):
        super().__init__()
        self.store, self.now = AsyncResults(MOST, TTL, Memory()), 0
        self.pending, self.finished = set(), []  # (id, body, finished at), the oldest first

    @rule(target=ids)
    def begin(self):
        if len(self.pending) == MOST:
            with pytest.raises(TooMany):
                self.store.begin(self.now)
            return multiple()
        found = self.store.begin(self.now)
        assert found not in self.pending | {one for one, *_ in self.finished}
        self._expire()
        if len(self.pending) + len(self.finished) == MOST:
            self.finished.pop(0)
        self.pending.add(found)
        return found

    @rule(found=ids, body=st.binary(max_size=3))
    def finish(self, found, body):
        self.store.finish(found, 200, b"a: b\r\n", [body, memoryview(body)], self.now)
        if found in self.pending:
            self.pending.remove(found)
            self.finished.append((found, body * 2, self.now))

    @rule(found=ids)
    def forget(self, found):
        known = found in self.pending or any(one == found for one, *_ in self.finished)
        assert self.store.forget(found) == known
        self.pending.discard(found)
        self.finished = [kept for kept in self.finished if kept[0] != found]

    @rule(found=ids)
    def poll(self, found):
        self._expire()
        result = self.store.poll(found, self.now)
        if found in self.pending:
            assert result is PENDING
            return
        bodies = {one: body for one, body, _ in self.finished}
        assert (result.body if result else None) == bodies.get(found)

    @rule(by=st.integers(1, TTL))
    def time_passes(self, by):
        self.now += by

    @invariant()
    def is_bounded(self):
        assert len(self.store) <= MOST

    def _expire(self):
        self.finished = [kept for kept in self.finished if kept[2] + TTL > self.now]


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=60, deadline=None)


def test_ids_cannot_be_guessed():
    store = AsyncResults(100, TTL, Memory())
    ids = {store.begin(0) for _ in range(100)}
    assert len(ids) == 100
    assert min(map(len, ids)) >= 43  # 256 bits in base 64


def request(method, target, headers=None):
    return HttpRequest(RequestHead(method, target, headers or {}), b"")


class Client:
    """Calls handlers with one request line's worth of headers; keeps the replies."""

    def __init__(self, handlers):
        self._handlers = handlers

    def infer(self, handler, prefer=None):
        headers = {} if prefer is None else {b"prefer": prefer}
        return self._reply(self._handlers.wrap(handler), None, request(b"POST", b"/", headers))

    def get(self, location):
        return self._reply(self._handlers.poll, request(b"GET", location))

    def delete(self, location):
        return self._reply(self._handlers.forget, request(b"DELETE", location))

    def _reply(self, handler, *arguments):
        replies = []
        handler(*arguments, lambda *reply: replies.append(reply))
        (reply,) = replies
        return reply


@pytest.fixture
def client():
    return Client(RespondAsync(AsyncResults(MOST, TTL, Memory()), lambda: 0, Memory()))


def fields(headers):
    return dict(line.split(b": ", 1) for line in headers.splitlines())


def test_a_submitted_request_is_fetched_as_it_would_have_been_answered(client):
    waiting = []
    status, headers, _ = client.infer(
        lambda model, request, respond: waiting.append(respond), b"respond-async"
    )
    assert status == 202
    found = fields(headers)
    assert found[b"preference-applied"] == b"respond-async"
    assert found[b"retry-after"] == b"1"
    location = found[b"location"]
    assert location.startswith(b"/v2/async/")
    assert client.get(location)[0] == 202
    assert fields(client.get(location)[1]) == {b"retry-after": b"1"}
    waiting[0](503, b"retry-after: 7\r\n", [b"a", memoryview(b"bc")])
    assert client.get(location) == (503, b"retry-after: 7\r\n", [b"abc"])
    assert client.get(location + b"?again") == (503, b"retry-after: 7\r\n", [b"abc"])
    assert client.delete(location)[0] == 200
    with pytest.raises(NotFound):
        client.get(location)
    with pytest.raises(NotFound):
        client.delete(location)


@pytest.mark.parametrize(
    "prefer", [b"wait=10, respond-async", b"Respond-Async; foo=bar", b"respond-async,wait=1"]
)
def test_the_preference_may_stand_among_others(client, prefer):
    assert client.infer(lambda _, __, respond: respond(200, b"", [b"now"]), prefer)[0] == 202


@pytest.mark.parametrize("prefer", [None, b"", b"wait=10", b"respond-asynchronous"])
def test_without_the_preference_the_reply_comes_at_once(client, prefer):
    reply = client.infer(lambda _, __, respond: respond(200, b"", [b"now"]), prefer)
    assert reply == (200, b"", [b"now"])


def test_a_request_that_makes_no_sense_is_refused_at_once_and_keeps_no_place(client):
    def refuse(*_):
        raise BadRequest("no")

    for _ in range(2 * MOST):
        with pytest.raises(BadRequest):
            client.infer(refuse, b"respond-async")


def test_too_many_under_way_are_refused(client):
    for _ in range(MOST):
        client.infer(lambda *_: None, b"respond-async")
    with pytest.raises(TooMany):
        client.infer(lambda *_: None, b"respond-async")


def test_kept_results_give_way_to_requests_that_find_no_room():
    """The oldest first, and no more of them than needed."""
    memory = Memory(100_000)
    store = AsyncResults(MOST, TTL, memory)
    first, second = store.begin(0), store.begin(0)
    store.finish(first, 200, b"", [bytes(40_000)], 0)
    store.finish(second, 200, b"", [bytes(40_000)], 0)
    assert memory.held == 80_000
    memory.take(50_000)
    assert memory.held == 90_000
    assert store.poll(first, 0) is None
    assert len(store.poll(second, 0).body) == 40_000
    with pytest.raises(Overloaded):
        memory.take(100_001)
