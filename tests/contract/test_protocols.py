"""What every protocol keeps to: bodies that stay valid whatever number they show, replies that are
understood or refused by kind, and never another exception."""

import contextlib

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.inputs.inputs import random_row
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols import v2
from dlbench.loadgen.protocols.answer import BadAnswer
from dlbench.loadgen.protocols.digits import Place, Stamped
from dlbench.loadgen.protocols.encode import RAW_TYPE
from dlbench.loadgen.protocols.payloads import requests_of
from dlbench.loadgen.protocols.table import PROTOCOLS
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import DATATYPES, TensorSpec

KINDS = {"wrong_shape", "not_json", "not_protobuf"}
SPEAKING = [
    *((name, "json") for name in sorted(set(PROTOCOLS) - {"grpc"})),
    *((name, "binary") for name in ("v2", "torchserve", "grpc")),
]
every_protocol = pytest.mark.parametrize(("protocol", "encoding"), SPEAKING)
tensors = st.builds(
    lambda datatype, shape: (datatype, tuple(shape)),
    st.sampled_from(sorted(DATATYPES)),
    st.lists(st.integers(1, 4), max_size=2),
)
KEYS = st.sampled_from(
    ["outputs", "predictions", "name", "datatype", "shape", "data", "parameters", "y"]
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=3),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(KEYS, parts, max_size=5),
    max_leaves=12,
)
OUTPUT = TensorSpec(name="y", datatype="UINT8", shape=(-1, 2), batch_axis=0)


def target(protocol, specs=()):
    inputs = tuple(
        TensorSpec(name=f"x{n}", datatype=datatype, shape=(-1, *shape), batch_axis=0)
        for n, (datatype, shape) in enumerate(specs)
    )
    return Target(
        url="http://h:1", protocol=protocol, model="m", path="/p", inputs=inputs, outputs=(OUTPUT,)
    )


def read_v2(content, body, given):
    end = body.json_length or len(content)
    document = orjson.loads(content[:end])
    if body.json_length is not None:
        document["parameters"].pop("binary_data_output")
    return v2.read(orjson.dumps({"outputs": document["inputs"]}) + content[end:], given).outputs


def read_grpc(content, _, given):
    pb = pytest.importorskip("dlbench.proxy.protocols.grpc.codec").pb
    request = pb.ModelInferRequest.FromString(bytes(content))
    return {
        tensor.name: v2.raw_array(raw, tensor.datatype).reshape(tensor.shape)
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }


def read_raw(content, body, given):
    found = {}
    for spec in given.inputs:
        size = spec.elements * (12 if spec.datatype == "BYTES" else spec.dtype.itemsize)
        found[spec.name] = v2.raw_array(bytes(content[:size]), spec.datatype)
        content = content[size:]
    assert not content
    return found


def read_json(content, _, given):
    document = orjson.loads(content)
    if "instances" in document:
        (document,) = document["instances"]
    if len(given.inputs) == 1 and not isinstance(document, dict):
        document = {given.inputs[0].name: document}
    return {name: np.array(value) for name, value in document.items()}


def reader(protocol, body):
    if protocol == "torchserve" and body.content_type == RAW_TYPE:
        return read_raw
    return {"v2": read_v2, "grpc": read_grpc}.get(protocol, read_json)


@every_protocol
@given(st.lists(tensors, min_size=1, max_size=3), st.lists(st.integers(0, 2**40), max_size=4))
def test_bodies_are_read_back_whatever_number_they_show(protocol, encoding, specs, numbers):
    given_target, profile = target(protocol, specs), LoadProfile(encoding=encoding)
    row = random_row(given_target.inputs, [1])
    body = PROTOCOLS[protocol].body(given_target, profile, row, {})
    show = Stamped(body.content, [Place(*place) for place in body.places]).show
    for content in (body.content, *(bytes(show(number)) for number in numbers)):
        assert len(content) == len(body.content)
        found = reader(protocol, body)(content, body, given_target)
        assert {name: array.size for name, array in found.items()} == {
            name: array.size for name, array in row.items()
        }


@every_protocol
def test_requests_are_http_or_a_message_alone(protocol, encoding):
    requests = requests_of(
        target(protocol, [("FP32", (3,))]), LoadProfile(encoding=encoding), nonce=1
    )
    assert bytes(requests.at(5)).startswith(b"POST /p HTTP/1.1\r\n") is PROTOCOLS[protocol].http
    first = [bytes(requests.at(number)) for number in range(50)]
    assert len(set(first)) == 50
    assert bytes(requests.at(7)) == first[7]


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
@given(st.binary(max_size=80) | json_values.map(orjson.dumps))
def test_any_reply_is_understood_or_refused_by_kind(protocol, content):
    assert kind(protocol, content) in KINDS | {""}


def kind(protocol, content):
    try:
        PROTOCOLS[protocol].read(content, target(protocol))
    except BadAnswer as bad:
        return str(bad)
    return ""


@given(json_values, st.binary(max_size=20))
def test_any_binary_reply_is_understood_or_refused(document, raw):
    output = {"name": "y", "datatype": "FP32", "shape": document, "parameters": document}
    for found in ({"outputs": [output]}, {"outputs": document}):
        with contextlib.suppress(BadAnswer):
            v2.read(orjson.dumps(found) + raw, target("v2"))
