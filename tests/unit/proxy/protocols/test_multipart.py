"""Forms as curl, httpx and browsers send them; what is not a form is refused within bounds."""

import contextlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.protocols.multipart import MOST_PARTS, parts

CURL = b"multipart/form-data; boundary=------------------------d74496d66958873e"


def form(boundary, *pieces, end=b"--\r\n"):
    """Parts as (head lines, content)."""
    text = b"".join(b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, h, c) for h, c in pieces)
    return text + b"--" + boundary + end


def named(name, more=b""):
    return b'Content-Disposition: form-data; name="%b"%b' % (name, more)


@given(
    st.dictionaries(
        st.text("abXY019_-.;=,: ", min_size=1).filter(lambda name: name == name.strip()),
        st.binary(max_size=200),
        min_size=1,
        max_size=3,
    )
)
def test_httpx_forms_are_read_byte_for_byte(files):
    request = httpx.Request("POST", "http://h", files={n: ("f", c) for n, c in files.items()})
    found = parts(request.headers["content-type"].encode(), request.read())
    assert [(one.name, bytes(one.content)) for one in found] == list(files.items())


def test_what_curl_sends():
    boundary = b"------------------------d74496d66958873e"
    head = named(b"data", b'; filename="kitten.jpg"') + b"\r\nContent-Type: image/jpeg"
    content = bytes(range(256)) * 4 + b"\r\n--almost" + boundary[:-1] + b"\r\n"
    (part,) = parts(CURL, form(boundary, (head, content)))
    assert (part.name, part.content_type, bytes(part.content)) == ("data", b"image/jpeg", content)


@pytest.mark.parametrize(
    "text", ["boundary=b", 'boundary="b"', "charset=utf-8; boundary=b", "BOUNDARY=b"]
)
def test_boundaries_in_quotes_and_out(text):
    (part,) = parts(b"multipart/form-data; " + text.encode(), form(b"b", (named(b"data"), b"1")))
    assert (part.name, part.content_type, bytes(part.content)) == ("data", b"", b"1")


def test_empty_content_preamble_epilogue_and_padding():
    body = (
        b"hello\r\n" + form(b"b", (named(b"data"), b"")).replace(b"--b\r\n", b"--b \t\r\n") + b"bye"
    )
    (part,) = parts(b"multipart/form-data; boundary=b", body)
    assert (part.name, bytes(part.content)) == ("data", b"")


ONE = (named(b"data"), b"1")
BROKEN = {
    "no boundary": (b"multipart/form-data", form(b"b", ONE)),
    "an empty boundary": (b'multipart/form-data; boundary=""', form(b"", ONE)),
    "a boundary without end": (b"multipart/form-data; boundary=" + b"b" * 71, form(b"b" * 71, ONE)),
    "another boundary": (CURL, form(b"b", ONE)),
    "nothing": (CURL, b""),
    "cut off in the content": (b"multipart/form-data; boundary=b", form(b"b", ONE)[:-6]),
    "cut off in the head": (
        b"multipart/form-data; boundary=b",
        b"--b\r\nContent-Disposition: form",
    ),
    "no end": (b"multipart/form-data; boundary=b", form(b"b", ONE, end=b"")),
    "no name": (b"multipart/form-data; boundary=b", form(b"b", (b"X: y", b"1"))),
    "a name elsewhere": (
        b"multipart/form-data; boundary=b",
        form(b"b", (b'Content-Disposition: attachment; name="data"', b"1")),
    ),
    "an endless head": (b"multipart/form-data; boundary=b", form(b"b", (named(b"a" * 9000), b"1"))),
    "too many parts": (b"multipart/form-data; boundary=b", form(b"b", *[ONE] * (MOST_PARTS + 1))),
    "base64": (
        b"multipart/form-data; boundary=b",
        form(b"b", (named(b"data") + b"\r\nContent-Transfer-Encoding: base64", b"MQ==")),
    ),
    "line feeds alone": (
        b"multipart/form-data; boundary=b",
        form(b"b", ONE).replace(b"\r\n", b"\n"),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_a_form_is_refused(case):
    with pytest.raises(BadRequest, match="form"):
        parts(*BROKEN[case])


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_anything_is_a_form_or_refused(body, kind):
    for content_type in (b"multipart/form-data; boundary=b", b"multipart/form-data; " + kind):
        with contextlib.suppress(BadRequest):
            parts(content_type, b"--b\r\n" + body)
