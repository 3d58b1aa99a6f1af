"""V2's gRPC messages to requests and back: exactly, or with a BadRequest that says what is wrong."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.tensors import DATATYPES, Signature, Tensor, TensorSpec

pytest.importorskip("google.protobuf", reason="the extra grpc is not installed")

from dlbench.proxy.protocols.grpc import generate as grpc_generate
from dlbench.proxy.protocols.grpc.codec import CONTENTS, pb, read, write


class Model:
    name, version = "m", "3"

    def __init__(self, *datatypes):
        specs = [TensorSpec(f"t{i}", t, ("n", ""), 0) for i, t in enumerate(datatypes)]
        self.signature = Signature(tuple(specs), tuple(specs), batchable=True)


def described(spec, array, **more):
    return {"name": spec.name, "datatype": spec.datatype, "shape": array.shape, **more}


@st.composite
def cases(draw):
    """A model of one or two inputs of any datatypes, and values for them."""
    datatypes = draw(st.lists(st.sampled_from(sorted(DATATYPES)), min_size=1, max_size=2))
    rows = draw(st.integers(1, 3))
    shapes = [(rows, draw(st.integers(0, 3))) for _ in datatypes]
    values = [draw(arrays(DATATYPES[t][0], s)) for t, s in zip(datatypes, shapes, strict=True)]
    return Model(*datatypes), values, draw(st.permutations(range(len(datatypes))))


@settings(max_examples=100, deadline=None)
@given(cases())
def test_raw_tensors_come_and_go_byte_for_byte_in_any_order(case):
    model, values, order = case
    specs = model.signature.inputs
    message = pb.ModelInferRequest(
        id="7",
        inputs=[described(specs[i], values[i]) for i in order],
        raw_input_contents=[values[i].tobytes() for i in order],
    )
    request = read(model.signature, pb.ModelInferRequest.FromString(message.SerializeToString()))
    assert [bytes(data) for data in request.data] == [array.tobytes() for array in values]
    assert request.layout.shapes == tuple(array.shape for array in values)
    outputs = tuple(Tensor(a.shape, memoryview(a.tobytes())) for a in values)
    reply = pb.ModelInferResponse.FromString(write(model, request, outputs))
    assert (reply.model_name, reply.model_version, reply.id) == ("m", "3", "7")
    assert list(reply.raw_output_contents) == [array.tobytes() for array in values]
    assert [tuple(o.shape) for o in reply.outputs] == [array.shape for array in values]
    assert [o.datatype for o in reply.outputs] == [spec.datatype for spec in specs]


@settings(max_examples=100, deadline=None)
@given(cases())
def test_typed_contents_mean_the_same_as_raw_ones(case):
    model, values, _ = case
    specs = model.signature.inputs
    if any(spec.datatype not in CONTENTS for spec in specs):
        return
    message = pb.ModelInferRequest(
        inputs=[
            described(s, a, contents={CONTENTS[s.datatype][0]: a.ravel().tolist()})
            for s, a in zip(specs, values, strict=True)
        ]
    )
    found = [
        np.frombuffer(data, spec.numpy_type)
        for spec, data in zip(specs, read(model.signature, message).data, strict=True)
    ]
    for one, array in zip(found, values, strict=True):
        np.testing.assert_array_equal(one, array.ravel())  # NaN has many bit patterns


def test_parameters_and_wanted_outputs_are_read():
    model = Model("FP32", "FP32")
    row = np.ones((1, 2), np.float32)
    message = pb.ModelInferRequest(
        inputs=[described(spec, row) for spec in model.signature.inputs],
        raw_input_contents=[row.tobytes()] * 2,
        outputs=[{"name": "t1"}],
    )
    message.parameters["priority"].int64_param = 2
    message.parameters["timeout"].uint64_param = 1500
    message.parameters["unknown"].string_param = "x"
    request = read(model.signature, message)
    assert (request.layout.priority, request.layout.timeout_ns) == (2, 1_500_000)
    assert request.layout.id is None
    outputs = (Tensor((1, 2), b"a" * 8), Tensor((1, 2), b"b" * 8))
    reply = pb.ModelInferResponse.FromString(write(model, request, outputs))
    assert [o.name for o in reply.outputs] == ["t1"]
    assert list(reply.raw_output_contents) == [b"b" * 8]


ROW = {"name": "t0", "datatype": "INT8", "shape": [1, 2]}


@pytest.mark.parametrize(
    ("inputs", "raw", "says"),
    [
        ([], [], "'t0' is missing"),
        ([{**ROW, "name": "z"}], [b"ab"], "'t0' is missing"),
        ([ROW, ROW], [b"ab", b"ab"], "given twice"),
        ([{**ROW, "datatype": "FP32"}], [b"ab"], "is INT8, not FP32"),
        ([{**ROW, "shape": [2]}], [b"ab"], "has shape"),
        ([{**ROW, "shape": [-1, -2]}], [b"ab"], "has shape"),
        ([{**ROW, "shape": [0, 2]}], [b""], "at least one row"),
        ([ROW], [b"abc"], "takes 2 bytes, not 3"),
        ([ROW], [b"ab", b"ab"], "1 inputs, but 2 raw"),
        ([ROW], [], "takes 2 bytes, not 0"),
        (
            [{**ROW, "contents": {"int_contents": [1, 2]}}],
            [b"ab"],
            "both contents and raw_input_contents",
        ),
        ([{**ROW, "contents": {"int_contents": [1]}}], [], "takes 2 bytes, not 1"),
        ([{**ROW, "contents": {"int_contents": [1, 128]}}], [], "does not fit INT8"),
        ([{**ROW, "contents": {"fp32_contents": [1, 2]}}], [], "send it as int_contents"),
        (
            [{**ROW, "contents": {"int_contents": [1, 2], "fp32_contents": [1]}}],
            [],
            "send it as int_contents",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(inputs, raw, says):
    message = pb.ModelInferRequest(inputs=inputs, raw_input_contents=raw)
    with pytest.raises(BadRequest, match=says):
        read(Model("INT8").signature, message)


def test_half_precision_has_to_be_raw():
    given = {"name": "t0", "datatype": "FP16", "shape": [1, 1], "contents": {"fp32_contents": [1]}}
    with pytest.raises(BadRequest, match="send it as raw_input_contents"):
        read(Model("FP16").signature, pb.ModelInferRequest(inputs=[given]))


def test_the_committed_messages_are_those_of_the_published_protocol(tmp_path):
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")

    def without_versions(path):
        """The compiler writes its own version in, and which runtime that needs."""
        return re.sub(r"Version: [\d.]+|\n    \d+,", "", path.read_text())

    made = grpc_generate.generate(tmp_path)
    assert len(made) == 2
    for path in made:
        committed = grpc_generate.HERE / path.name
        assert without_versions(path) == without_versions(committed)


def asking(where, name, value):
    """A message with this parameter, for one of the tensors or for all."""
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param"}
    message = pb.ModelInferRequest(
        inputs=[described(Model("FP32").signature.inputs[0], np.zeros((1, 1), np.float32))],
        outputs=[{"name": "t0"}],
        raw_input_contents=[bytes(4)],
    )
    of = getattr(message, where)[0] if where else message
    setattr(of.parameters[name], kinds[type(value)], value)
    return message


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("outputs", "classification", 3),
        ("outputs", "shared_memory_region", "out"),
        ("inputs", "shared_memory_region", "in"),
        ("inputs", "shared_memory_byte_size", 4),
        ("", "sequence_id", 7),
        ("", "sequence_id", "seven"),
        ("", "sequence_start", True),
        ("", "sequence_end", True),
        ("", "triton_enable_empty_final_response", True),
    ],
)
def test_what_would_change_the_reply_is_refused_by_name(where, name, value):
    with pytest.raises(BadRequest, match=f"parameter '{name}'"):
        read(Model("FP32").signature, asking(where, name, value))


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("outputs", "classification", 0),
        ("", "sequence_id", 0),
        ("", "sequence_start", False),
        ("", "mine", "x"),
        ("inputs", "content_type", "np"),
        ("outputs", "binary_data", True),
    ],
)
def test_what_changes_nothing_is_let_through(where, name, value):
    assert read(Model("FP32").signature, asking(where, name, value)).rows == 1


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("shape", [[], [1]])
def test_a_scalar_may_be_sent_as_a_list_of_one(raw, shape):
    signature = Signature((TensorSpec("scale", "FP32", (), -1),), (), batchable=False)
    described = {"name": "scale", "datatype": "FP32", "shape": shape}
    if raw:
        message = pb.ModelInferRequest(
            inputs=[described], raw_input_contents=[np.float32(7).tobytes()]
        )
    else:
        message = pb.ModelInferRequest(inputs=[{**described, "contents": {"fp32_contents": [7]}}])
    request = read(signature, message)
    assert request.layout.shapes == ((),)
    assert bytes(request.data[0]) == np.float32(7).tobytes()
