"""Which axis is the batch: from the symbols, by trying, or as the user says."""

import pytest

from dlbench.proxy.errors import ModelError
from dlbench.proxy.models.signature import SIZES, row_shapes, settle
from dlbench.proxy.tensors import TensorSpec


def spec(name, *dims):
    return TensorSpec(name, "FP32", dims)


def follow(*outputs):
    """A model whose output shapes are functions of its input shapes."""
    return lambda shapes: [output(*shapes) for output in outputs]


def axes(specs):
    return {s.name: s.batch_axis for s in specs}


def test_the_state_of_a_recurrent_net_has_its_batch_on_axis_one():
    def run(shapes):
        x, state = shapes
        if not 256 <= x[1] <= 576:
            raise ValueError("wrong chunk")
        return [(x[0], 1), state]

    found, one_row = settle(
        [spec("input", "batch", "sequence"), spec("state", 2, "batch", 128)],
        [spec("output", "batch", 1), spec("stateN", 2, "batch", 128)],
        run,
        {},
        {},
    )
    assert found.batchable
    assert axes(found.inputs) == {"input": 0, "state": 1}
    assert axes(found.outputs) == {"output": 0, "stateN": 1}
    assert one_row == [(1, 256), (2, 1, 128)]
    assert "[1, 256] ran (--shape input=" in found.notes[0]


def test_a_fixed_batch_is_served_one_by_one_and_says_so():
    found, one_row = settle([spec("x", 1, 3)], [spec("y", 1, 3)], follow(lambda x: x), {}, {})
    assert not found.batchable
    assert axes([*found.inputs, *found.outputs]) == {"x": -1, "y": -1}
    assert found.notes == ("served with batch 1: input 'x' has a fixed batch size",)
    assert one_row == [(1, 3)]


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_an_output_that_does_not_grow_forbids_batches(shape):
    found, _ = settle([spec("x", "n", 3)], [spec("y")], follow(lambda _: shape), {}, {})
    assert not found.batchable
    assert "output 'y' does not grow with the batch" in found.notes[0]


def test_an_output_that_grows_otherwise_forbids_batches():
    found, _ = settle([spec("x", "n", 3)], [spec("y", "m")], follow(lambda x: (2 * x[0],)), {}, {})
    assert not found.batchable


def test_a_model_that_refuses_a_second_row_is_served_one_by_one():
    def run(shapes):
        if shapes[0][0] != 1:
            raise ValueError("reshape to one row")
        return shapes

    found, _ = settle([spec("x", "n", 3)], [spec("y", "n", 3)], run, {}, {})
    assert not found.batchable
    assert "reshape to one row" in found.notes[0]


@pytest.mark.parametrize("order", [1, -1])
def test_an_input_without_a_batch_axis_stays_whole(order):
    inputs = [spec("x", "n", 3), spec("scale")][::order]
    found, _ = settle(inputs, [spec("y", "n", 3)], lambda s: [max(s, key=len)], {}, {})
    assert found.batchable
    assert axes(found.inputs) == {"x": 0, "scale": -1}


def test_nameless_dimensions_count_where_they_come_first():
    inputs = [spec("x", "", 3), spec("y", "", 2), spec("z", 4, "")]
    found, _ = settle(inputs, [spec("o", "", 3)], follow(lambda x, y, z: x), {}, {"z": (7,)})
    assert axes(found.inputs) == {"x": 0, "y": 0, "z": -1}


def test_overrides_of_inputs_and_outputs():
    found, _ = settle(
        [spec("x", "t", "n")],
        [spec("y", "t", "n")],
        follow(lambda x: x),
        {"x": 1, "y": 1},
        {"x": (5, 1)},
    )
    assert axes([*found.inputs, *found.outputs]) == {"x": 1, "y": 1}


def test_an_override_can_take_the_batch_away():
    found, _ = settle([spec("x", "n", 3)], [spec("y", "n", 3)], follow(lambda x: x), {"x": -1}, {})
    assert not found.batchable


@pytest.mark.parametrize("given", [(4, 7, 9), (7, 9)])
def test_a_given_shape_may_name_all_sizes_or_the_open_ones(given):
    seen = []

    def run(shapes):
        seen.append(shapes[0])
        return shapes

    _, one_row = settle(
        [spec("x", "n", "h", "w")], [spec("y", "n", "h", "w")], run, {}, {"x": given}
    )
    assert one_row == [(1, 7, 9)]
    assert {s[1:] for s in seen} == {(7, 9)}


def test_height_and_width_are_tried_as_pairs_after_squares():
    def run(shapes):
        if shapes[0][2:] != (48, 192):
            raise ValueError("no")
        return [(shapes[0][0], 2)]

    _, one_row = settle([spec("x", "n", 3, "h", "w")], [spec("y", "n", 2)], run, {}, {})
    assert one_row == [(1, 3, 48, 192)]


def test_no_size_that_runs_names_the_option_and_the_first_reason():
    tried = []

    def run(shapes):
        tried.append(shapes)
        raise ValueError(f"bad size {shapes[0][1]}\nmore")

    with pytest.raises(
        ModelError, match=rf"--shape NAME=D1,D2, or --batch-axis NAME=K\): bad size {SIZES[0]}$"
    ):
        settle([spec("x", "n", "t")], [spec("y", "n")], run, {}, {})
    assert len(tried) >= len(SIZES)


def test_a_silent_refusal_is_an_error_as_well():
    def run(shapes):
        raise ValueError

    with pytest.raises(ModelError, match="none of the sizes tried"):
        settle([spec("x", "n", 3)], [spec("y", "n")], run, {}, {})


BAD = [
    ({"q": 0}, {}, "--batch-axis q: no such tensor; there are x, y"),
    ({"x": 2}, {}, "--batch-axis x=2: the tensor has 2 axes"),
    ({"x": -2}, {}, "--batch-axis x=-2"),
    ({"y": 5}, {}, "--batch-axis y=5"),
    ({}, {"q": (1,)}, "--shape q: no such tensor; there are x"),
    ({}, {"y": (1,)}, "--shape y: no such tensor"),
    ({}, {"x": (1, 2, 3)}, "--shape x: give 2 sizes"),
]


@pytest.mark.parametrize(("batch_axis", "shape", "text"), BAD)
def test_overrides_that_make_no_sense(batch_axis, shape, text):
    with pytest.raises(ModelError, match=text):
        settle([spec("x", "n", "t")], [spec("y", "n", "t")], lambda s: s, batch_axis, shape)


def test_row_shapes_fill_open_sizes_in_order():
    inputs = [TensorSpec("x", "FP32", ("n", "h", 3, "w"), 0), TensorSpec("s", "FP32", (2, "n"), 1)]
    assert row_shapes(inputs, {"x": (5, 6)}, 4) == [(4, 5, 3, 6), (2, 4)]


def test_an_open_first_axis_that_is_no_batch_is_served_one_by_one():
    """A graph: indices of nodes, of which one row has none to point at."""

    def run(shapes):
        nodes, edges = shapes
        if nodes[0] < 2 or edges[0] != 2:
            raise ValueError("indices out of bounds")
        return [nodes]

    inputs, outputs = [spec("x", "nodes", 4), spec("edges", 2, "edges")], [spec("y", "nodes", 4)]
    found, one_row = settle(inputs, outputs, run, {}, {})
    assert not found.batchable
    assert axes([*found.inputs, *found.outputs]) == {"x": -1, "edges": -1, "y": -1}
    assert one_row == [(16, 4), (2, 16)]
    assert "--batch-axis NAME=K" in found.notes[-1]
    with pytest.raises(ModelError, match="--batch-axis NAME=K"):
        settle(inputs, outputs, run, {"x": 0}, {})


def test_an_output_declared_without_axes_has_those_that_it_comes_with():
    found, _ = settle([spec("x", "n", 3)], [spec("y")], follow(lambda x: (x[0],)), {}, {})
    assert found.batchable
    assert found.outputs == (TensorSpec("y", "FP32", ("",), 0),)


@pytest.mark.parametrize(
    ("inputs", "declared", "real"),
    [
        (("n", 3), (1, 10), lambda x: (x[0], 7)),
        ((1, 3), (1, 10), lambda _: (1, 7)),
        (("n", 3), (4, 10), lambda _: (5, 10)),
        (("n", 3), ("n",), lambda x: (x[0], 7, 2)),
    ],
)
def test_an_output_is_as_it_comes_out_and_not_as_it_is_declared(inputs, declared, real):
    found, one_row = settle([spec("x", *inputs)], [spec("y", *declared)], follow(real), {}, {})
    assert found.outputs[0].accepts(real(one_row[0]))
