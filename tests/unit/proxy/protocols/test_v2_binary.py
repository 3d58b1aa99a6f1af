"""Bytes to tensors and back: exactly, or with a BadRequest that says what is wrong."""

import json
from contextlib import suppress

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.protocols.v2_binary import V2Wire
from dlbench.proxy.tensors import DATATYPES, Signature, Tensor, TensorSpec

FLOATS = {"FP16": 16, "FP32": 32, "FP64": 64}


def signature(datatype="FP32"):
    """Any number of rows of open length, in and out."""
    spec = {"datatype": datatype, "dims": ("batch", ""), "batch_axis": 0}
    return Signature((TensorSpec("x", **spec),), (TensorSpec("y", **spec),), batchable=True)


def two_inputs():
    inputs = (TensorSpec("x", "FP32", ("n", 2), 0), TensorSpec("s", "INT64", (1, "n"), 1))
    outputs = (TensorSpec("y", "FP32", ("n", 2), 0), TensorSpec("z", "FP32", ("n",), 0))
    return Signature(inputs, outputs, batchable=True)


@st.composite
def tensors(draw):
    """A datatype and an array of it with one or more rows."""
    datatype = draw(st.sampled_from(sorted(DATATYPES)))
    dtype = np.dtype(DATATYPES[datatype][0])
    if datatype in FLOATS:
        element = st.floats(width=FLOATS[datatype], allow_nan=False, allow_infinity=False)
    elif datatype == "BOOL":
        element = st.booleans()
    else:
        info = np.iinfo(dtype)
        element = st.integers(int(info.min), int(info.max))
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(0, 5))
    values = draw(st.lists(element, min_size=rows * columns, max_size=rows * columns))
    return datatype, np.array(values, dtype=dtype).reshape(rows, columns)


def echo(request):
    """The inputs as outputs."""
    pairs = zip(request.layout.shapes, request.data, strict=True)
    return tuple(Tensor(shape, data) for shape, data in pairs)


def described(name, datatype, array, **more):
    return {"name": name, "datatype": datatype, "shape": list(array.shape), **more}


@settings(max_examples=120, deadline=None)
@given(tensors())
def test_binary_tensors_come_and_go_byte_for_byte(case):
    datatype, array = case
    wire = V2Wire("m", "1", signature(datatype))
    size = {"binary_data_size": array.nbytes}
    head = orjson.dumps(
        {
            "id": "7",
            "inputs": [described("x", datatype, array, parameters=size)],
            "parameters": {"binary_data_output": True},
        }
    )
    for _ in range(2):  # the second time from the remembered plan
        request = wire.read(head + array.tobytes(), len(head))
        assert request.rows == len(array)
        assert request.layout.shapes[0] == array.shape
        assert bytes(request.data[0]) == array.tobytes()
        reply = wire.write(request, echo(request))
        assert b"".join(map(bytes, reply.tensors)) == array.tobytes()
        document = orjson.loads(reply.json)
        assert document["id"] == "7"
        assert document["outputs"] == [described("y", datatype, array, parameters=size)]


@settings(max_examples=120, deadline=None)
@given(tensors(), st.booleans())
def test_json_tensors_come_and_go_exactly(case, nested):
    datatype, array = case
    wire = V2Wire("m", "1", signature(datatype))
    data = array.tolist() if nested else array.ravel().tolist()
    request = wire.read(
        json.dumps({"inputs": [described("x", datatype, array, data=data)]}).encode(), None
    )
    assert bytes(request.data[0]) == array.tobytes()
    (output,) = json.loads(wire.write(request, echo(request)).json)["outputs"]
    back = np.array(output.pop("data"), dtype=array.dtype)
    assert back.tobytes() == array.tobytes()
    assert output == described("y", datatype, array)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=4))
def test_binary_carries_what_json_cannot(values):
    array = np.array([values], np.float32)
    wire = V2Wire("m", "1", signature())
    head = orjson.dumps(
        {"inputs": [described("x", "FP32", array, parameters={"binary_data_size": array.nbytes})]}
    )
    request = wire.read(head + array.tobytes(), len(head))
    wire.write(request, echo(request))  # as JSON: NaN has no spelling there, but nothing breaks
    assert bytes(request.data[0]) == array.tobytes()


def test_a_raw_body_is_the_only_input():
    spec = TensorSpec("x", "FP32", ("n", 2), 0)
    wire = V2Wire("m", "1", Signature((spec,), (spec,), batchable=True))
    body = np.arange(6, dtype=np.float32).tobytes()
    assert wire.read(body, 0).layout.shapes[0] == (3, 2)
    for broken in (body[:-1], b"", body[:4]):
        with pytest.raises(BadRequest, match="row"):
            wire.read(broken, 0)
    with pytest.raises(BadRequest, match="exactly one input"):
        V2Wire("m", "1", two_inputs()).read(body, 0)
    with pytest.raises(BadRequest, match="symbolic dimensions"):
        V2Wire("m", "1", signature()).read(body, 0)


X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
S = {"name": "s", "datatype": "INT64", "shape": [1, 1], "data": [3]}


def test_a_request_may_mix_json_and_binary_tensors():
    x = {**X, "parameters": {"binary_data_size": 8}}
    del x["data"]
    head = orjson.dumps({"inputs": [S, x], "outputs": [{"name": "z"}]})
    raw = np.array([1, 2], np.float32).tobytes()
    wire = V2Wire("m", "1", two_inputs())
    request = wire.read(head + raw, len(head))
    assert bytes(request.data[0]) == raw
    assert bytes(request.data[1]) == np.array([3]).tobytes()
    z = Tensor((1,), np.array([0.5], np.float32).tobytes())
    (output,) = orjson.loads(wire.write(request, (echo(request)[0], z)).json)["outputs"]
    assert (output["name"], output["data"]) == ("z", [0.5])


def test_some_outputs_binary_and_some_not():
    document = {
        "inputs": [X, S],
        "outputs": [{"name": "z"}, {"name": "y", "parameters": {"binary_data": True}}],
    }
    wire = V2Wire("m", "1", two_inputs())
    request = wire.read(orjson.dumps(document), None)
    y, z = Tensor((1, 2), b"12345678"), Tensor((1,), b"\0\0\0\0")
    reply = wire.write(request, (y, z))
    assert reply.tensors == (b"12345678",)
    assert [o["name"] for o in orjson.loads(reply.json)["outputs"]] == ["z", "y"]


BAD = {
    "not an object": ([], "must be an object"),
    "no inputs": ({}, "'inputs' must be a list"),
    "inputs of numbers": ({"inputs": [1]}, "'inputs' must be a list"),
    "one missing": ({"inputs": [X]}, "'s' is missing"),
    "one too many": ({"inputs": [X, S, {**X, "name": "q"}]}, "no input 'q'; it has x, s"),
    "a name that is a list": ({"inputs": [X, S, {**X, "name": ["x"]}]}, "no input"),
    "given twice": ({"inputs": [X, S, X]}, "'x' is given twice"),
    "datatype": ({"inputs": [{**X, "datatype": "FP64"}, S]}, "'x' is FP32, not FP64"),
    "no shape": ({"inputs": [{**X, "shape": None}, S]}, "needs a shape"),
    "shape of floats": ({"inputs": [{**X, "shape": [1.0, 2]}, S]}, "needs a shape"),
    "wrong rank": ({"inputs": [{**X, "shape": [2]}, S]}, "has shape \\[-1, 2\\], not \\[2\\]"),
    "wrong size": ({"inputs": [{**X, "shape": [1, 3]}, S]}, "not \\[1, 3\\]"),
    "negative": ({"inputs": [{**X, "shape": [-1, 2]}, S]}, "not \\[-1, 2\\]"),
    "too many values": ({"inputs": [{**X, "data": [1, 2, 3]}, S]}, "needs 2 values, not 3"),
    "uneven": ({"inputs": [{**X, "data": [[1], [1, 2]]}, S]}, "evenly or flat"),
    "text": ({"inputs": [{**X, "data": ["a", "b"]}, S]}, "'x' is FP32; its data contains a string"),
    "null": ({"inputs": [{**X, "data": [None, 1]}, S]}, "'x'"),
    "an object as data": ({"inputs": [{**X, "data": {}}, S]}, "'x'"),
    "no data": ({"inputs": [{k: X[k] for k in X if k != "data"}, S]}, "neither data nor"),
    "booleans as numbers": ({"inputs": [{**X, "data": [True, False]}, S]}, "its data contains"),
    "floats for integers": ({"inputs": [X, {**S, "data": [1.5]}]}, "its data contains"),
    "too large for INT64": ({"inputs": [X, {**S, "data": [2**63]}]}, "does not fit INT64"),
    "too large for FP32": ({"inputs": [{**X, "data": [1e39, 1]}, S]}, "does not fit FP32"),
    "disagree": (
        {"inputs": [{**X, "shape": [2, 2], "data": [1, 2, 3, 4]}, S]},
        "disagree on the batch size: \\[1, 2\\]",
    ),
    "no rows": (
        {"inputs": [{**X, "shape": [0, 2], "data": []}, {**S, "shape": [1, 0], "data": []}]},
        "at least one row",
    ),
    "unknown output": ({"inputs": [X, S], "outputs": [{"name": "q"}]}, "no output 'q'"),
    "outputs of numbers": ({"inputs": [X, S], "outputs": [1]}, "'outputs' must be"),
    "outputs no list": ({"inputs": [X, S], "outputs": {"name": "y"}}, "'outputs' must be"),
    "the same output twice": (
        {"inputs": [X, S], "outputs": [{"name": "y"}, {"name": "y"}]},
        "output 'y' is requested twice",
    ),
    "parameters": ({"inputs": [X, S], "parameters": [1]}, "'parameters' must be an object"),
    "an id that is a number": ({"inputs": [X, S], "id": 7}, "'id' must be a string"),
    "a flag of text": (
        {"inputs": [X, S], "parameters": {"binary_data_output": "true"}},
        "'binary_data_output' must be true or false",
    ),
    "a flag of an output that is a number": (
        {"inputs": [X, S], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
        "'binary_data' must be true or false",
    ),
    "another model": ({"inputs": [X, S], "model_name": "other"}, "model_name 'other'.*'m'"),
    "another version": ({"inputs": [X, S], "model_version": 2}, "model_version 2.*'1'"),
    "binary size of text": (
        {"inputs": [{**X, "parameters": {"binary_data_size": "8"}}, S]},
        "number of bytes",
    ),
    "binary without bytes": (
        {"inputs": [{**X, "parameters": {"binary_data_size": 8}}, S]},
        "promises 8 bytes of binary tensors, the body has 0",
    ),
    "binary size and shape": (
        {"inputs": [{**X, "parameters": {"binary_data_size": 12}}, S]},
        "takes 8 bytes, binary_data_size says 12",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_says_what_is_wrong(case):
    document, text = BAD[case]
    with pytest.raises(BadRequest, match=text):
        V2Wire("m", "1", two_inputs()).read(orjson.dumps(document), None)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[nan]", b'{"a": 1e999}'])
def test_broken_json(body):
    with pytest.raises(BadRequest, match="is not valid JSON"):
        V2Wire("m", "1", two_inputs()).read(body, None)


def test_a_header_length_that_does_not_fit_the_body():
    with pytest.raises(BadRequest, match="does not fit a body of 2 bytes"):
        V2Wire("m", "1", two_inputs()).read(b"{}", 3)


@pytest.mark.parametrize("extra", [-1, 1])
def test_binary_sizes_that_do_not_add_up(extra):
    array = np.zeros((1, 2), np.float32)
    head = orjson.dumps(
        {"inputs": [described("x", "FP32", array, parameters={"binary_data_size": 8})]}
    )
    raw = bytes(8 + extra)
    with pytest.raises(BadRequest, match="promises 8 bytes"):
        V2Wire("m", "1", signature()).read(head + raw, len(head))


@pytest.mark.parametrize("size", [2**32, 2**63, 2**64 - 1])
def test_a_size_that_no_tensor_has_is_refused_even_without_elements(size):
    wide = {"name": "x", "datatype": "FP32", "shape": [1, 0, size], "data": []}
    spec = TensorSpec("x", "FP32", ("n", "", ""), 0)
    with pytest.raises(BadRequest, match="'x'"):
        V2Wire("m", "1", Signature((spec,), (spec,), batchable=True)).read(
            orjson.dumps({"inputs": [wide]}), None
        )


def test_large_heads_are_not_remembered():
    array = np.zeros((1, 2), np.float32)
    given = described("x", "FP32", array, parameters={"binary_data_size": 8})
    wire = V2Wire("m", "1", signature())
    for size in (1, 1 << 20):
        head = orjson.dumps({"inputs": [given], "parameters": {"padding": "p" * size}})
        wire.read(head + bytes(8), len(head))
    assert sum(map(len, wire._plans)) < 1 << 16


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
    | st.sampled_from(["x", "s", "FP32", "INT64", "y"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["name", "shape", "datatype", "data", "parameters", "binary_data_size"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)
FIELDS = ["name", "shape", "datatype", "data", "parameters"]


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=60), st.none() | st.integers(0, 80))
def test_arbitrary_bytes_are_a_bad_request_and_nothing_worse(body, size):
    with pytest.raises(BadRequest):
        V2Wire("m", "1", two_inputs()).read(body, size)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(FIELDS), ANY_JSON, ANY_JSON, ANY_JSON, st.booleans())
def test_arbitrary_json_in_any_place_is_a_bad_request_or_is_read(
    place, value, outputs, parameters, spread
):
    document = {"inputs": [{**X, place: value}, S]}
    if spread:
        document |= {"outputs": outputs, "parameters": parameters}
    with suppress(BadRequest):
        assert len(V2Wire("m", "1", two_inputs()).read(orjson.dumps(document), None).data) == 2


def test_small_and_very_large_unsigned_integers_together_stay_exact():
    values = [1, 2**63, 2**64 - 1]
    given = {"name": "x", "datatype": "UINT64", "shape": [1, 3], "data": values}
    request = V2Wire("m", "1", signature("UINT64")).read(orjson.dumps({"inputs": [given]}), None)
    assert np.frombuffer(request.data[0], np.uint64).tolist() == values


# What V2 and Triton's extensions would answer otherwise, by where it may stand.
MEANINGFUL = [
    ("outputs", "classification", 3),
    ("outputs", "shared_memory_region", "out"),
    ("outputs", "shared_memory_byte_size", 64),
    ("outputs", "shared_memory_offset", 8),
    ("inputs", "shared_memory_region", "in"),
    ("inputs", "shared_memory_byte_size", 64),
    ("inputs", "shared_memory_offset", 8),
    ("", "sequence_id", 7),
    ("", "sequence_id", "seven"),
    ("", "sequence_start", True),
    ("", "sequence_end", True),
    ("", "triton_enable_empty_final_response", True),
    ("", "triton_anything", "else"),
]
# Those that change nothing, and how the others say that they are not meant.
HARMLESS = [
    ("outputs", "classification", 0),
    ("outputs", "shared_memory_region", ""),
    ("inputs", "shared_memory_offset", 0),
    ("inputs", "content_type", "np"),
    ("", "sequence_id", 0),
    ("", "sequence_id", ""),
    ("", "sequence_start", False),
    ("", "sequence_end", None),
    ("", "headers", {"x-team": "a"}),
    ("", "my_own", 42),
    ("", "priority", 1),
]


def asking(where, name, value):
    """A request with this parameter, for one of the tensors or for all."""
    document = {"inputs": [X, S], "outputs": [{"name": "y"}]}
    of = {**document[where][0]} if where else document
    of["parameters"] = {name: value}
    return {**document, where: [of, *document[where][1:]]} if where else of


@pytest.mark.parametrize(("where", "name", "value"), MEANINGFUL)
def test_what_would_change_the_reply_is_refused_by_name(where, name, value):
    wire = V2Wire("m", "1", two_inputs())
    body = orjson.dumps(asking(where, name, value))
    with pytest.raises(BadRequest, match=f"parameter '{name}'"):
        wire.read(body, None)
    raw = np.zeros(3, np.int64).tobytes()
    document = asking(where, name, value)
    inputs = zip(document["inputs"], (8, 8), strict=True)
    document["inputs"] = [
        {k: v for k, v in one.items() if k != "data"}
        | {"parameters": {"binary_data_size": size, **one.get("parameters", {})}}
        for one, size in inputs
    ]
    head = orjson.dumps(document)
    for _ in range(2):
        with pytest.raises(BadRequest, match=f"parameter '{name}'"):
            wire.read(head + raw[:16], len(head))


@pytest.mark.parametrize(("where", "name", "value"), HARMLESS)
def test_what_changes_nothing_is_let_through(where, name, value):
    request = V2Wire("m", "1", two_inputs()).read(orjson.dumps(asking(where, name, value)), None)
    assert request.rows == 1


def test_a_request_may_say_whom_it_is_for():
    for more in (
        {"model_name": "m", "model_version": "1"},
        {"model_version": 1},
        {"model_name": ""},
    ):
        document = {"inputs": [X, S], **more}
        assert V2Wire("m", "1", two_inputs()).read(orjson.dumps(document), None).rows == 1


SCALAR = Signature(
    (TensorSpec("x", "FP32", ("n", 2), 0), TensorSpec("scale", "INT64", (), -1)),
    (TensorSpec("y", "FP32", ("n", 2), 0), TensorSpec("seen", "INT64", (), -1)),
    batchable=True,
)


@pytest.mark.parametrize("shape", [[], [1]])
def test_a_scalar_may_be_sent_as_a_list_of_one(shape):
    wire = V2Wire("m", "1", SCALAR)
    scale = {"name": "scale", "datatype": "INT64", "shape": shape}
    request = wire.read(orjson.dumps({"inputs": [X, {**scale, "data": [7]}]}), None)
    assert request.layout.shapes == ((1, 2), ())
    assert bytes(request.data[1]) == np.int64(7).tobytes()
    outputs = orjson.loads(wire.write(request, echo(request)).json)["outputs"]
    assert [(one["name"], one["shape"], one["data"]) for one in outputs][1] == ("seen", [], [7])
    raw = {**scale, "parameters": {"binary_data_size": 8}}
    head = orjson.dumps({"inputs": [X, raw]})
    request = wire.read(head + np.int64(7).tobytes(), len(head))
    assert (request.layout.shapes[1], bytes(request.data[1])) == ((), np.int64(7).tobytes())


@pytest.mark.parametrize(
    ("shape", "data"), [([2], [1, 2]), ([1, 1], [1]), ([0], []), ([1], [1, 2])]
)
def test_nothing_else_is_a_scalar(shape, data):
    scale = {"name": "scale", "datatype": "INT64", "shape": shape, "data": data}
    with pytest.raises(BadRequest, match="'scale'"):
        V2Wire("m", "1", SCALAR).read(orjson.dumps({"inputs": [X, scale]}), None)
