"""Content codings: what is taken off, what is put on, and how much of it at most."""

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.errors import BadEncoding, BadRequest, TooLarge
from dlbench.proxy.http.encoding import REPLY_CODINGS, accepted_coding, packed, unpacked

PACK = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}


@settings(derandomize=True, deadline=None)
@given(st.binary(max_size=5000), st.lists(st.sampled_from(sorted(PACK)), max_size=2))
def test_what_was_packed_comes_out(body, names):
    wire = body
    for name in names:
        wire = PACK[name](wire)
    assert unpacked(wire, ", ".join(names).upper().encode(), 5000) == body


@settings(derandomize=True, deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=4), st.sampled_from(sorted(REPLY_CODINGS)))
def test_what_we_pack_anybody_can_unpack(pieces, coding):
    body = packed(coding, [memoryview(piece) for piece in pieces])
    assert unpacked(body, coding, 20_000) == b"".join(pieces)


@pytest.mark.parametrize("encodings", ["gzip", "deflate", "gzip, deflate"])
def test_a_bomb_is_not_unpacked(encodings):
    bomb = bytes(1 << 20)
    for name in encodings.split(", "):
        bomb = PACK[name](bomb)
    with pytest.raises(TooLarge, match="more than 1000"):
        unpacked(bomb, encodings.encode(), 1000)


@settings(derandomize=True, deadline=None)
@given(st.binary(max_size=100), st.sampled_from([b"gzip", b"deflate", b"deflate, gzip"]))
def test_anything_else_is_a_bad_request(body, encodings):
    with pytest.raises(BadRequest):
        unpacked(body, encodings, 1000)


@pytest.mark.parametrize(
    ("encodings", "text"),
    [
        (b"br", "br is not supported; use gzip or deflate"),
        (b"gzip, gzip, gzip", "more than 2"),
        (b"gzip, x", "x is not supported"),
    ],
)
def test_unknown_codings_and_too_many(encodings, text):
    with pytest.raises(BadEncoding, match=text):
        unpacked(b"x", encodings, 1000)


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (b"", None),
        (b"gzip", b"gzip"),
        (b"GZIP ; Q=0.5", b"gzip"),
        (b"deflate", b"deflate"),
        (b"gzip, deflate, br", b"gzip"),
        (b"deflate, gzip;q=0.9", b"deflate"),
        (b"*", b"gzip"),
        (b"gzip;q=0, *", b"deflate"),
        (b"*;q=0", None),
        (b"identity", None),
        (b"identity;q=1, gzip;q=0.5", None),
        (b"identity;q=0.5, gzip;q=0.5", b"gzip"),
        (b"br;q=1.0", None),
        (b"gzip;q=nan, deflate;q=2", None),
        (b"gzip;quality", None),
        (b",;,=;q", None),
    ],
)
def test_the_coding_that_the_client_likes_best(accept, coding):
    assert accepted_coding(accept) == coding


@settings(derandomize=True)
@given(st.binary(max_size=50))
def test_any_header_is_read_without_a_fault(accept):
    assert accepted_coding(accept) in (None, *REPLY_CODINGS)
