"""Models whose rows depend on each other are found out; noise and refusals are not held against one."""

import numpy as np
import pytest

from dlbench.proxy.independence import coupled_output
from dlbench.proxy.tensors import Signature, TensorSpec

ROW = [(1, 3)]
STATE = [(1, 3), (2, 1, 3)]


def signature(axes=(0,), output_axis=0, datatype="FP32"):
    inputs = tuple(
        TensorSpec(f"x{i}", "FP32", ("n", 3) if axis < 1 else (2, "n", 3), axis)
        for i, axis in enumerate(axes)
    )
    return Signature(inputs, (TensorSpec("y", datatype, ("n", 3), output_axis),), batchable=True)


def mean_taken(arrays):
    return [arrays[0] - arrays[0].mean(axis=0)]


def softmax_over_the_batch(arrays):
    powers = np.exp(arrays[0])
    return [powers / powers.sum(axis=0)]


def reversed_rows(arrays):
    return [arrays[0][::-1]]


@pytest.mark.parametrize("run", [mean_taken, softmax_over_the_batch, reversed_rows])
def test_coupled_rows_are_found(run):
    assert coupled_output(signature(), ROW, run) == "y"


def square(arrays):
    return [arrays[0] ** 2]


def quantised(arrays):
    """Scaled by the whole batch, as models do that quantise while they run."""
    scale = np.abs(arrays[0]).max() / 127
    return [np.round(arrays[0] / scale) * scale]


def not_a_number(arrays):
    return [np.where(arrays[0] > 0.5, np.nan, np.inf)]


def refusing(arrays):
    raise ValueError("not these values")


def rolling():
    random = np.random.default_rng(0)
    return lambda arrays: [random.random(arrays[0].shape)]


@pytest.mark.parametrize("run", [square, quantised, not_a_number, refusing, rolling()])
def test_independent_rows_and_models_that_cannot_be_judged_pass(run):
    assert coupled_output(signature(), ROW, run) == ""


def test_integers_are_not_judged():
    assert coupled_output(signature(datatype="INT64"), ROW, mean_taken) == ""


def test_rows_lie_along_each_tensors_own_axis():
    def run(arrays):
        return [arrays[0] + arrays[1].sum(axis=0)]

    assert coupled_output(signature(axes=(0, 1)), STATE, run) == ""


def test_a_tensor_without_a_batch_axis_is_shared():
    def run(arrays):
        assert arrays[1].shape == (1, 3)
        return [arrays[0] * arrays[1]]

    assert coupled_output(signature(axes=(0, -1)), [(1, 3), (1, 3)], run) == ""
