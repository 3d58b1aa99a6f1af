"""The front's reader beside h11, a server that takes the RFCs at their word.

What h11 accepts we read the same, and what it rejects we reject, but for the differences named here.
"""

import re

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.errors import RequestError
from dlbench.proxy.http.access import NoTokens
from dlbench.proxy.http.head import KEPT_HEADERS, HeadMemo, path_of
from dlbench.proxy.http.limits import Limits
from dlbench.proxy.http.memory import Memory
from dlbench.proxy.http.reader import RequestReader

LIMITS = Limits(16_384, 1 << 20, 1.0, 1.0, 1.0)


def ours(stream, size):
    """Requests as (method, target, kept headers, body), and the error that ended it."""
    found = []

    def take(head, body):
        headers = {**head.headers, **({b"transfer-encoding": b"chunked"} if head.chunked else {})}
        found.append((head.method, head.target, headers, body))

    reader = RequestReader(LIMITS, HeadMemo(), NoTokens(), take, Memory())
    try:
        for start in range(0, len(stream), size):
            reader.feed(stream[start : start + size])
    except RequestError as error:
        return found, f"{error.status} {error}"
    return found, None


def theirs(stream):
    """The same of h11, which answers each request before it reads the next."""
    found, body = [], bytearray()
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(stream)
    try:
        while (event := connection.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Request):
                request, body = event, bytearray()
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.append((request.method, path_of(request.target), kept(request), bytes(body)))
                if not answered(connection):
                    return found, f"closed after HTTP/{request.http_version.decode()}"
            else:
                return found, None
    except h11.RemoteProtocolError as error:
        return found, str(error)
    return found, None


def answered(connection):
    """Whether the connection goes on after the reply."""
    connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
        return False
    connection.start_next_cycle()
    return True


def kept(request):
    headers = {}
    for name, value in request.headers:
        if name in KEPT_HEADERS:
            headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


# What we refuse and h11 takes, by what we say then: every time the narrower reading.
STRICTER = {
    "a method that is not registered": "Invalid method|Expected space after method",
    "a target that is neither path nor URL": "in url|char in url",
    "another version than 1.0 and 1.1": "HTTP/.* is not supported|Invalid HTTP version|Expected HTTP/",
    "more than one length, or one with chunks": "Content-Length",
    "chunks in HTTP/1.0, or another transfer coding": "transfer-encoding|Transfer-Encoding",
    "a header on two lines": "Unexpected whitespace after header value",
    "a line end that is not CRLF": "Expected CRLF|Missing expected CR|Expected LF|Missing expected LF",
    "a character that headers do not have": "Invalid header",
    "a chunk's size with more than digits": "in chunk size|in chunk extensions",
    "an expectation that nobody knows": "the only supported expectation",
    "twice what may be said once": "is given twice",
    "CONNECT, or chunks with an upgrade": "upgrades are not supported",
}
# What we take and h11 refuses, by what h11 says: nothing that moves the border between messages.
LENIENT = {
    "empty lines before a request (RFC 9112, 2.2), also of a CR or LF alone": (
        r"^no request line received|^illegal request line($|: bytearray\(b'\\[rn])"
    ),
    "several spaces in the request line": r"^illegal request line: .*  ",
    "HTTP/1.0 connections that stay: h11 closes them all": "^closed after HTTP/1.0$",
}


def named(differences, text):
    return any(re.search(pattern, text or "") for pattern in differences.values())


REQUEST_LINES = [
    b"POST /v2/models/m/infer HTTP/1.1",
    b"GET /v2 HTTP/1.1",
    b"POST http://h:80/v2?x HTTP/1.1",
    b"GET /v2 HTTP/1.0",
    b"HEAD /a?b=c HTTP/1.1",
]
LINES = [
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: upgrade",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"Accept-Encoding: gzip",
    b"Accept-Encoding: br",
    b"Authorization: Bearer x",
    b"Inference-Header-Content-Length: 12",
    b"TE: trailers",
    b"Host: h",
]
BODIES = [
    b"",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"1\r\na\r\n",
]
BITS = [
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b":",
        b",",
        b"0",
        b"5",
        b"\x00",
        b"\xff",
        b"a",
        b";",
        b"-",
    ),
    *(b"+", b"/", b"_", b"", b"\r\n\r\n", b"chunked", b"HTTP/1.1"),
]


@st.composite
def streams(draw):
    """A few requests, some with a mistake or two in them."""
    stream = b""
    for _ in range(draw(st.integers(1, 3))):
        lines = draw(st.lists(st.sampled_from(LINES), max_size=4))
        lines = [draw(st.sampled_from(REQUEST_LINES)), b"Host: h", *lines]
        stream += b"".join(line + b"\r\n" for line in lines) + b"\r\n"
        stream += draw(st.sampled_from(BODIES))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(stream) - 1))
        removed = draw(st.integers(0, 2))
        stream = stream[:at] + draw(st.sampled_from(BITS)) + stream[at + removed :]
    return stream


@settings(max_examples=500, derandomize=True, deadline=None)
@given(streams(), st.sampled_from([1, 7, 64, 1 << 16]))
def test_we_read_what_h11_reads(stream, size):
    (here, error), (there, refusal) = ours(stream, size), theirs(stream)
    assert error is None or error.startswith("4")
    both = min(len(here), len(there))
    assert here[:both] == there[:both]
    if len(here) < len(there):
        assert named(STRICTER, error)
    if len(here) > len(there):
        assert named(LENIENT, refusal)


EXAMPLES = {
    "a method that is not registered": b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n",
    "a target that is neither path nor URL": b"GET v2 HTTP/1.1\r\nHost: h\r\n\r\n",
    "another version than 1.0 and 1.1": b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
    "more than one length, or one with chunks": (
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na"
    ),
    "chunks in HTTP/1.0, or another transfer coding": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "a header on two lines": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
    "a line end that is not CRLF": b"GET / HTTP/1.1\nHost: h\n\n",
    "a character that headers do not have": b"GET / HTTP/1.0\r\n\n\r\n",
    "a chunk's size with more than digits": (
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0 \r\n\r\n"
    ),
    "an expectation that nobody knows": b"GET / HTTP/1.1\r\nHost: h\r\nExpect: more\r\n\r\n",
    "twice what may be said once": (
        b"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n"
    ),
    "CONNECT, or chunks with an upgrade": b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
    "empty lines before a request (RFC 9112, 2.2), also of a CR or LF alone": (
        b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"
    ),
    "several spaces in the request line": b"GET   / HTTP/1.1\r\nHost: h\r\n\r\n",
    "HTTP/1.0 connections that stay: h11 closes them all": (
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2
    ),
}


@pytest.mark.parametrize("difference", STRICTER)
def test_where_we_are_stricter(difference):
    """Each row of the table is still needed."""
    (here, error), (there, _) = ours(EXAMPLES[difference], 1 << 16), theirs(EXAMPLES[difference])
    assert (len(here), len(there)) == (0, 1)
    assert re.search(STRICTER[difference], error)


@pytest.mark.parametrize("difference", LENIENT)
def test_where_we_are_more_lenient(difference):
    (here, error), (there, refusal) = (
        ours(EXAMPLES[difference], 1 << 16),
        theirs(EXAMPLES[difference]),
    )
    assert error is None
    assert len(here) == len(there) + 1
    assert re.search(LENIENT[difference], refusal)
