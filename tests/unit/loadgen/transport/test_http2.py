import contextlib

import pytest
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.transport import http2
from dlbench.loadgen.transport.http2 import Blocks, Flag, Frames, Http2Error, Http2Frame, Kind

frames = st.builds(
    Http2Frame,
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, http2.LAST_STREAM),
    st.binary(max_size=300),
)


@given(st.lists(frames, max_size=8), st.data())
def test_frames_come_out_as_they_went_in_however_they_are_cut(given_frames, draw):
    data = b"".join(http2.frame(*one) for one in given_frames)
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(data)), max_size=8)))
    reader, found = Frames(), []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        found += reader.feed(data[start:end])
    assert found == given_frames


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x40\x01" + bytes(6)])
def test_a_frame_of_more_than_was_agreed_upon(data):
    with pytest.raises(Http2Error, match="too large"):
        Frames().feed(data)


@given(st.lists(st.tuples(st.binary(max_size=400), st.binary(max_size=400)), max_size=5))
def test_hpack_reads_our_headers(headers):
    decoder = Decoder()
    assert [tuple(one) for one in decoder.decode(http2.header_block(headers), raw=True)] == headers


@pytest.mark.parametrize("size", [126, 127, 128, 254, 255, 16_510, 16_511, 60_000])
def test_lengths_at_the_edges_of_their_coding(size):
    block = http2.header_block([(b"a", b"x" * size)])
    assert Blocks().read(block) == {b"a": b"x" * size}


@given(st.dictionaries(st.integers(0, 2**16 - 1), st.integers(0, http2.LARGEST_WINDOW)))
def test_settings_come_out_as_they_went_in(values):
    (found,) = Frames().feed(http2.settings(values))
    assert dict(http2.read_settings(found.payload)) == values


@given(st.binary(max_size=60), st.integers(0, 255))
def test_padding_and_priority_are_taken_off(payload, padding):
    padded = bytes((padding,)) + payload + bytes(padding)
    assert http2.unpadded(Flag.PADDED, padded) == payload
    assert http2.unpadded(Flag.PRIORITY, bytes(5) + payload) == payload
    assert (
        http2.unpadded(Flag.PADDED | Flag.PRIORITY, padded[:1] + bytes(5) + padded[1:]) == payload
    )
    assert http2.unpadded(0, payload) == payload


@pytest.mark.parametrize("payload", [b"", b"\5", b"\5abcd"])
def test_more_padding_than_frame(payload):
    with pytest.raises(Http2Error, match="padding"):
        http2.unpadded(Flag.PADDED, payload)


@given(st.binary(max_size=100))
def test_no_block_does_more_than_raise(block):
    with contextlib.suppress(Http2Error):
        Blocks().read(block)


def test_blocks_need_no_table():
    """A reference to what an earlier block would have left in a table is an error, not a guess."""
    remembered = b"\x40\x01a\x01b"
    blocks = Blocks()
    assert blocks.read(remembered) == {b"a": b"b"}
    with pytest.raises(Http2Error):
        blocks.read(b"\xbe")


def test_blocks_that_always_differ_do_not_fill_the_memory():
    blocks = Blocks()
    for number in range(3000):
        blocks.read(http2.header_block([(b"id", b"%d" % number)]))
    assert len(blocks._known) <= http2.BLOCKS_LIMIT


def test_reasons_have_names():
    assert http2.reason(8) == "CANCEL"
    assert http2.reason(99) == "error 99"
    assert Kind.PING == 6
