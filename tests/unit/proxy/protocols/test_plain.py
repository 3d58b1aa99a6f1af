"""POST /predict: what goes in with a batch axis comes out with it, and without it without."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.protocols.plain import predict

ROW = st.lists(st.floats(width=32, min_value=-1e6, max_value=1e6), min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=4))
def test_rows_and_a_lone_row(affine, numpy_models, ask, rows):
    models = numpy_models(affine)
    expected = (2 * np.array(rows, np.float32) + 1).tolist()
    assert ask(predict, models, {"input": rows})[2] == {"output": expected}
    assert ask(predict, models, {"input": rows[0]})[2] == {"output": expected[0]}
    assert ask(predict, models, {"inputs": {"x": rows}})[2] == {"outputs": {"y": expected}}


def test_several_inputs_with_and_without_their_batch_axes(recurrent, numpy_models, ask):
    models = numpy_models(recurrent)
    rows = {"x": [[1, 2, 3]], "state": [[[10]], [[20]]], "scale": 2}
    assert ask(predict, models, {"inputs": rows})[2] == {
        "outputs": {"y": [12.0], "next": [[[16.0]], [[26.0]]]}
    }
    lone = {"x": [1, 2, 3], "state": [[10], [20]], "scale": 2}
    assert ask(predict, models, {"inputs": lone})[2] == {
        "outputs": {"y": 12.0, "next": [[16.0], [26.0]]}
    }
    mixed = {"x": [1, 2, 3], "state": [[[10]], [[20]]], "scale": 2}
    assert ask(predict, models, {"inputs": mixed})[0] == 400


def test_models_of_batch_one(total, numpy_models, numpy_model, ask):
    row = ("FP32", (1, 3), -1)
    fixed = numpy_models(numpy_model([("x", *row)], [("y", *row)], lambda x: [x]))
    assert ask(predict, fixed, {"input": [1, 2, 3]})[2] == {"output": [1.0, 2.0, 3.0]}
    assert ask(predict, fixed, {"input": [[1, 2, 3]]})[2] == {"output": [[1.0, 2.0, 3.0]]}
    assert ask(predict, numpy_models(total), {"input": [1, 2, 3]})[2] == {"output": 6.0}


def test_the_body_names_one_of_several_models(affine, numpy_models, numpy_model, ask):
    row = ("FP32", ("n", 3), 0)
    other = numpy_model([("x", *row)], [("y", *row)], lambda x: [-x], name="other")
    models = numpy_models(affine, other)
    body = {"input": [1, 2, 3]}
    assert ask(predict, models, {**body, "model": "other"})[2] == {"output": [-1.0, -2.0, -3.0]}
    assert ask(predict, models, {**body, "model": "m"})[2] == {"output": [3.0, 5.0, 7.0]}
    assert ask(predict, models, {**body, "model": "third"})[0] == 404
    code, _, reply = ask(predict, models, body)
    assert (code, "m, other" in reply["error"]) == (400, True)
    assert ask(predict, models, {**body, "model": 7})[0] == 400


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, '"input"'),
        ({"input": [1, 2, 3], "inputs": {}}, '"input"'),
        ({"input": [1, 2]}, "'x'"),
        ({"input": 7}, "'x'"),
        ({"input": ["a", "b", "c"]}, "'x'"),
        ({"inputs": {"z": [1, 2, 3]}}, "'x' is missing"),
        (b"[1, 2, 3]", "object"),
    ],
)
def test_what_makes_no_sense_is_refused_and_says_why(affine, numpy_models, ask, body, says):
    code, _, reply = ask(predict, numpy_models(affine), body)
    assert code == 400
    assert says in reply["error"]
