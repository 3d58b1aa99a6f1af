"""The head of an HTTP request: what is kept, what is refused, and a cache of those seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dlbench.proxy.errors import BadExpectation, BadRequest
from dlbench.proxy.http.encoding import accepted_coding

# Headers that matter to somebody here; the rest is not even kept.
KEPT_HEADERS = frozenset(
    (
        b"accept",
        b"accept-encoding",
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"inference-header-content-length",
        b"origin",
        b"prefer",
        b"traceparent",
        b"tracestate",
        b"transfer-encoding",
        b"x-request-id",
    )
)
# Said twice they could mean one thing to us and another to whoever stands before us.
SINGLE_HEADERS = frozenset(
    (b"authorization", b"host", b"inference-header-content-length", b"origin")
)
# How the head of a reply ends by the request's version, when the connection stays: HTTP/1.0 clients
# want to hear it.
STAYING = {"1.1": b"\r\n", "1.0": b"connection: keep-alive\r\n\r\n"}
LEAVING = b"connection: close\r\n\r\n"
SCHEMES = (b"http://", b"https://")


@dataclass(slots=True, eq=False)
class RequestHead:
    """A parsed head, shared by all requests that begin with the same bytes.

    `headers` holds the kept ones under lower-case names, a repeated one joined by commas. `target`
    is path and query. `length` is the body's, 0 also for a chunked one. `ending` closes the head of
    the reply, and an `interim` one may come before it. `memo` belongs to the handler: whatever it
    made of this head.
    """

    method: bytes = b""
    target: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    keep_alive: bool = False
    length: int = 0
    chunked: bool = False
    expects: bool = False
    encodings: bytes = b""
    coding: bytes | None = None
    ending: bytes = LEAVING
    interim: bool = False
    memo: Any = None

    @property
    def repeatable(self) -> bool:
        """Whether another request may follow these very bytes and a body of `length`."""
        return self.keep_alive and not self.chunked and not self.expects


def add_header(headers: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    """Keep a header if it matters.

    Raises:
        BadRequest: it may be there only once, and was.
    """
    name = name.lower()
    if name not in KEPT_HEADERS:
        return
    value = value.strip(b" \t")
    if name not in headers:
        headers[name] = value
    elif name in SINGLE_HEADERS:
        raise BadRequest(f"{name.decode()} is given twice")
    else:
        headers[name] += b", " + value


def request_head(
    method: bytes, target: bytes, version: str, headers: dict[bytes, bytes], *, keep_alive: bool
) -> RequestHead:
    """The head of a request, framed unmistakably.

    Raises:
        BadRequest: another version of HTTP, no Host, a transfer coding that is not "chunked".
        BadExpectation: it expects something else than 100-continue.
    """
    if version not in STAYING:
        raise BadRequest(f"HTTP/{version} is not supported; use HTTP/1.1")
    if version == "1.1" and b"host" not in headers:
        raise BadRequest("the Host header is missing")
    length = int(headers.get(b"content-length", b"0"))
    chunked = _chunked(version, headers)
    return RequestHead(
        method,
        path_of(target),
        headers,
        keep_alive,
        length,
        chunked,
        _expects(version, headers) and (chunked or length > 0),
        headers.get(b"content-encoding", b""),
        accepted_coding(headers.get(b"accept-encoding", b"")),
        STAYING[version] if keep_alive else LEAVING,
        version == "1.1",
    )


def path_of(target: bytes) -> bytes:
    """Path and query of a request target, which may be a whole URL (RFC 9112, 3.2.2)."""
    authority, path = _split(target)
    return path if authority is None or path[:1] == b"/" else b"/" + path


def authority_of(target: bytes) -> bytes | None:
    """Host and port of a request target that is a whole URL; None for any other."""
    return _split(target)[0]


def _split(target: bytes) -> tuple[bytes | None, bytes]:
    """A URL's authority, if it is one, and what comes after it."""
    scheme = next((s for s in SCHEMES if target[: len(s)].lower() == s), None)
    if scheme is None:
        return None, target
    rest = target[len(scheme) :]
    cut = min(i for i in (rest.find(b"/"), rest.find(b"?"), len(rest)) if i >= 0)
    return rest[:cut], rest[cut:]


def _chunked(version: str, headers: dict[bytes, bytes]) -> bool:
    """Whether the body comes in chunks.

    HTTP/1.0 has no chunks: whoever sends them cannot be trusted to mean the same (RFC 9112, 6.1).
    """
    coding = headers.get(b"transfer-encoding")
    if coding is None:
        return False
    if version != "1.1" or coding.lower() != b"chunked" or b"content-length" in headers:
        raise BadRequest(
            "the only supported transfer-encoding is chunked, in HTTP/1.1, without a length"
        )
    return True


def _expects(version: str, headers: dict[bytes, bytes]) -> bool:
    """Whether the client waits for 100 Continue; HTTP/1.0 has no such thing (RFC 9110, 10.1.1)."""
    expectation = headers.get(b"expect")
    if expectation is None or version == "1.0":
        return False
    if expectation.lower() != b"100-continue":
        raise BadExpectation("the only supported expectation is 100-continue")
    return True


class HeadMemo:
    """Heads by their bytes: a client on a kept connection repeats its head, byte for byte.

    Bounded; the oldest makes room. One for all connections of a server. Read `known` only.
    """

    __slots__ = ("_most", "known", "longest")

    def __init__(self, most: int = 64, longest: int = 2048) -> None:
        self._most = most
        self.longest = longest
        self.known: dict[bytes, RequestHead] = {}

    def put(self, text: bytes, head: RequestHead) -> None:
        """Remember what `text`, from request line to empty line, was parsed to."""
        if len(self.known) >= self._most:
            del self.known[next(iter(self.known))]
        self.known[text] = head
