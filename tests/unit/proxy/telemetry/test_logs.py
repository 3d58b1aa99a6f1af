"""Log lines: one line each whatever a client sends, JSON that can be read, ids that are sane."""

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.errors import Overloaded
from dlbench.proxy.http.connection import HttpRequest
from dlbench.proxy.http.head import RequestHead
from dlbench.proxy.telemetry.logs import JsonFormatter, LoggedAccess, NoAccessLog, TextFormatter


class Lines(logging.Handler):
    """Keeps the records that are logged while it is there."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def lines():
    logger, handler = logging.getLogger("dlbench.access"), Lines()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.records
    logger.removeHandler(handler)
    logger.setLevel(before)


def asked(headers=None, target=b"/v2/models/mlp/infer"):
    return HttpRequest(RequestHead(b"POST", target, headers or {}), b"")


def answers():
    found = []
    return found, lambda *reply: found.append(reply)


def record(message, **extra):
    found = logging.makeLogRecord({"msg": message, "levelname": "INFO", "name": "dlbench.x"})
    vars(found).update(extra)
    return found


def test_a_request_is_noted_and_its_id_goes_back_to_the_client(lines):
    handle = LoggedAccess().around(lambda _, respond: respond(200, b"a: b\r\n", [b"body"]))
    found, respond = answers()
    handle(asked({b"x-request-id": b"client-7"}), respond)
    assert found == [(200, b"a: b\r\nx-request-id: client-7\r\n", [b"body"])]
    (line,) = lines
    assert (line.request_id, line.method, line.status) == ("client-7", "POST", 200)
    assert line.path == "/v2/models/mlp/infer"
    assert line.latency_ms >= 0


@pytest.mark.parametrize(
    "given_id", [None, b"", b"a" * 129, b"two words", b'"quoted"', b"\x1b[31m", b"caf\xc3\xa9"]
)
def test_an_id_that_is_missing_or_not_sane_is_replaced_by_one_that_is_used_once(given_id, lines):
    handle = LoggedAccess().around(lambda _, respond: respond(200, b"", []))
    _, respond = answers()
    for _ in range(3):
        handle(asked({} if given_id is None else {b"x-request-id": given_id}), respond)
    ids = {line.request_id for line in lines}
    assert len(ids) == 3
    assert all(made.isascii() and made.replace("-", "").isalnum() for made in ids)


def test_an_error_is_answered_with_the_id_and_noted_with_its_status(lines):
    def refuse(_, respond):
        raise Overloaded("the queue is full")

    found, respond = answers()
    LoggedAccess().around(refuse)(asked({b"x-request-id": b"7"}), respond)
    ((status, headers, body),) = found
    assert (status, json.loads(body[0])) == (503, {"error": "the queue is full"})
    assert b"retry-after: 1\r\n" in headers
    assert headers.endswith(b"x-request-id: 7\r\n")
    assert [line.status for line in lines] == [503]


def test_a_handler_that_breaks_is_noted_and_still_breaks(lines):
    def broken(_, respond):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        LoggedAccess().around(broken)(asked(), lambda *_: None)
    assert [line.status for line in lines] == [500]


def test_without_an_access_log_nothing_is_in_the_way():
    def handle(request, respond):
        pass

    assert NoAccessLog().around(handle) is handle


@given(st.text())
def test_a_text_line_is_one_line_without_control_characters(text):
    line = TextFormatter().format(record(text.replace("%", "")))
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in line)


@given(st.text(), st.one_of(st.text(), st.binary(), st.integers(), st.none()))
def test_a_json_line_is_one_line_that_gives_the_message_and_the_extra_fields_back(text, extra):
    line = JsonFormatter().format(record(text, request_id=extra))
    assert "\n" not in line
    found = json.loads(line)
    assert found["message"] == text
    assert found["request_id"] == (str(extra) if isinstance(extra, bytes) else extra)
    assert set(found) == {"ts", "level", "logger", "message", "request_id"}
    assert datetime.fromisoformat(found["ts"]).tzinfo == UTC


def test_the_exception_of_a_json_line_is_a_field():
    try:
        raise ValueError("bad")
    except ValueError:
        line = JsonFormatter().format(record("it broke", exc_info=sys.exc_info()))
    assert json.loads(line)["exception"].endswith("ValueError: bad")


PROGRAM = """
import asyncio, logging, sys
from dlbench.proxy.http.head import RequestHead
from dlbench.proxy.http.connection import HttpRequest
from dlbench.proxy.telemetry.logs import configure
access = configure(sys.argv[1], access=True)
access.around(lambda _, respond: respond(200, b"", []))(
    HttpRequest(RequestHead(b"GET", b"/v2\\xff", {b"x-request-id": b"7"}), b""), lambda *_: None)
logging.getLogger("dlbench.proxy.serving.supervisor").warning("worker-0 died")
logging.getLogger("asyncio").info("not ours, not worth a line")
logging.getLogger("asyncio").error("not ours, an error")
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_lines_go_to_standard_error_in_the_format_asked_for(log_format):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, log_format], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    written = done.stderr.splitlines()
    if log_format == "json":
        written = [json.loads(line)["message"] for line in written]
    assert written[0].startswith(r"GET /v2\xff 200 ")
    assert written[0].endswith(" ms 7")
    assert written[1:] == ["worker-0 died", "not ours, an error"]
