"""Log lines on standard error, as text or as JSON, and one for each request if that is wanted."""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Protocol

from dlbench.proxy.clock import now_ns
from dlbench.proxy.errors import RequestError
from dlbench.proxy.http.reply import error_reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.http.connection import HttpRequest, Respond
    from dlbench.proxy.http.reply import Body

    Handle = Callable[[HttpRequest, Respond], None]

LOG = logging.getLogger("dlbench.access")

NS_PER_MS = 1e6
# What a client's id may be: it is echoed in a header and written into log files.
SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
# What every record has; the rest came as `extra`.
STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# A client must not write lines of its own, nor talk to the terminal that shows them.
CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


class TextFormatter(logging.Formatter):
    """The message on one line; a traceback follows below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return record.message.translate(CONTROL_CHARACTERS)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ts, level, logger, message, whatever came as `extra`, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in STANDARD_FIELDS}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


FORMATTERS: dict[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


class AccessLog(Protocol):
    """What is noted of each request."""

    def around(self, handle: Handle) -> Handle:
        """A handler that does what `handle` does, and notes it."""


class NoAccessLog:
    """Nothing is noted, and nothing is in the way."""

    def around(self, handle: Handle) -> Handle:
        return handle


class LoggedAccess:
    """One line per request; its id goes back to the client as `x-request-id`.

    A client's own id is kept if it is sane, otherwise one is made: a prefix of this process and a
    number. `latency_ms` counts from the complete request to the reply.
    """

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4).encode()
        self._numbers = count(1)

    def around(self, handle: Handle) -> Handle:
        """A handler that does what `handle` does, and notes it."""

        def logged(request: HttpRequest, respond: Respond) -> None:
            request_id, since_ns = self._id(request), now_ns()

            def answer(status: int, headers: bytes, body: Body) -> None:
                respond(status, b"%bx-request-id: %b\r\n" % (headers, request_id), body)
                _note(request, request_id, status, now_ns() - since_ns)

            try:
                handle(request, answer)
            except RequestError as error:
                answer(error.status, *error_reply(error))
            except Exception:
                _note(request, request_id, 500, now_ns() - since_ns)
                raise

        return logged

    def _id(self, request: HttpRequest) -> bytes:
        given = request.headers.get(b"x-request-id")
        if given is not None and SANE_ID.fullmatch(given):
            return given
        return b"%b-%x" % (self._prefix, next(self._numbers))


def configure(log_format: str, *, access: bool) -> AccessLog:
    """Log to standard error from now on, our own lines from INFO, others' from WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATTERS[log_format]())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("dlbench").setLevel(logging.INFO)
    return LoggedAccess() if access else NoAccessLog()


def _note(request: HttpRequest, request_id: bytes, status: int, latency_ns: int) -> None:
    method, path = request.method.decode(), request.target.decode("ascii", "backslashreplace")
    latency_ms = round(latency_ns / NS_PER_MS, 3)
    shown_id = request_id.decode()
    LOG.info(
        "%s %s %d %.3f ms %s",
        method,
        path,
        status,
        latency_ms,
        shown_id,
        extra={
            "request_id": shown_id,
            "method": method,
            "path": path,
            "status": status,
            "latency_ms": latency_ms,
        },
    )
