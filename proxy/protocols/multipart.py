"""Bodies of multipart/form-data (RFC 7578), as `curl -F` and web forms send them. Pure."""

from __future__ import annotations

from email.message import Message
from email.parser import BytesHeaderParser
from typing import NamedTuple

from dlbench.proxy.errors import BadRequest

MULTIPART_TYPE = b"multipart/form-data"
# A form for a model has one part; every one more costs its head to be read.
MOST_PARTS = 16
LONGEST_HEAD = 4096
# RFC 2046, 5.1.1.
LONGEST_BOUNDARY = 70
PLAIN_ENCODINGS = ("", "7bit", "8bit", "binary")


class Part(NamedTuple):
    """One field of a form; `content_type` is empty where the client does not say it."""

    name: str
    content_type: bytes
    content: memoryview


def parts(content_type: bytes, body: bytes) -> list[Part]:
    """The fields of a form, in its order, without a copy of their contents.

    Raises:
        BadRequest: it is not one, or has too many fields or too long heads.
    """
    line = b"--" + _boundary(content_type)
    at = 0 if body.startswith(line) else _found(body, b"\r\n" + line, 0) + 2
    at += len(line)
    parsed: list[Part] = []
    while body[at : at + 2] != b"--":
        if len(parsed) == MOST_PARTS:
            raise BadRequest(f"the form has more than {MOST_PARTS} parts")
        head_end = _found(body, b"\r\n\r\n", at, at + LONGEST_HEAD)
        end = _found(body, b"\r\n" + line, head_end + 4)
        parsed.append(_part(body[at:head_end], memoryview(body)[head_end + 4 : end]))
        at = end + 2 + len(line)
    return parsed


def _boundary(content_type: bytes) -> bytes:
    head = Message()
    head["content-type"] = content_type.decode("latin-1")
    boundary = (head.get_boundary() or "").encode("latin-1", "replace")
    if not 0 < len(boundary) <= LONGEST_BOUNDARY:
        raise BadRequest("the form's Content-Type has no usable boundary")
    return boundary


def _part(head: bytes, content: memoryview) -> Part:
    """A part whose head begins with the rest of its boundary's line."""
    padding, line_ends, lines = head.partition(b"\r\n")
    fields = BytesHeaderParser().parsebytes(lines)
    name = fields.get_param("name", header="content-disposition")
    is_field = fields.get_content_disposition() == "form-data"
    if padding.strip(b" \t") or not line_ends or not is_field or not isinstance(name, str):
        raise BadRequest("a part of the form has no name: Content-Disposition: form-data; name=…")
    encoding = str(fields.get("content-transfer-encoding", "")).strip().lower()
    if encoding not in PLAIN_ENCODINGS:
        raise BadRequest(f"part {name!r} of the form is sent as {encoding}; send plain bytes")
    return Part(name, str(fields.get("content-type", "")).encode("latin-1", "replace"), content)


def _found(body: bytes, what: bytes, start: int, end: int | None = None) -> int:
    at = body.find(what, start, end)
    if at < 0:
        raise BadRequest("the form is malformed: a part has no end or no headers")
    return at
