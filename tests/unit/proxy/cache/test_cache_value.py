"""Answers as bytes: what was encoded comes back, and nothing else ever does."""

from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.cache.cache_value import decode, encode, fits
from dlbench.proxy.tensors import Signature, Tensor, TensorSpec

KEY = b"a key of any sort"

tensors = st.builds(
    Tensor,
    st.lists(st.integers(0, 2**63), max_size=5).map(tuple),
    st.binary(max_size=50) | st.binary(max_size=50).map(memoryview),
)
answers = st.lists(tensors, max_size=4).map(tuple)


@given(answers)
def test_what_was_encoded_comes_back(outputs):
    assert decode(KEY, encode(KEY, outputs)) == outputs


@settings(max_examples=80)
@given(answers, st.data())
def test_one_changed_byte_is_a_miss(outputs, data):
    value = bytearray(encode(KEY, outputs))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    assert decode(KEY, bytes(value)) is None


@settings(max_examples=80)
@given(answers, st.data())
def test_a_part_of_a_value_or_more_than_it_is_a_miss(outputs, data):
    value = encode(KEY, outputs)
    assert decode(KEY, value[: data.draw(st.integers(0, len(value) - 1))]) is None
    assert decode(KEY, value + data.draw(st.binary(min_size=1, max_size=9))) is None


@given(st.binary(max_size=200))
def test_garbage_is_a_miss(value):
    assert decode(KEY, value) is None


@settings(max_examples=500)
@given(st.binary(min_size=1, max_size=60))
def test_garbage_behind_a_right_head_and_sum_raises_nothing(body):
    outputs = decode(KEY, b"DLBC\x02" + crc32(KEY + body).to_bytes(4, "little") + body)
    assert outputs is None or encode(KEY, outputs)[9:] == body


def test_another_version_is_a_miss():
    value = bytearray(encode(KEY, (Tensor((1,), b"x"),)))
    value[4] += 1
    assert decode(KEY, bytes(value)) is None


def test_the_value_of_another_key_is_a_miss():
    """Of the same shape, and whole: only that it is another request's, or another model's."""
    assert decode(b"another key", encode(KEY, (Tensor((1,), b"x"),))) is None


def test_this_version_stays_as_it_is():
    """Proxies of two releases may share a server."""
    assert encode(KEY, (Tensor((1, 2), b"ab"),)).hex() == (
        "444c4243022d02b21e01020100000000000000020000000000000002000000000000006162"
    )


ROWS = Signature(
    (TensorSpec("x", "FP32", ("n", 3), 0),),
    (TensorSpec("y", "FP32", ("n", 3), 0), TensorSpec("z", "INT64", ("w", "n"), 1)),
    batchable=True,
)
Y, Z = Tensor((2, 3), bytes(24)), Tensor((5, 2), bytes(80))


def test_what_the_model_may_have_given_fits():
    assert fits(ROWS, (Y, Z), 2)
    single = Signature(ROWS.inputs, (TensorSpec("y", "BOOL", ("", 2)),), batchable=False)
    assert fits(single, (Tensor((7, 2), bytes(14)),), 2)


@pytest.mark.parametrize(
    "outputs",
    [
        (),
        (Y,),
        (Y, Z, Z),
        (Z, Y),
        (Tensor((3, 3), bytes(36)), Z),  # other rows
        (Y, Tensor((5, 3), bytes(120))),
        (Tensor((2, 4), bytes(32)), Z),  # another width
        (Tensor((2, 3, 1), bytes(24)), Z),  # another rank
        (Tensor((), bytes(4)), Z),
        (Tensor((2, 3), bytes(23)), Z),  # bytes that are not the shape's
        (Y, Tensor((2**62, 2), bytes(80))),
    ],
)
def test_what_it_cannot_have_given_does_not(outputs):
    assert not fits(ROWS, outputs, 2)
