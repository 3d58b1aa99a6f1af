"""TensorFlow Serving's row and column formats, status and metadata."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.protocols.instances import write_instances
from dlbench.proxy.protocols.tfserving import ROUTES, metadata, predict, status
from dlbench.proxy.tensors import Signature, Tensor, TensorSpec

ROWS = st.lists(
    st.lists(st.floats(width=32, min_value=-1e6, max_value=1e6), min_size=3, max_size=3),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_rows_and_columns_give_the_same_values(affine, ask, rows):
    expected = (2 * np.array(rows, np.float32) + 1).tolist()
    assert ask(predict, affine, {"instances": rows})[2] == {"predictions": expected}
    assert ask(predict, affine, {"inputs": rows})[2] == {"outputs": expected}
    named = {"signature_name": "serving_default", "inputs": {"x": rows}}
    assert ask(predict, affine, named)[2] == {"outputs": expected}
    assert ask(predict, affine, {"instances": [{"x": row} for row in rows]})[2] == {
        "predictions": expected
    }


def test_several_inputs_are_objects_in_rows_whatever_their_batch_axis(recurrent, ask):
    instances = [
        {"x": [1, 2, 3], "state": [[10], [20]], "scale": 2},
        {"x": [4, 5, 6], "state": [[30], [40]], "scale": 2},
    ]
    assert ask(predict, recurrent, {"instances": instances})[2] == {
        "predictions": [
            {"y": 12.0, "next": [[16.0], [26.0]]},
            {"y": 30.0, "next": [[45.0], [55.0]]},
        ]
    }
    columns = {"x": [[1, 2, 3], [4, 5, 6]], "state": [[[10], [30]], [[20], [40]]], "scale": 2}
    assert ask(predict, recurrent, {"inputs": columns})[2] == {
        "outputs": {"y": [12.0, 30.0], "next": [[[16.0], [45.0]], [[26.0], [55.0]]]}
    }


def test_an_output_for_the_whole_batch_comes_in_columns_only(total, ask):
    rows = [[1, 2, 3], [4, 5, 6]]
    assert ask(predict, total, {"inputs": rows})[2] == {"outputs": 21.0}
    code, _, reply = ask(predict, total, {"instances": rows})
    assert (code, "'y'" in reply["error"]) == (400, True)


def test_a_model_nailed_to_one_row_takes_one_instance(numpy_model, ask):
    row = ("FP32", (1, 3), -1)
    fixed = numpy_model([("x", *row)], [("y", *row)], lambda x: [x])
    assert ask(predict, fixed, {"instances": [[1, 2, 3]]})[2] == {"predictions": [[1.0, 2.0, 3.0]]}
    assert ask(predict, fixed, {"instances": [{"x": [1, 2, 3]}]})[0] == 200
    assert ask(predict, fixed, {"instances": [[1, 2, 3], [4, 5, 6]]})[0] == 400


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "'instances'"),
        ({"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}, "not both"),
        ({"instances": []}, "at least one row"),
        ({"instances": 7}, "at least one row"),
        ({"instances": [7]}, "'x'"),
        ({"instances": [[1, 2]]}, "'x'"),
        ({"instances": [[1, 2, "3"]]}, "'x'"),
        ({"instances": [[1, 2, 3], [1]]}, "'x'"),
        ({"instances": [{"z": [1, 2, 3]}]}, "'x' is missing"),
        ({"inputs": {"x": [[1, 2, 3]], "z": 1}}, "no input 'z'"),
        ({"instances": [{"b64": "AAAA"}]}, "b64"),
        ({"instances": [{"x": {"b64": "AAAA"}}]}, "b64"),
        ({"inputs": [[1, 2, 3]], "signature_name": "other"}, "'other'"),
        (b"[1]", "object"),
        (b"{", "not valid JSON"),
    ],
)
def test_what_makes_no_sense_is_refused_and_says_why(affine, ask, body, says):
    code, _, reply = ask(predict, affine, body)
    assert (code, list(reply)) == (400, ["error"])
    assert says in reply["error"]


def test_inputs_that_disagree_are_refused(recurrent, ask):
    bodies = [
        {"inputs": {"x": [[1, 2, 3]], "state": [[[1], [2]], [[1], [2]]], "scale": 1}},
        {"inputs": [[1, 2, 3]]},
        {"instances": [{"x": [1, 2, 3], "state": [[1], [1]], "scale": scale} for scale in (1, 2)]},
    ]
    assert [ask(predict, recurrent, body)[0] for body in bodies] == [400, 400, 400]


def test_status_and_metadata(affine, ask):
    (served,) = ask(status, affine)[2]["model_version_status"]
    assert (served["version"], served["state"]) == ("1", "AVAILABLE")
    document = ask(metadata, affine)[2]
    assert document["model_spec"] == {"name": "m", "signature_name": "", "version": "1"}
    definition = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert definition["inputs"]["x"]["dtype"] == "DT_FLOAT"
    sizes = [dim["size"] for dim in definition["outputs"]["y"]["tensor_shape"]["dim"]]
    assert sizes == ["-1", "3"]


def test_paths_exist_with_and_without_a_version():
    assert ROUTES["/v1/models/{name}:predict"] == (b"POST", predict)
    assert ROUTES["/v1/models/{name}/versions/{version}:predict"] == (b"POST", predict)
    assert ROUTES["/v1/models/{name}/versions/{version}/metadata"] == (b"GET", metadata)
    assert len(ROUTES) == 6


@pytest.mark.parametrize("scale", [2, [2]])
def test_a_scalar_may_be_sent_as_a_list_of_one(recurrent, ask, scale):
    """A value alone, or in a list as other formats cannot help sending it."""
    instances = [{"x": [1, 2, 3], "state": [[10], [20]], "scale": scale}] * 2
    status, _, reply = ask(predict, recurrent, {"instances": instances})
    assert (status, [row["y"] for row in reply["predictions"]]) == (200, [12.0, 12.0])
    columns = {"x": [[1, 2, 3]], "state": [[[10]], [[20]]], "scale": scale}
    assert ask(predict, recurrent, {"inputs": columns})[2]["outputs"]["y"] == [12.0]


def rows_of(dims, shape, count):
    """The rows of an output of a model that takes one request at a time."""
    x, y = TensorSpec("x", "FP32", ("n", 4)), TensorSpec("y", "FP32", dims)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    signature = Signature((x,), (y,), batchable=False)
    return write_instances(signature, (Tensor(shape, values.tobytes()),), count), values


def test_an_axis_that_is_as_long_as_the_rows_by_chance_is_not_theirs():
    with pytest.raises(BadRequest, match="no row per instance"):
        rows_of((3, "n"), (3, 3), 3)


@pytest.mark.parametrize(("dims", "count"), [(("n", 2), 3), (("m", 2), 3), ((1, 2), 1)])
def test_a_model_without_a_batch_axis_has_its_rows_first(dims, count):
    rows, values = rows_of(dims, (count, 2), count)
    np.testing.assert_array_equal(rows, values)
