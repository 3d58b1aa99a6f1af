"""What model files declare, read without running them."""

import pytest

from dlbench.proxy.errors import ModelError
from dlbench.results.deploy.onnx_tensors import declared


def test_the_batch_is_found_by_its_symbol(models):
    (x, state), (y, after) = declared(models.second_axis(), {})
    assert (x.name, x.datatype, x.shape, x.batch_axis) == ("x", "FP32", [-1, 3], 0)
    assert (state.shape, state.batch_axis) == ([2, -1, 4], 1)
    assert (y.batch_axis, after.batch_axis) == (0, 1)


def test_what_was_said_of_an_axis_wins(models):
    (x,), (y,) = declared(models.affine(), {"y": -1})
    assert (x.batch_axis, y.batch_axis) == (0, -1)


def test_minus_one_is_an_open_size(models):
    (x,), _ = declared(models.affine("minus_one", (-1, 3)), {})
    assert (x.shape, x.batch_axis) == ([-1, 3], 0)


def test_a_fixed_batch_is_none(models):
    (x,), (y,) = declared(models.fixed(), {})
    assert (x.shape, x.batch_axis, y.batch_axis) == ([1, 3], -1, -1)


def test_types_are_those_of_the_protocol(models):
    _, outputs = declared(models.kinds(), {})
    assert [t.datatype for t in outputs] == ["BOOL", "FP16"]
    (i,), _ = declared(models.picky(), {})
    assert (i.datatype, i.shape) == ("INT64", [-1])


def test_what_is_no_model_is_refused_in_a_line(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match="is an incomplete ONNX model"):
        declared(path, {})
