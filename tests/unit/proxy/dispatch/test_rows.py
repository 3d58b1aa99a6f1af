"""Batches put together and taken apart: the same rows come back, whatever the batch axis."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.dispatch.rows import gather, merge, scatter, spread
from dlbench.proxy.request import all_outputs, lay_out, make_request
from dlbench.proxy.tensors import Signature, Tensor, TensorSpec


@st.composite
def specs(draw, name):
    """A tensor of up to three axes with the batch on one of them."""
    trailing = draw(st.lists(st.integers(1, 3), max_size=2))
    axis = draw(st.integers(0, len(trailing)))
    dims = (*trailing[:axis], "batch", *trailing[axis:])
    return TensorSpec(name, "FP32", dims, axis)


def array_of(spec, rows, start):
    """Distinct numbers in the shape of `rows` rows."""
    shape = [rows if axis == spec.batch_axis else dim for axis, dim in enumerate(spec.dims)]
    return (np.arange(np.prod(shape), dtype=np.float32) + start).reshape(shape)


def request_of(signature, arrays):
    layout = lay_out(signature, tuple(a.shape for a in arrays), all_outputs(signature, binary=True))
    return make_request(signature, layout, tuple(a.tobytes() for a in arrays))


def tensor_of(array):
    return Tensor(array.shape, array.tobytes())


@settings(max_examples=150, deadline=None)
@given(specs("x"), specs("s"), st.integers(1, 9), st.integers(1, 9))
def test_what_is_spread_is_merged_again(x, s, rows, parts):
    signature = Signature((x, s), (x, s), batchable=True)
    arrays = [array_of(x, rows, 0), array_of(s, rows, 1000)]
    parts = min(parts, rows)
    pieces = spread(signature, request_of(signature, arrays), parts)
    assert sum(piece.rows for piece in pieces) == rows
    assert max(p.rows for p in pieces) - min(p.rows for p in pieces) <= 1
    outcomes = [
        tuple(Tensor(shape, data) for shape, data in zip(p.layout.shapes, p.data, strict=True))
        for p in pieces
    ]
    for tensor, array in zip(merge(signature, outcomes), arrays, strict=True):
        assert tensor.shape == array.shape
        assert bytes(tensor.data) == array.tobytes()


@settings(max_examples=100, deadline=None)
@given(specs("x"), st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_requests_get_their_own_rows_back(x, rows):
    signature = Signature((x,), (x,), batchable=True)
    arrays = [array_of(x, count, 100 * number) for number, count in enumerate(rows)]
    requests = [request_of(signature, [array]) for array in arrays]
    shapes, pieces = gather(signature, requests, sum(rows))
    assert shapes[0][x.batch_axis] == sum(rows)
    batch = Tensor(tuple(shapes[0]), b"".join(pieces))  # as a worker's result: piece after piece
    for (found,), array in zip(scatter(signature, (batch,), rows), arrays, strict=True):
        assert found.shape == array.shape
        assert bytes(found.data) == array.tobytes()


def test_a_tensor_without_a_batch_axis_goes_once_and_to_every_part():
    x, scale = TensorSpec("x", "FP32", ("n",), 0), TensorSpec("scale", "FP32", (), -1)
    signature = Signature((x, scale), (x,), batchable=True)
    one = np.float32(7).reshape(())
    requests = [request_of(signature, [array_of(x, 2, 0), one]) for _ in range(2)]
    shapes, pieces = gather(signature, requests, 4)
    assert (shapes, len(pieces)) == ([(4,), ()], 3)
    assert [bytes(p.data[1]) for p in spread(signature, requests[0], 2)] == [one.tobytes()] * 2
