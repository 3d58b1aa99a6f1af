"""Answers as bytes: what was encoded comes back, and nothing else ever does."""

from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.cache_value import decode, encode
from dlbench.proxy.tensors import Tensor

tensors = st.builds(
    Tensor,
    st.lists(st.integers(0, 2**63), max_size=5).map(tuple),
    st.binary(max_size=50) | st.binary(max_size=50).map(memoryview),
)
answers = st.lists(tensors, max_size=4).map(tuple)


@given(answers)
def test_what_was_encoded_comes_back(outputs):
    assert decode(encode(outputs)) == outputs


@settings(max_examples=80)
@given(answers, st.data())
def test_one_changed_byte_is_a_miss(outputs, data):
    value = bytearray(encode(outputs))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    assert decode(bytes(value)) is None


@settings(max_examples=80)
@given(answers, st.data())
def test_a_part_of_a_value_or_more_than_it_is_a_miss(outputs, data):
    value = encode(outputs)
    assert decode(value[: data.draw(st.integers(0, len(value) - 1))]) is None
    assert decode(value + data.draw(st.binary(min_size=1, max_size=9))) is None


@given(st.binary(max_size=200))
def test_garbage_is_a_miss(value):
    assert decode(value) is None


@settings(max_examples=500)
@given(st.binary(min_size=1, max_size=60))
def test_garbage_behind_a_right_head_and_sum_raises_nothing(body):
    outputs = decode(b"DLBC\x01" + crc32(body).to_bytes(4, "little") + body)
    assert outputs is None or encode(outputs)[9:] == body


def test_another_version_is_a_miss():
    value = bytearray(encode((Tensor((1,), b"x"),)))
    value[4] += 1
    assert decode(bytes(value)) is None


def test_the_first_version_stays_as_it_is():
    """Proxies of two releases may share a server."""
    assert encode((Tensor((1, 2), b"ab"),)).hex() == (
        "444c424301cdfbbb6501020100000000000000020000000000000002000000000000006162"
    )
