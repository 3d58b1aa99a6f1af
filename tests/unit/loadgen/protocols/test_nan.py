"""NaN and infinity in a load: read from files, sent over JSON, and judged, as what they are."""

import json
import math

import numpy as np
import orjson
import pytest

from dlbench.loadgen.errors import DataError
from dlbench.loadgen.inputs.inputs import read_rows
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.judge import judge_of
from dlbench.loadgen.protocols.payloads import requests_of
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import TensorSpec

NAN, INF = math.nan, math.inf
JSON_PROTOCOLS = ["v2", "tfserving", "torchserve", "plain"]
FLOATS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
ROWS = [[NAN, 1.5], [INF, -INF], [0.1, 1e-4]]


def tensor(name="x", datatype="FP32", size=2):
    return TensorSpec(name=name, datatype=datatype, shape=(-1, size), batch_axis=0)


def target(protocol, datatype="FP32", outputs=True):
    return Target(
        url="http://h:1",
        protocol=protocol,
        model="m",
        path="/p",
        inputs=(tensor(datatype=datatype),),
        outputs=(tensor("y", datatype),) if outputs else (),
    )


def values_of(document):
    """The row in a request of any protocol."""
    if "inputs" in document:
        (document,) = document["inputs"]
        return document["data"]
    return (document.get("instances") or document["x"])[0]


@pytest.mark.parametrize("protocol", JSON_PROTOCOLS)
@pytest.mark.parametrize("datatype", FLOATS)
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".jsonl"])
def test_data_is_sent_as_it_is(tmp_path, protocol, datatype, suffix):
    path = tmp_path / f"data{suffix}"
    rows = np.array(ROWS, FLOATS[datatype])
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps({"x": row.tolist()}) + "\n" for row in rows))
    else:
        (np.savez(path, x=rows) if suffix == ".npz" else np.save(path, rows))
    profile = LoadProfile(data=str(path), encoding="json")
    requests = requests_of(target(protocol, datatype), profile, 0)
    for number, row in enumerate(rows):
        body = bytes(requests.at(number)).partition(b"\r\n\r\n")[2]
        sent = np.array(values_of(json.loads(body)), FLOATS[datatype])
        assert sent.tobytes() == row.tobytes(), body


def reply(protocol, row, spelled=json.dumps):
    """What a server answers, whose JSON is spelled so."""
    if protocol == "v2":
        output = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": row}
        return spelled({"outputs": [output]})
    if protocol == "plain":
        return spelled({"y": [row]})
    return spelled({"predictions": [row]})


@pytest.mark.parametrize("protocol", JSON_PROTOCOLS)
def test_replies_are_held_against_what_is_expected(tmp_path, protocol):
    expected = tmp_path / "expected.jsonl"
    expected.write_text('{"y": [NaN, 1.5]}\n{"y": [Infinity, -Infinity]}\n')
    data = tmp_path / "data.jsonl"
    data.write_text('{"x": [1, 2]}\n{"x": [3, 4]}\n')
    given = target(protocol, outputs=protocol in ("v2", "tfserving"))
    profile = LoadProfile(data=str(data), check=str(expected), encoding="json")
    says = judge_of(given, profile, requests_of(given, profile, 0))
    for _ in range(2):
        assert says(reply(protocol, [NAN, 1.5]).encode(), 0) == ""
        assert says(reply(protocol, [INF, -INF]).encode(), 1) == ""
        for number, row in (
            (0, [NAN, 1.6]),
            (0, [1.0, 1.5]),
            (0, [INF, 1.5]),
            (1, [INF, INF]),
            (1, [NAN, -INF]),
            (1, [3e38, -3e38]),
        ):
            assert says(reply(protocol, row).encode(), number) == "wrong_output", row


@pytest.mark.parametrize("protocol", JSON_PROTOCOLS)
def test_null_is_not_the_nan_that_is_expected(tmp_path, protocol):
    expected = tmp_path / "expected.jsonl"
    expected.write_text('{"y": [NaN, 1.5]}\n')
    given = target(protocol)
    profile = LoadProfile(data=str(expected).replace("expected", "data"), check=str(expected))
    (tmp_path / "data.jsonl").write_text('{"x": [1, 2]}\n')
    says = judge_of(given, profile, requests_of(given, profile, 0))
    assert says(reply(protocol, [None, 1.5], orjson.dumps), 0) in ("wrong_shape", "wrong_output")
    assert says(reply(protocol, [NAN, 1.5], orjson.dumps), 0) in ("wrong_shape", "wrong_output")


@pytest.mark.parametrize("protocol", JSON_PROTOCOLS)
def test_what_is_almost_json_is_not_json(protocol):
    given = target(protocol)
    says = judge_of(given, LoadProfile(), requests_of(given, LoadProfile(), 0))
    for body in (b'{"outputs":[NaN', b"[nan]", b"[" * 100_000 + b"NaN", b'{"a":-NaN}', b"\xffNaN"):
        assert says(body, 0) == "not_json"


def test_a_v2_reply_of_json_and_raw_tensors_holds_nan(tmp_path):
    outputs = [
        {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [NAN, 1]},
        {"name": "z", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
    ]
    body = json.dumps({"outputs": outputs}).encode() + np.float32(NAN).tobytes()
    expected = tmp_path / "expected.jsonl"
    expected.write_text('{"y": [NaN, 1], "z": [NaN]}\n')
    (tmp_path / "data.jsonl").write_text('{"x": [1, 2]}\n')
    given = target("v2").model_copy(
        update={"outputs": (tensor("y"), TensorSpec(name="z", datatype="FP32", shape=(1,)))}
    )
    profile = LoadProfile(data=str(tmp_path / "data.jsonl"), check=str(expected))
    says = judge_of(given, profile, requests_of(given, profile, 0))
    assert says(body, 0) == ""
    assert says(body[:-4] + np.float32(1).tobytes(), 0) == "wrong_output"


@pytest.mark.parametrize(
    ("datatype", "line", "says"),
    [
        ("FP32", '{"x": [null, 1]}', "null"),
        ("FP32", '{"x": ["1", "2"]}', "not numbers"),
        ("FP32", '{"x": [1e39, 1]}', "does not fit FP32"),
        ("FP16", '{"x": [1e5, 1]}', "does not fit FP16"),
        ("INT64", '{"x": [1.5, 1]}', "does not fit INT64"),
        ("INT64", '{"x": [NaN, 1]}', "INT64"),
        ("INT8", '{"x": [128, 1]}', "INT8"),
        ("BOOL", '{"x": [2, 0]}', "does not fit BOOL"),
        ("BOOL", '{"x": [NaN, true]}', "BOOL"),
    ],
)
def test_data_that_would_become_another_number_is_refused(tmp_path, datatype, line, says):
    path = tmp_path / "data.jsonl"
    path.write_text(line)
    with pytest.raises(DataError, match=says):
        read_rows(path, (tensor(datatype=datatype),))


def test_arrays_that_would_become_other_numbers_are_refused(tmp_path):
    path = tmp_path / "data.npz"
    for array, datatype in (([[1.5, 2]], "INT64"), ([[300, 1]], "UINT8"), ([[NAN, 1]], "INT32")):
        np.savez(path, x=np.array(array))
        with pytest.raises(DataError, match=datatype):
            read_rows(path, (tensor(datatype=datatype),))


def test_large_integers_are_read_to_the_last_digit(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"x": [1, {2**64 - 1}]}}\n{{"x": [0, {2**53 + 1}]}}')
    rows = read_rows(path, (tensor(datatype="UINT64"),))
    assert [row["x"].tolist() for row in rows] == [[[1, 2**64 - 1]], [[0, 2**53 + 1]]]
