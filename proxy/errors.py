"""What can go wrong in the proxy.

ProxyError                 one line for a person
├── ModelError             the model is missing, corrupt or of a kind that cannot be served
├── DeviceError            the device asked for cannot be had
├── StartError             the proxy cannot start: port in use, a worker that died
├── BrokenFrame            what came from a worker is nothing that a worker sends
└── RequestError           an answer over HTTP; carries its status
    ├── BadRequest         400
    ├── Unauthorized       401
    ├── Forbidden          403
    ├── NotFound           404
    ├── MethodNotAllowed   405
    ├── RequestTimeout     408
    ├── TooLarge           413
    ├── BadEncoding        415
    ├── BadExpectation     417
    ├── TooMany            429
    ├── Misdirected        421
    ├── HeadTooLarge       431
    ├── ClientGone         499
    ├── WorkerFailed       500
    ├── Overloaded         503
    └── DeadlineExceeded   504
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Collection


# Characters of an error's text.
LONGEST_TEXT = 1000


class ProxyError(Exception):
    """Base of every error of this package."""


class ModelError(ProxyError):
    """The model cannot be served."""


class DeviceError(ProxyError):
    """The device asked for is not there, or a session did not get it."""


class StartError(ProxyError):
    """The proxy cannot start."""


class BrokenFrame(ProxyError):
    """A worker, or who stands in its place, sent what no worker sends."""


class RequestError(ProxyError):
    """A request that gets an error for an answer: `{"error": text}` with `status`.

    The text may quote the request, so it is cut: a name of 60 MB is not sent back.
    """

    status: ClassVar[int] = 500
    # Header lines of the answer, each with its CRLF.
    headers: bytes = b""
    # The client may try again after so many seconds; None: no use in trying.
    retry_after_s: int | None = None

    def __init_subclass__(cls, status: int) -> None:
        cls.status = status

    def __init__(self, text: str) -> None:
        super().__init__(text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…")


class BadRequest(RequestError, status=400):
    """The request makes no sense; sending it again will not help."""


class Unauthorized(RequestError, status=401):
    """No bearer token, or one that is not known."""


class Forbidden(RequestError, status=403):
    """A web page from elsewhere asks for more than a read."""


class NotFound(RequestError, status=404):
    """No such path or model."""


class MethodNotAllowed(RequestError, status=405):
    """The path is there, the method is not; `headers` names those that are."""

    def __init__(self, methods: Collection[bytes]) -> None:
        allowed = b", ".join(sorted({*methods, *([b"HEAD"] if b"GET" in methods else [])}))
        super().__init__(f"{allowed.decode()} only")
        self.headers = b"allow: %b\r\n" % allowed


class RequestTimeout(RequestError, status=408):
    """The request did not arrive in time."""


class TooLarge(RequestError, status=413):
    """The body is over the limit, compressed or not."""


class BadEncoding(RequestError, status=415):
    """A content encoding that is not understood."""


class BadExpectation(RequestError, status=417):
    """An Expect header that is not 100-continue."""


class Misdirected(RequestError, status=421):
    """The request is for a host that we are not."""


class TooMany(RequestError, status=429):
    """More is kept for clients than the limit allows; later there may be room."""

    retry_after_s = 1


class HeadTooLarge(RequestError, status=431):
    """Request line and headers are over the limit."""


class ClientGone(RequestError, status=499):
    """Nobody waits for the answer any more; the status is nginx's, and no client sees it."""

    def __init__(self) -> None:
        super().__init__("the client disconnected before the request could run")


class WorkerFailed(RequestError, status=500):
    """A worker died with the request."""


class Overloaded(RequestError, status=503):
    """The queue is full, or the proxy is about to stop."""

    retry_after_s = 1


class DeadlineExceeded(RequestError, status=504):
    """The request's deadline passed before it could be run."""
