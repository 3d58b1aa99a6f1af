"""JSON in pieces is the JSON that is written at once, and no piece is large."""

import json

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dlbench.proxy.http.reply import Stream
from dlbench.proxy.protocols import plain, tfserving, torchserve, v2
from dlbench.proxy.protocols.json_reply import AT_ONCE_BYTES, PIECE_BYTES, body, pieces, weight
from dlbench.proxy.tensors import Tensor

ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.int64, np.bool_]),
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
    elements={"allow_nan": False, "allow_infinity": False},
)
DOCUMENTS = st.recursive(
    st.none() | st.integers(-5, 5) | st.text(max_size=3) | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def plainly(value):
    """The document as lists; floats as doubles, which is how they are written."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float64).tolist() if value.dtype.kind == "f" else value.tolist()
    if isinstance(value, list):
        return [plainly(one) for one in value]
    if isinstance(value, dict):
        return {name: plainly(one) for name, one in value.items()}
    return value


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS)
def test_pieces_are_the_document(document):
    assert orjson.loads(b"".join(pieces(document))) == plainly(document)


@pytest.mark.parametrize(
    "shape", [(300_000,), (300_000, 1), (1, 300_000), (3, 100_000), (100, 3, 1000), (200_000, 0)]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_are_many_small_pieces(shape, order):
    array = np.asarray(np.random.default_rng(0).random(shape), np.float32, order=order)
    found = list(pieces({"data": array}))
    assert json.loads(b"".join(found)) == {"data": array.tolist()}
    assert max(map(len, found)) <= 2 * PIECE_BYTES


def test_what_is_light_is_written_at_once_and_what_is_heavy_again_and_again():
    light = Tensor((4,), bytes(AT_ONCE_BYTES))
    heavy = [light, Tensor((1,), bytes(4))]
    assert weight([Tensor((1000, 0, 3), b"")]) == 3000
    assert body(lambda: {"a": 1}, weight([light])) == [b'{"a":1}']
    stream = body(lambda: {"a": np.arange(3)}, weight(heavy))
    assert isinstance(stream, Stream)
    assert stream.size == AT_ONCE_BYTES + 4
    assert [b"".join(stream), b"".join(stream)] == [b'{"a":[0,1,2]}'] * 2


def test_an_error_is_known_before_a_reply_begins():
    def make():
        raise KeyError("y")

    with pytest.raises(KeyError):
        body(make, 10 * AT_ONCE_BYTES)


@pytest.fixture(scope="module")
def wide(numpy_model):
    """Two outputs of many columns, and one that has its rows on axis 1."""
    return numpy_model(
        [("x", "FP32", ("n", "t"), 0)],
        [("y", "FP32", ("n", "t"), 0), ("z", "FP32", (2, "n"), 1)],
        lambda x: [x + np.float32(0.1), np.stack([x[:, 0], x[:, -1]])],
    )


ROWS = np.random.default_rng(1).random((3, 50_000)).astype(np.float32)


@pytest.mark.parametrize("count", [3, 50_000])
def test_every_protocol_gives_the_same_numbers_in_pieces(ask, wide, numpy_models, count):
    """Large both ways: read in the process beside, written while it is sent."""
    rows = ROWS.reshape(count, -1)
    y = (rows + np.float32(0.1)).tolist()
    z = np.stack([rows[:, 0], rows[:, -1]])
    given = {"name": "x", "datatype": "FP32", "shape": rows.shape, "data": rows.tolist()}
    status, _, found = ask(v2.Infer, wide, {"inputs": [given], "outputs": [{"name": "y"}]})
    assert (status, found["outputs"][0]["data"]) == (200, np.ravel(y).tolist())
    by_row = [{"y": a, "z": b} for a, b in zip(y, z.T.tolist(), strict=True)]
    instances = {"instances": rows.tolist()}
    assert ask(tfserving.predict, wide, instances)[2] == {"predictions": by_row}
    assert ask(torchserve.predictions, wide, rows.tolist())[2] == by_row
    found = ask(plain.predict, numpy_models(wide), {"input": rows.tolist()})[2]
    assert found == {"outputs": {"y": y, "z": z.tolist()}}


def test_many_numbers_beside_binary_ones_are_refused(ask, wide):
    rows = np.ones((1, 400_000), np.float32)
    given = {"name": "x", "datatype": "FP32", "shape": rows.shape}
    given["parameters"] = {"binary_data_size": rows.nbytes}
    outputs = [{"name": "y"}, {"name": "z", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [given], "outputs": outputs}).encode()
    status, _, found = ask(
        v2.Infer,
        wide,
        head + rows.tobytes(),
        inference_header_content_length=b"%d" % len(head),
    )
    assert (status, "beside binary ones" in found["error"]) == (400, True)
