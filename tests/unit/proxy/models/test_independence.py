"""Models whose rows depend on each other are found out, whatever they compute with; others batch."""

import itertools

import numpy as np
import onnx.parser
import pytest
from onnx import helper, numpy_helper

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.models.demo import demo_path
from dlbench.proxy.models.independence import examine
from dlbench.proxy.models.probes import trials
from dlbench.proxy.models.signature import settle
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.workers.providers import executor_of
from dlbench.proxy.workers.session import Session

MOST_ROWS = 8
RANDOM = np.random.default_rng(0)


def weights(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


CONSTANTS = {
    "w": weights(4, 4),
    "table": weights(30, 4),
    "kernel": weights(2, 1, 3, 3),
    "lstm_w": weights(1, 12, 4),
    "lstm_r": weights(1, 12, 3),
    "scale": np.ones(4, np.float32),
    "shift": np.zeros(4, np.float32),
    "int8_w": RANDOM.integers(-9, 9, (4, 4)).astype(np.int8),
    "int8_0": np.int8(0),
    "uint8_0": np.uint8(0),
    "step": np.float32(0.05),
    "anchor": np.float32([0, 0, 1, 1]),
    "f0": np.float32(0),
    "f10": np.float32(10),
    "f_5": np.float32(-5),
    "f5000": np.float32(5000),
    "f40000": np.float32(40_000),
    "minus_f40000": np.float32(-40_000),
    "little": np.float32(0.02),
    "one": np.float32(1),
    "billion": np.float32(1e9),
    "half": np.float32(0.5),
    "tiny": np.float32(1e-4),
    "i0": np.int64(0),
    "i1": np.int64(1),
    "i7": np.int64(7),
    "i13": np.int64(13),
    "axis0": np.int64([0]),
    "axis1": np.int64([1]),
    "last": np.int64([-1]),
    "ten": np.int64([10]),
    "minus5": np.int64([-5]),
    "start": np.int64([-(2**62)]),
    "end": np.int64([2**62]),
}
ROWS, LABELS, FLAGS = "float[n,4]", "int64[n]", "bool[n,4]"
COUNT = "shape = Shape (x) n = Gather (shape, i0)"


def session_of(folder, inputs, outputs, body, **constants):
    """A session of what onnx's text form says; the constants above may be used by name."""
    graph = onnx.parser.parse_graph(f"g ({inputs}) => ({outputs}) {{ {body} }}")
    used = {name for node in nodes_of(graph) for name in node.input}
    constants |= {name: value for name, value in CONSTANTS.items() if name in used}
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return open_session(path)


def nodes_of(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from nodes_of(attribute.g)


def open_session(path, threads=1):
    config = ServingConfig(intra_op_threads=threads)
    return Session(str(path), executor_of(ServerSettings(device="cpu"), config, 0))


def finding(session, most_rows=MOST_ROWS, clock=lambda: 0.0):
    """Of a model that looks as if it could batch."""
    signature, one_row = settle(session.inputs, session.outputs, session.shapes_of, {}, {})
    assert signature.batchable, signature.notes
    return examine(signature, one_row, session.run, most_rows, clock)


def either(condition):
    """2x where the condition holds for the batch, else x."""
    return (
        f"{condition} y = If (c) <then_branch = t () => ({ROWS} a) {{ a = Add (x, x) }}, "
        f"else_branch = e () => ({ROWS} b) {{ b = Identity (x) }}>"
    )


COUPLED = {
    "a running sum": (f"{ROWS} x", f"{ROWS} y", "y = CumSum (x, i0)"),
    "one from the end": (f"{ROWS} x", f"{ROWS} y", "y = CumSum <reverse=1> (x, i0)"),
    "one in double": ("double[n,4] x", "double[n,4] y", "y = CumSum (x, i0)"),
    "labels of one": (
        f"{ROWS} x",
        f"{LABELS} y",
        "c = CumSum (x, i0) y = ArgMax <axis=1, keepdims=0> (c)",
    ),
    "one of ids": (f"{LABELS} x", f"{LABELS} y", "c = CumSum (x, i0) y = Mod (c, i7)"),
    "one of bytes": (
        "uint8[n,4] x",
        "uint8[n,4] y",
        "i = Cast <to=7> (x) c = CumSum (i, i0) m = Mod (c, i7) y = Cast <to=2> (m)",
    ),
    "its signs": (f"{ROWS} x", f"{FLAGS} y", "c = CumSum (x, i0) y = Greater (c, f0)"),
    "the mean": (f"{ROWS} x", f"{ROWS} y", "m = ReduceMean (x, axis0) y = Sub (x, m)"),
    "a little of the mean": (
        f"{ROWS} x",
        f"{ROWS} y",
        "m = ReduceMean (x, axis0) s = Mul (m, tiny) y = Sub (x, s)",
    ),
    "the mean in half precision": (
        "float16[n,4] x",
        "float16[n,4] y",
        "f = Cast <to=1> (x) m = ReduceMean (f, axis0) s = Sub (f, m) y = Cast <to=10> (s)",
    ),
    "a softmax over rows": (f"{ROWS} x", f"{ROWS} y", "y = Softmax <axis=0> (x)"),
    "the largest of a column": (
        f"{ROWS} x",
        f"{FLAGS} y",
        "m = ReduceMax (x, axis0) y = Equal (x, m)",
    ),
    "argmax over rows": (
        f"{ROWS} x",
        f"{ROWS} y",
        "a = ArgMax <axis=0> (x) f = Cast <to=1> (a) y = Add (x, f)",
    ),
    "columns sorted": (
        f"{ROWS} x",
        f"{ROWS} y",
        f"{COUNT} k = Unsqueeze (n, axis0) y, i = TopK <axis=0> (x, k)",
    ),
    "ranks": (
        f"{ROWS} x",
        "int64[n,4] y",
        f"{COUNT} k = Unsqueeze (n, axis0) v, y = TopK <axis=0> (x, k)",
    ),
    "rows reversed": (f"{ROWS} x", f"{ROWS} y", "y = Slice (x, last, start, axis0, last)"),
    "sequences reversed": (
        f"{ROWS} x, int64[4] lengths",
        f"{ROWS} y",
        "y = ReverseSequence <batch_axis=1, time_axis=0> (x, lengths)",
    ),
    "rows moved by five": (
        f"{ROWS} x",
        f"{ROWS} y",
        "a = Slice (x, minus5, end, axis0) b = Slice (x, axis0, minus5, axis0) "
        "y = Concat <axis=0> (a, b)",
    ),
    "an average over time": (
        "float[t,4] x",
        "float[t,4] y",
        "p = Transpose <perm=[1,0]> (x) q = Unsqueeze (p, axis1) "
        "r = AveragePool <kernel_shape=[3], pads=[1,1]> (q) u = Squeeze (r, axis1) "
        "y = Transpose <perm=[1,0]> (u)",
    ),
    "attention among rows": (
        f"{ROWS} x",
        f"{ROWS} y",
        "t = Transpose <perm=[1,0]> (x) s = MatMul (x, t) p = Softmax <axis=1> (s) y = MatMul (p, "
        "x)",
    ),
    "batch normalisation in training": (
        f"{ROWS} x",
        f"{ROWS} y",
        "y, m, v = BatchNormalization <training_mode=1> (x, scale, shift, shift, scale)",
    ),
    "dynamic quantisation": (
        f"{ROWS} x",
        f"{ROWS} y",
        "q, s, z = DynamicQuantizeLinear (x) i = MatMulInteger (q, int8_w, z, int8_0) "
        "f = Cast <to=1> (i) y = Mul (f, s)",
    ),
    "scatter to a row by id": (
        "int64[n] i, float[n,4] x",
        f"{ROWS} y",
        f"{COUNT} m = Mod (i, n) d = Unsqueeze (m, axis1) z = Sub (x, x) "
        'y = ScatterND <reduction = "add"> (z, d, x)',
    ),
    "gather a row by id": (
        "int64[n] i, float[n,4] x",
        f"{ROWS} y",
        f"{COUNT} m = Mod (i, n) d = Unsqueeze (m, axis1) y = GatherND (x, d)",
    ),
    "the row's number": (
        f"{ROWS} x",
        f"{ROWS} y",
        f"{COUNT} r = Range (i0, n, i1) f = Cast <to=1> (r) u = Unsqueeze (f, axis1) y = Add (x, "
        "u)",
    ),
    "the row's number, a little of it": (
        f"{ROWS} x",
        f"{ROWS} y",
        f"{COUNT} r = Range (i0, n, i1) f = Cast <to=1> (r) t = Mul (f, tiny) "
        "u = Unsqueeze (t, axis1) y = Add (x, u)",
    ),
    "the row's number, one-hot": (
        f"{ROWS} x",
        "int64[n,8] y",
        f"{COUNT} r = Range (i0, n, i1) d = Constant <value_int=8> () "
        "v = Constant <value_ints=[0,1]> () y = OneHot (r, d, v)",
    ),
    "the size of the batch": (
        f"{ROWS} x",
        f"{ROWS} y",
        f"{COUNT} f = Cast <to=1> (n) y = Div (x, f)",
    ),
    "any above 10": (
        f"{ROWS} x",
        f"{ROWS} y",
        either("m = ReduceMax <keepdims=0> (x) c = Greater (m, f10)"),
    ),
    "all above 10": (
        f"{ROWS} x",
        f"{ROWS} y",
        either("m = ReduceMin <keepdims=0> (x) c = Greater (m, f10)"),
    ),
    "any below -5": (
        f"{ROWS} x",
        f"{ROWS} y",
        either("m = ReduceMin <keepdims=0> (x) c = Less (m, f_5)"),
    ),
    "all below -5": (
        f"{ROWS} x",
        f"{ROWS} y",
        either("m = ReduceMax <keepdims=0> (x) c = Less (m, f_5)"),
    ),
    "any above 5000": (
        f"{ROWS} x",
        f"{ROWS} y",
        either("m = ReduceMax <keepdims=0> (x) c = Greater (m, f5000)"),
    ),
    "the mean above 10": (
        f"{ROWS} x",
        f"{ROWS} y",
        either("m = ReduceMean <keepdims=0> (x) c = Greater (m, f10)"),
    ),
    "any id from 13": (
        "int64[n] ids, float[n,4] x",
        f"{ROWS} y",
        either("m = ReduceMax <keepdims=0> (ids) c = Greater (m, i13)"),
    ),
    "a maximum that 16 bits just hold": (
        f"{ROWS} x",
        f"{ROWS} y",
        "m = ReduceMax <keepdims=0> (x) c = Greater (m, f40000) b = Cast <to=1> (c) y = Add (x, b)",
    ),
    "a minimum far below": (
        f"{ROWS} x",
        f"{ROWS} y",
        "m = ReduceMin <keepdims=0> (x) c = Less (m, minus_f40000) b = Cast <to=1> (c) y = Add (x, "
        "b)",
    ),
    "a little more with every row": (
        f"{ROWS} x",
        f"{ROWS} y",
        f"{COUNT} f = Cast <to=1> (n) g = Mul (f, little) h = Add (g, one) y = Mul (x, h)",
    ),
    "any flag": (
        "bool[n] x",
        "bool[n] y",
        "i = Cast <to=7> (x) m = ReduceMax (i, axis0) b = Cast <to=9> (m) y = Or (x, b)",
    ),
    "all flags": (
        "bool[n] x",
        "bool[n] y",
        "i = Cast <to=7> (x) m = ReduceMin (i, axis0) b = Cast <to=9> (m) y = And (x, b)",
    ),
    "training, where the client says so": (
        f"{ROWS} x, bool[] training",
        f"{ROWS} y",
        "m = ReduceMean (x, axis0) s = Sub (x, m) y = Where (training, s, x)",
    ),
    "a loop over rows": (
        f"{ROWS} x",
        f"{ROWS} y",
        f"{COUNT} zero = ReduceSum <keepdims=0> (shift) "
        "last_sum, y = Loop (n, , shift) <body = b (int64 i, bool go, float[4] before) => "
        "(bool on, float[4] after, float[4] out) { on = Identity (go) row = Gather (x, i) "
        "after = Add (before, row) out = Identity (after) }>",
    ),
    "a scan over rows": (
        f"{ROWS} x",
        f"{ROWS} y",
        "last_sum, y = Scan <num_scan_inputs=1, body = b (float[4] before, float[4] row) => "
        "(float[4] after, float[4] out) { after = Add (before, row) out = Identity (after) }> "
        "(shift, x)",
    ),
}


@pytest.mark.parametrize("name", COUPLED)
def test_rows_that_depend_on_each_other_are_found(tmp_path, name):
    why = finding(session_of(tmp_path, *COUPLED[name])).why
    assert "output 'y'" in why
    assert "depend" in why
    assert "--rows-independent" in why


SHAPED = {
    "as long as the longest": (
        "float[n,t] x, int64[n] lengths",
        "float[n,u] y",
        "m = ReduceMax (lengths, axis0) y = Slice (x, axis0, m, axis1)",
    ),
    "ids as long as the longest": (
        "int64[n,t] x, int64[n] lengths",
        "int64[n,u] y",
        "m = ReduceMax (lengths, axis0) y = Slice (x, axis0, m, axis1)",
    ),
    "rows kept by content": (
        f"{ROWS} x",
        "float[m,4] y",
        "s = ReduceSum <keepdims=0> (x, axis1) k = Greater (s, f0) y = Compress <axis=0> (x, k)",
    ),
    "what differs": (
        "float[n] x",
        "float[m] y",
        f"{COUNT} r = Range (i0, n, i1) f = Cast <to=1> (r) g = Mul (f, x) c = Ceil (g) y = Unique "
        "(c)",
    ),
    "where there is something": (
        "float[n] x",
        "int64[m] y",
        "c = Clip (x, f0) z = NonZero (c) y = Squeeze (z, axis0)",
    ),
    "one axis less for one row": ("float[n,1] x", "float[n] y", "y = Squeeze (x)"),
    "boxes": (
        "float[n,6,4] d, float[n,1,6] scores",
        "int64[m,3] y",
        "b = Add (d, anchor) y = NonMaxSuppression (b, scores, ten, half, half)",
    ),
}


@pytest.mark.parametrize("name", SHAPED)
def test_outputs_whose_size_depends_on_the_data_are_found(tmp_path, name):
    why = finding(session_of(tmp_path, *SHAPED[name])).why
    assert why.startswith("the shape of output 'y' depends on the batch")


INDEPENDENT = {
    "dense": (f"{ROWS} x", f"{ROWS} y", "m = MatMul (x, w) r = Relu (m) y = MatMul (r, w)"),
    "dense in double": (
        "double[n,4] x",
        "double[n,4] y",
        "v = Cast <to=11> (w) m = MatMul (x, v) y = Tanh (m)",
    ),
    "dense in half precision": (
        "float16[n,4] x",
        "float16[n,4] y",
        "v = Cast <to=10> (w) m = MatMul (x, v) y = Sigmoid (m)",
    ),
    "convolution": (
        "float[n,1,9,9] x",
        "float[n,2,9,9] y",
        "c = Conv <pads=[1,1,1,1]> (x, kernel) y = Erf (c)",
    ),
    "recurrent": (
        "float[n,5,4] x",
        "float[n,3] y",
        "t = Transpose <perm=[1,0,2]> (x) all, h = LSTM <hidden_size=3> (t, lstm_w, lstm_r) "
        "y = Squeeze (h, axis0)",
    ),
    "batch on axis 1": (
        "float[n,4] x, float[2,n,4] state",
        "float[n,4] y, float[2,n,4] next",
        "y = Exp (x) next = Add (state, x)",
    ),
    "softmax of a row": (f"{ROWS} x", f"{ROWS} y", "y = Softmax <axis=1> (x)"),
    "label of a row": (
        f"{ROWS} x",
        f"{LABELS} y",
        "m = MatMul (x, w) y = ArgMax <axis=1, keepdims=0> (m)",
    ),
    "top-k of a row": (
        f"{ROWS} x",
        "float[n,1] y, int64[n,1] i",
        "y, i = TopK <axis=1> (x, axis1)",
    ),
    "embedding": ("int64[n,5] ids", "float[n,5,4] y", "y = Gather (table, ids)"),
    "embedding of text": (
        "int64[n,t] ids, int64[n,t] mask, int32[n,t] kinds",
        f"{ROWS} y",
        "e = Gather (table, ids) k = Gather (w, kinds) b = Add (e, k) f = Cast <to=1> (mask) "
        "u = Unsqueeze (f, last) m = Mul (b, u) y = ReduceSum <keepdims=0> (m, axis1)",
    ),
    "a ratio of integers": ("int32[n,4] a, int32[n,4] b", "int32[n,4] y", "y = Div (a, b)"),
    "static quantisation": (
        f"{ROWS} x",
        f"{ROWS} y",
        "q = QuantizeLinear (x, step, uint8_0) d = DequantizeLinear (q, step, uint8_0) "
        "wd = DequantizeLinear (int8_w, step, int8_0) m = MatMul (d, wd) "
        "o = QuantizeLinear (m, step, uint8_0) y = DequantizeLinear (o, step, uint8_0)",
    ),
    "pixels": (
        "uint8[n,3,8,8] x",
        "uint8[n,3,8,8] y",
        "f = Cast <to=1> (x) g = Sqrt (f) h = Mul (g, f10) y = Cast <to=2> (h)",
    ),
    "logarithms, with NaN and infinity": (f"{ROWS} x", f"{ROWS} y", "y = Log (x)"),
    "flags": (f"{FLAGS} x", f"{FLAGS} y", "y = Not (x)"),
    "a scale for all": ("float[n,3] x, float[] s", "float[n,3] y", "y = Mul (x, s)"),
    "a width for all": (
        "float[n,3] x, int64[1] k",
        "float[n,u] y",
        "y = Slice (x, axis0, k, axis1)",
    ),
    "chosen row by row": (
        f"{ROWS} x",
        f"{ROWS} y",
        "c = Greater (x, f10) d = Add (x, x) y = Where (c, d, x)",
    ),
}


@pytest.mark.parametrize("name", INDEPENDENT)
@pytest.mark.parametrize("most_rows", [1, 3, 8, 33])
def test_independent_rows_pass(tmp_path, name, most_rows):
    assert finding(session_of(tmp_path, *INDEPENDENT[name]), most_rows) == ("", 0)


def test_a_model_that_gives_two_answers_cannot_be_judged(tmp_path):
    noisy = session_of(
        tmp_path, f"{ROWS} x", f"{ROWS} y", "r = RandomNormalLike (x) y = Add (x, r)"
    )
    assert finding(noisy).why.startswith("output 'y' differs from run to run")


def test_a_model_that_refuses_all_values_but_ones_cannot_be_judged(tmp_path):
    """It takes other numbers for indices far outside of its table."""
    body = "o = Sub (x, one) m = Mul (o, billion) i = Cast <to=7> (m) y = Gather (shift, i)"
    picky = session_of(tmp_path, "float[n] x", "float[n] y", body)
    assert finding(picky).why.startswith("the model rejects all values that were tried")


def test_values_that_are_refused_do_not_hide_the_others(tmp_path):
    """Ids above 29 are refused, and those below are enough to see it."""
    body = "e = Gather (table, ids) y = CumSum (e, i0)"
    assert "'y'" in finding(session_of(tmp_path, "int64[n] ids", f"{ROWS} y", body)).why


@pytest.mark.parametrize("rows", [2, 3, 8, 33])
def test_a_neighbour_may_be_as_far_away_as_a_batch_is_large(tmp_path, rows):
    """Rows moved by one place less than a batch has: no smaller batch shows it."""
    far = np.int64([1 - rows])
    body = (
        "a = Slice (x, far, end, axis0) b = Slice (x, axis0, far, axis0) y = Concat <axis=0> (a, b)"
    )
    session = session_of(tmp_path, f"{ROWS} x", f"{ROWS} y", body, far=far)
    assert "depend" in finding(session, rows).why


def test_a_slow_model_is_tried_once_and_says_what_was_left_out(tmp_path):
    slow = session_of(tmp_path, *INDEPENDENT["dense"])
    assert finding(slow, clock=itertools.count(step=10.0).__next__) == ("", len(trials(8)) - 1)
    session = session_of(tmp_path, *COUPLED["a running sum"])
    assert "depend" in finding(session, clock=itertools.count(step=10.0).__next__).why


def test_trials_that_fit_into_the_time_are_made_where_others_do_not(tmp_path):
    """The time of a large batch is foreseen from that of a small one, and not tried out."""
    session, now = session_of(tmp_path, *INDEPENDENT["dense"]), [0.0]

    def run(arrays):
        now[0] += 0.01 * len(arrays[0])
        return run_model(arrays)

    run_model, session.run = session.run, run
    found = finding(session, 1000, lambda: now[0])
    assert found == ("", 1)
    assert now[0] < 1


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("demo", ["mlp", "cnn"])
def test_the_demo_models_batch(demo, threads):
    assert finding(open_session(demo_path(demo), threads)) == ("", 0)
