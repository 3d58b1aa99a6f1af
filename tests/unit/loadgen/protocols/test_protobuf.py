"""Against the real library, which reads what we write and writes what we read."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols import grpc_v2
from dlbench.loadgen.protocols.answer import BadAnswer
from dlbench.loadgen.protocols.protobuf import fields, read_varint, signed, varint
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import DATATYPES, TensorSpec

pytest.importorskip("google.protobuf", reason="protobuf is not installed")
pb = pytest.importorskip("dlbench.proxy.protocols.grpc.codec").pb

TARGET = Target(url="grpc://h:1", protocol="grpc", model="m", path="/x")
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@given(st.integers(-(2**63), 2**64 - 1))
def test_numbers_come_back(number):
    found, end = read_varint(varint(number), 0)
    assert end == len(varint(number))
    assert (signed(found) if number < 0 else found) == number


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_a_value_error(data):
    with contextlib.suppress(ValueError):
        list(fields(data))
    assert kind(data) in ("", "not_protobuf", "wrong_shape")


def kind(data):
    try:
        grpc_v2.read(data, TARGET)
    except BadAnswer as bad:
        return str(bad)
    return ""


@given(
    st.sampled_from(sorted(DATATYPES)),
    st.lists(st.integers(1, 4), max_size=3),
    st.sampled_from(["", "7"]),
    st.dictionaries(st.sampled_from(["priority", "timeout"]), st.integers(1, 2**40)),
)
def test_requests_are_what_the_library_reads(datatype, shape, version, parameters):
    spec = TensorSpec(name="x", datatype=datatype, shape=tuple(shape))
    row = {"x": sample(datatype, shape)}
    target = TARGET.model_copy(update={"inputs": (spec,), "version": version or None})
    request = pb.ModelInferRequest.FromString(
        grpc_v2.body(target, LoadProfile(), row, parameters).content
    )
    assert (request.model_name, request.model_version) == ("m", version)
    assert {name: value.int64_param for name, value in request.parameters.items()} == parameters
    (tensor,), (raw,) = request.inputs, request.raw_input_contents
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("x", datatype, shape)
    if datatype != "BYTES":
        assert raw == row["x"].tobytes()


@given(st.sampled_from(sorted(CONTENTS)), st.lists(st.integers(1, 3), max_size=2))
def test_typed_replies_are_read(datatype, shape):
    array = sample(datatype, shape)
    reply = pb.ModelInferResponse()
    tensor = reply.outputs.add(name="y", datatype=datatype, shape=shape)
    getattr(tensor.contents, CONTENTS[datatype]).extend(array.ravel().tolist())
    answer = grpc_v2.read(reply.SerializeToString(), TARGET)
    assert answer.head_length == 0
    same(answer.outputs["y"], array)


@given(st.sampled_from(sorted(set(DATATYPES) - {"BYTES"})), st.lists(st.integers(1, 3), max_size=2))
def test_raw_replies_are_read(datatype, shape):
    array = sample(datatype, shape)
    reply = pb.ModelInferResponse(model_name="m", id="1")
    for name in ("y", "z"):
        reply.outputs.add(name=name, datatype=datatype, shape=shape)
        reply.raw_output_contents.append(array.tobytes())
    content = reply.SerializeToString()
    answer = grpc_v2.read(content, TARGET)
    for name in ("y", "z"):
        same(answer.outputs[name], array)
    assert content[answer.head_length :].startswith(array.tobytes())


def sample(datatype, shape):
    count = int(np.prod(shape, dtype=int))
    if datatype == "BYTES":
        return np.array([b"t%d" % i for i in range(count)] + [None], object)[:-1].reshape(shape)
    return (
        (np.arange(count) - (2 if datatype.startswith(("INT", "FP")) else 0))
        .astype(DATATYPES[datatype])
        .reshape(shape)
    )


def same(found, array):
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tolist() == array.tolist()
