"""Bytes in, requests out: the short cut for known heads never shows, and everything has its bound."""

import gzip
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.errors import RequestError
from dlbench.proxy.http.access import NoTokens, Tokens
from dlbench.proxy.http.head import HeadMemo
from dlbench.proxy.http.limits import Limits
from dlbench.proxy.http.memory import Memory
from dlbench.proxy.http.reader import ENDED, FREE_CHUNKS, IDLE, RequestReader

LIMITS = Limits(1000, 100_000, 1.0, 1.0, 1.0)


class Reading:
    """A reader with what came out of it; after an error nothing is fed any more."""

    def __init__(self, heads=None, access=None):
        self.heads = HeadMemo() if heads is None else heads
        self.requests = []
        self.error = None
        self.reader = RequestReader(LIMITS, self.heads, access or NoTokens(), self._take, Memory())

    def _take(self, head, body):
        said = (head.keep_alive, head.length, head.chunked, head.expects, head.ending)
        self.requests.append((head.method, head.target, head.headers, *said, body))

    def feed(self, *pieces):
        for piece in pieces:
            if self.error is None:
                try:
                    self.reader.feed(piece)
                except RequestError as error:
                    self.error = (error.status, str(error))
        return self

    @property
    def outcome(self):
        return self.requests, self.error, self.reader.phase


def message(target="/a", body=b"", extra="", host="Host: h\r\n", method="POST", version="1.1"):
    length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
    return f"{method} {target} HTTP/{version}\r\n{host}{length}{extra}\r\n".encode() + body


CHUNKED = (
    b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\n2\r\n\r\n\r\n0\r\nContent-Encoding: gzip\r\n\r\n"
)
# What clients send, and what would mislead a memory that only looks for the first empty line.
MESSAGES = [
    message(body=b"hello"),
    message(body=b"other"),
    message(body=b"\r\n\r\n"),
    message(body=message(body=b"a request in a body")),
    message(method="GET"),
    message("/b", method="GET", extra="Accept-Encoding: gzip\r\naccept-encoding: br\r\n"),
    message(body=gzip.compress(b"x"), extra="Content-Encoding: gzip\r\n"),
    message(body=b"x", extra="Expect: 100-continue\r\n"),
    message("http://h/abs?q", body=b"y"),
    message(body=b"1.0", version="1.0", host="", extra="Connection: keep-alive\r\n"),
    message(body=b"upgrade", extra="Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    message(body=bytes(5000)),
    message(extra="X: " + "long " * 150 + "\r\n", body=b"z"),
    CHUNKED,
    b"\r\n\r\n" + message(body=b"after empty lines"),
    b"\r\n",
    message(body=b"bye", extra="Connection: close\r\n"),
    message(host="", body=b"no host"),
    message(host="Host: a\r\nHost: b\r\n"),
    message(extra="Content-Length: 3\r\n", body=b"abc"),
    message(extra="Transfer-Encoding: chunked\r\n", body=b"abc"),
    message(extra="Expect: more\r\n", body=b"abc"),
    b"GET /lf HTTP/1.1\nHost: h\n\n",
    b"nonsense\r\n\r\n",
]


def cut(stream, places):
    edges = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=8),
    st.lists(st.integers(0, 1 << 20), max_size=12),
)
def test_known_heads_give_the_same_requests_however_the_stream_is_cut(messages, places):
    stream = b"".join(messages)
    parsed = Reading(HeadMemo(longest=0)).feed(stream)
    heads = HeadMemo()
    Reading(heads).feed(*messages)
    for pieces in ([stream], cut(stream, places)):
        again = Reading(heads).feed(*pieces)
        assert again.outcome == parsed.outcome
    assert not parsed.heads.known


def test_one_byte_at_a_time_gives_the_same():
    stream = b"".join(MESSAGES[:16])
    whole = Reading(HeadMemo(longest=0)).feed(stream)
    assert len(whole.requests) == 15
    assert Reading().feed(*cut(stream, range(len(stream)))).outcome == whole.outcome


def test_what_is_learned_is_the_head_and_only_if_another_may_follow():
    known = Reading().feed(*MESSAGES).heads.known
    assert message(body=b"hello")[:-5] in known
    assert message(method="GET") in known
    assert all(text.endswith(b"\r\n\r\n") and b"\r\n\r\n" not in text[:-4] for text in known)
    assert not any(head.chunked or head.expects or not head.keep_alive for head in known.values())


def test_a_known_head_is_not_parsed_again(monkeypatch):
    reading = Reading().feed(message(body=b"hello"))
    monkeypatch.setattr(reading.reader, "_parser", None)
    reading.feed(message(body=b"other") * 3, message(body=b"split")[:-2], b"it")
    assert [request[-1] for request in reading.requests] == [b"hello", *[b"other"] * 3, b"split"]


def test_requests_share_what_a_handler_made_of_their_head():
    heads = []
    reader = RequestReader(
        LIMITS, HeadMemo(), NoTokens(), lambda head, _: heads.append(head), Memory()
    )
    for body in (b"hello", b"other", b"longer"):
        reader.feed(message(body=body))
    assert heads[0] is heads[1]
    assert heads[2] is not heads[0]


def test_the_memory_of_heads_is_bounded_and_forgets_the_oldest():
    reading = Reading(HeadMemo(most=4))
    for number in range(10):
        reading.feed(message(f"/{number}", body=b"x"))
    assert [text.split()[1] for text in reading.heads.known] == [b"/6", b"/7", b"/8", b"/9"]
    reading.feed(message(extra="X: " + "a" * 900 + "\r\n"))
    assert len(reading.requests) == 11


def test_a_token_is_asked_for_before_the_body_and_never_learned_without():
    tokens = Tokens([b"secret"])
    post = message(body=b"x")
    refused = Reading(access=tokens).feed(post[:-1])
    assert refused.error[0] == 401
    assert not refused.heads.known
    allowed = message(body=b"x", extra="Authorization: Bearer secret\r\n")
    assert len(Reading(access=tokens).feed(allowed, allowed).requests) == 2
    probe = message("/v2/health/ready?x", method="GET")
    assert len(Reading(access=tokens).feed(probe, probe).requests) == 2


def chunks(count, size):
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + (b"%x\r\n%b\r\n" % (size, bytes(size))) * count


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (message(body=bytes(100_001)), 413),
        (chunks(101, 1000), 413),
        (chunks(FREE_CHUNKS + 1, 1), 413),
        (b"GET /" + b"a" * 1001, 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200, 431),
        (chunks(1, 10) + b"0\r\n" + b"t: 1\r\n" * 200, 431),
    ],
)
@pytest.mark.parametrize("size", [100, 1 << 20])
def test_too_much_is_refused(stream, status, size):
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    assert Reading().feed(*pieces).error[0] == status


@pytest.mark.parametrize(
    "start",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nX: ",
        b"GET / HTTP/1.1\r\n",
        chunks(1, 10) + b"5;extension=",
        chunks(1, 10) + b"0\r\ntrailer: ",
        chunks(1, 10) + b"0\r\n",
    ],
)
def test_a_line_without_end_is_not_kept(start):
    """The parser says nothing about a line before it has ended."""
    reading = Reading().feed(start)
    for _ in range(30):
        reading.feed(b"a" * 100)
    assert reading.error[0] == 431


def test_nothing_is_read_after_the_last_request():
    last = message(body=b"x", extra="Connection: close\r\n")
    reading = Reading().feed(last + b"garbage", b"more")
    assert reading.outcome == (reading.requests, None, ENDED)
    assert len(reading.requests) == 1


def test_between_requests_it_is_idle():
    reading = Reading().feed(message(body=b"x"))
    assert reading.reader.phase == IDLE
    reading.feed(message(body=b"xyz")[:-1])
    assert reading.reader.phase != IDLE
