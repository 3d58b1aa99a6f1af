"""Joining and splitting batches against a plain oracle: concatenate and split along the axis."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.workers.regroup import join, paired, split


@st.composite
def batches(draw):
    """Each request's own array, with the axis along which they are joined."""
    dims = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    axis = draw(st.integers(0, len(dims) - 1))
    rows = draw(st.lists(st.integers(1, 4), min_size=1, max_size=9))
    dtype = draw(st.sampled_from(["float32", "bool", "int64", "float16"]))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    shapes = [(*dims[:axis], count, *dims[axis + 1 :]) for count in rows]
    return [random.integers(0, 200, shape).astype(dtype) for shape in shapes], axis, rows


@settings(max_examples=100, deadline=None)
@given(batches())
def test_join_is_concatenate(case):
    requests, axis, rows = case
    expected = np.concatenate(requests, axis)
    pieces = np.concatenate([request.ravel() for request in requests])
    batch = np.zeros_like(expected)
    join(paired(pieces, batch, axis, rows))
    assert np.array_equal(batch, expected)


@settings(max_examples=100, deadline=None)
@given(batches())
def test_split_is_split(case):
    requests, axis, rows = case
    batch = np.ascontiguousarray(np.concatenate(requests, axis))
    pieces = np.zeros(batch.size, batch.dtype)
    split(paired(pieces, batch, axis, rows))
    parts = np.split(batch, np.cumsum(rows)[:-1], axis)
    assert np.array_equal(pieces, np.concatenate([part.ravel() for part in parts]))


@settings(max_examples=100, deadline=None)
@given(batches())
def test_nothing_is_copied_to_make_the_pairs(case):
    requests, axis, rows = case
    batch = np.ascontiguousarray(np.concatenate(requests, axis))
    pieces = np.zeros(batch.size, batch.dtype)
    for side, whole in paired(pieces, batch, axis, rows):
        assert side.shape == whole.shape
        assert not side.size or np.shares_memory(side, pieces)
        assert not whole.size or np.shares_memory(whole, batch)


def test_equal_requests_are_moved_in_one_go():
    batch = np.zeros((2, 64, 128), np.float32)
    assert len(paired(batch.ravel(), batch, 1, (1,) * 64)) == 1
    assert len(paired(batch.ravel(), batch, 1, (1,) * 60 + (2, 2))) == 2
