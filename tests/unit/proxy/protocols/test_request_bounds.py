"""Little input that would be much work: refused in every protocol before anything is made of it."""

import json

import numpy as np
import pytest

from dlbench.proxy.errors import LONGEST_TEXT, BadRequest, TooLarge
from dlbench.proxy.protocols import plain, tfserving, torchserve, v2
from dlbench.proxy.protocols.json_tensors import read_nested
from dlbench.proxy.protocols.v2_binary import V2Wire
from dlbench.proxy.protocols.v2_json import LONGEST_ID
from dlbench.proxy.request import MOST_EMPTY
from dlbench.proxy.serving.repository import load_parameters
from dlbench.proxy.tensors import MAX_ROWS, Signature, TensorSpec

DIMS = ("N", "T")


@pytest.fixture(scope="module")
def row_sum(numpy_model):
    """s = the sums of rows, which may be empty: both axes are open."""
    return numpy_model(
        [("x", "FP32", DIMS, 0)], [("s", "FP32", ("N",), 0)], lambda x: [x.sum(axis=1)]
    )


def v2_json(ask, model, shape, values=()):
    given = {"name": "x", "datatype": "FP32", "shape": shape, "data": list(values)}
    return ask(v2.Infer, model, {"inputs": [given]})


def v2_binary(ask, model, shape, values=()):
    raw = np.array(values, np.float32).tobytes()
    given = {"name": "x", "datatype": "FP32", "shape": shape}
    given["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [given]}).encode()
    length = b"%d" % len(head)
    return ask(v2.Infer, model, head + raw, inference_header_content_length=length)


@pytest.mark.parametrize("send", [v2_json, v2_binary])
@pytest.mark.parametrize(
    "shape",
    [
        [2**31 - 1, 0],
        [MAX_ROWS + 1, 0],
        [MOST_EMPTY + 1, 0],
        [1, 0, 2**31 - 1],
        [0, 2**31 - 1],
        [2**40, 0],
        [1] * 100_000,
    ],
)
def test_a_shape_without_elements_cannot_ask_for_much(ask, row_sum, send, shape):
    status, _, document = send(ask, row_sum, shape)
    assert status == 400, document
    assert len(document["error"]) <= LONGEST_TEXT + 1


@pytest.mark.parametrize("send", [v2_json, v2_binary])
def test_empty_rows_that_are_few_are_served(ask, row_sum, send):
    status, _, document = send(ask, row_sum, [4, 0])
    assert (status, document["outputs"][0]["data"]) == (200, [0.0] * 4)


@pytest.mark.parametrize(
    ("handler", "body"),
    [
        (tfserving.predict, lambda rows: {"instances": rows}),
        (tfserving.predict, lambda rows: {"inputs": rows}),
        (torchserve.predictions, lambda rows: rows),
        (torchserve.predictions, lambda rows: {"instances": rows}),
        (torchserve.predictions, lambda rows: {"data": rows}),
        (plain.predict, lambda rows: {"input": rows}),
        (plain.predict, lambda rows: {"inputs": {"x": rows}}),
    ],
)
def test_many_empty_rows_of_json_are_refused(ask, row_sum, numpy_models, handler, body):
    subject = numpy_models(row_sum) if handler is plain.predict else row_sum
    status, _, document = ask(handler, subject, body([[]] * (MOST_EMPTY + 1)))
    assert (status, "no elements" in document["error"]) == (400, True)
    assert ask(handler, subject, body([[]] * 3))[0] == 200


def test_the_rows_of_a_request_are_bounded(ask, numpy_model):
    model = numpy_model([("x", "BOOL", ("n",), 0)], [("y", "BOOL", ("n",), 0)], lambda x: [x])
    for rows, wanted in ((MAX_ROWS, 200), (MAX_ROWS + 1, 400)):
        given = {"name": "x", "datatype": "BOOL", "shape": [rows]}
        given["parameters"] = {"binary_data_size": rows}
        head = json.dumps({"inputs": [given], "outputs": []}).encode()
        length = b"%d" % len(head)
        status, _, document = ask(
            v2.Infer, model, head + bytes(rows), inference_header_content_length=length
        )
        assert status == wanted
    assert (
        document["error"] == f"{MAX_ROWS + 1} rows in one request; at most {MAX_ROWS} are allowed"
    )


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: [x, x], lambda x: [x, 1]])
def test_texts_never_reach_numpy(monkeypatch, wrap):
    """One long text among many short ones: NumPy would give each the room of the longest."""

    def never(*_, **__):
        raise AssertionError("NumPy was shown a text")

    monkeypatch.setattr(np, "asarray", never)
    with pytest.raises(BadRequest, match="'x'"):
        read_nested(TensorSpec("x", "FP32", ("n",)), wrap(["a" * 100_000] + [""] * 5_000))


def test_nesting_is_refused_however_deep():
    for depth in (40, 70, 1000):
        data = b"[" * depth + b"1" + b"]" * depth
        given = b'{"name": "x", "datatype": "FP32", "shape": [1], "data": %b}' % data
        body = b'{"inputs": [%b]}' % given
        spec = TensorSpec("x", "FP32", ("n",), 0)
        with pytest.raises(BadRequest):
            V2Wire("m", "1", _one(spec)).read(b"[" * 2000 + body, None)
        try:
            request = V2Wire("m", "1", _one(spec)).read(body, None)
        except BadRequest:
            continue
        assert bytes(request.data[0]) == np.float32(1).tobytes()


def test_an_id_is_echoed_only_if_it_is_short(ask, affine):
    given = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    for size, wanted in ((LONGEST_ID, 200), (LONGEST_ID + 1, 400), (3_000_000, 400)):
        status, _, document = ask(v2.Infer, affine, {"id": "i" * size, "inputs": [given]})
        assert status == wanted, document
        assert len(json.dumps(document)) < 3 * LONGEST_ID


@pytest.mark.parametrize("field", ["name", "datatype"])
def test_what_is_quoted_in_an_error_is_cut(ask, affine, field):
    given = {
        "name": "x",
        "datatype": "FP32",
        "shape": [1, 3],
        "data": [1, 2, 3],
        field: "n" * 10**6,
    }
    status, _, document = ask(v2.Infer, affine, {"inputs": [given]})
    assert (status, len(document["error"]) <= LONGEST_TEXT + 1) == (400, True)


def test_many_wanted_outputs_are_a_short_answer(ask, affine):
    given = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    status, _, document = ask(
        v2.Infer, affine, {"inputs": [given], "outputs": [{"name": "y"}] * 200_000}
    )
    assert (status, document["error"]) == (400, "output 'y' is requested twice")


def _one(spec):
    return Signature((spec,), (spec,), batchable=True)


def test_a_load_request_of_any_size_holds_up_nobody():
    with pytest.raises(TooLarge, match="65536"):
        load_parameters(b'{"parameters": [' + b"[]," * 100_000 + b"0]}")
