"""Right and wrong replies, as servers really write them."""

import json

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.errors import DataError
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.judge import NoShapes, judge_of
from dlbench.loadgen.protocols.payloads import requests_of
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import TensorSpec

SPEC = TensorSpec(name="x", datatype="FP32", shape=(-1, 2), batch_axis=0)
OUTPUT = TensorSpec(name="y", datatype="FP32", shape=(-1, 3), batch_axis=0)


def judge(profile=LoadProfile(), **changes):  # noqa: B008 - frozen
    given = {
        "url": "http://h:1",
        "model": "m",
        "path": "/p",
        "inputs": (SPEC,),
        "outputs": (OUTPUT,),
    }
    target = Target(**{**given, **changes})
    return judge_of(target, profile, requests_of(target, profile, 0))


def as_json(values, shape=None, datatype="FP32", name="y"):
    shape = shape or [1, len(values)]
    output = {"name": name, "datatype": datatype, "shape": shape, "data": values}
    return orjson.dumps({"model_name": "m", "outputs": [output]})


def as_binary(values, shape=None, size=None):
    raw = np.array(values, "<f4").tobytes()
    output = {"name": "y", "datatype": "FP32", "shape": shape or [1, len(values)]}
    output["parameters"] = {"binary_data_size": len(raw) if size is None else size}
    return orjson.dumps({"model_name": "m", "outputs": [output]}) + raw


RIGHT = (as_json([1, 2, 3]), as_json([-1e-9, 0.25, 3e30]), as_binary([1, 2, 3]))
WRONG = {
    "too short": (as_json([1, 2]), "wrong_shape"),
    "two rows": (as_json([1, 2, 3, 4, 5, 6], [2, 3]), "wrong_shape"),
    "too few values": (as_json([1, 2], [1, 3]), "wrong_shape"),
    "another type": (as_json([1, 2, 3], datatype="INT64"), "wrong_shape"),
    "another name": (as_json([1, 2, 3], name="z"), "wrong_shape"),
    "no outputs": (b"{}", "wrong_shape"),
    "a list": (b"[1]", "wrong_shape"),
    "an error": (b'{"error": "overloaded"}', "wrong_shape"),
    "outputs that are none": (b'{"outputs": [1]}', "wrong_shape"),
    "HTML": (b"<html>", "not_json"),
    "nothing": (b"", "not_json"),
    "cut off": (as_binary([1, 2, 3])[:-1], "wrong_shape"),
    "more bytes": (as_binary([1, 2, 3]) + b"\0", "wrong_shape"),
    "binary, too short": (as_binary([1, 2]), "wrong_shape"),
    "sizes that do not agree": (as_binary([1, 2, 3], size=8), "wrong_shape"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_wrong_before_and_after_right_ones(case):
    body, kind = WRONG[case]
    says = judge()
    assert says(body, 0) == kind
    for right in RIGHT:
        assert says(right, 0) == says(right, 1) == ""
    assert says(body, 0) == kind


@given(st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_all_values_are_right(rows):
    says = judge()
    assert {says(as_binary(row), n) for n, row in enumerate(rows)} == {""}
    finite = [[value if np.isfinite(value) else 0 for value in row] for row in rows]
    assert {says(as_json(row), n) for n, row in enumerate(finite)} == {""}


def test_a_look_that_was_right_is_not_parsed_again():
    read = []

    def reader(body):
        read.append(body)
        return says_read(body)

    says = judge()
    says_read, says._read = says._read, reader
    for number in range(5):
        for body in (as_json([number, 2.5, 3]), as_binary([number, 2, 3])):
            assert says(body, number) == ""
    assert len(read) == 2
    for number in range(200):  # every one of another look: memory is bounded
        assert says(as_json([1, 2, 3]).replace(b'"m"', b'"%s"' % (b"m" * number)), 0) == ""
    assert len(says._skeletons) < 100


def test_sizes_that_the_model_decides_are_free():
    found = TensorSpec(name="y", datatype="FP32", shape=(-1, -1))
    says = judge(outputs=(found,))
    assert says(as_json([1, 2, 3, 4], [4, 1]), 0) == says(as_json([1, 2]), 0) == ""
    assert says(as_json([1, 2], [2]), 0) == "wrong_shape"


def test_without_metadata_nothing_is_judged():
    assert isinstance(judge(outputs=()), NoShapes)
    assert judge(outputs=())(b"anything", 0) == ""


TFSERVING = {
    b'{"predictions": [[1, 2, 3]]}': "",
    b'{"predictions": [[1, 2]]}': "wrong_shape",
    b'{"predictions": [[1, 2, 3], [1, 2, 3]]}': "wrong_shape",
    b'{"predictions": ["a"]}': "wrong_shape",
    b'{"outputs": [[1, 2, 3]]}': "wrong_shape",
    b'{"error": "no"}': "wrong_shape",
    b"oops": "not_json",
}


def test_predictions_of_tensorflow_serving():
    says = judge(protocol="tfserving")
    assert {body: says(body, 0) for body in TFSERVING} == TFSERVING


@pytest.mark.parametrize("protocol", ["plain", "torchserve"])
def test_without_metadata_the_first_reply_is_the_measure(protocol):
    says = judge(protocol=protocol, outputs=())
    assert says(b"<html>", 0) == "not_json"
    assert says(b'{"error": "no"}', 0) == "wrong_shape"
    replies = {
        b'{"output": [[1, 2, 3]]}': "",
        b'{"output": [[-1e5, 2, 3.5]]}': "",
        b'{"output": [[1, 2]]}': "wrong_shape",
        b'{"output": "abc"}': "wrong_shape",
        b'{"error": "no"}': "wrong_shape",
        b"[[1, 2, 3]]": "wrong_shape",
        b"<html>": "not_json",
    }
    assert {body: says(body, 0) for body in replies} == replies


@pytest.mark.parametrize("protocol", ["plain", "torchserve"])
def test_nothing_is_an_answer_if_it_always_is(protocol):
    says = judge(protocol=protocol, outputs=())
    assert [says(body, 0) for body in (b"", b"", b"[1]")] == ["", "", "wrong_shape"]
    says = judge(protocol=protocol, outputs=())
    assert [says(body, 0) for body in (b"[1]", b"")] == ["", "wrong_shape"]


def test_given_inputs_may_get_replies_of_other_sizes(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"x": [1, 2]}\n{"x": [3, 4]}')
    says = judge(LoadProfile(data=str(tmp_path / "data.jsonl")), protocol="plain", outputs=())
    assert says(b'[{"cat": 0.9}]', 0) == says(b'[{"dog": 0.9}, {"cat": 0.1}]', 1) == says(b"[]", 2)
    assert says(b'{"cat": 1}', 0) == "wrong_shape"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"x": [1, 2]}\n{"x": [3, 4]}')
    (tmp_path / "right.jsonl").write_text('{"y": [1, 2, 3]}\n{"y": [4, 5, 6]}')
    np.savez(tmp_path / "right.npz", y=np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    return tmp_path


@pytest.mark.parametrize("expected", ["right.jsonl", "right.npz"])
def test_check_compares_with_the_row_that_was_sent(files, expected):
    profile = LoadProfile(data=str(files / "data.jsonl"), check=str(files / expected))
    says = judge(profile)
    for write in (as_json, as_binary):
        assert says(write([1, 2, 3]), 0) == says(write([4, 5.0001, 6]), 3) == ""
        assert says(write([1, 2, 3]), 1) == says(write([4, 5.01, 6]), 1) == "wrong_output"
        assert says(write([1, 2]), 0) == "wrong_shape"


def test_check_of_plain_json(files):
    data, check = (str(files / name) for name in ("data.jsonl", "right.jsonl"))
    says = judge(LoadProfile(data=data, check=check), protocol="plain", outputs=())
    assert says(b'{"output": [1, 2, 3]}', 0) == ""
    assert says(b'{"output": [1, 2, 4]}', 0) == "wrong_output"
    assert says(json.dumps({"outputs": {"y": [[4, 5, 6]], "z": 1}}).encode(), 1) == ""
    assert says(b'{"output": [[1], [2, 3]]}', 0) == "wrong_output"


def test_check_of_texts(files):
    (files / "texts.jsonl").write_text('{"y": "cat"}\n{"y": "dög"}')
    data, check = (str(files / name) for name in ("data.jsonl", "texts.jsonl"))
    says = judge(LoadProfile(data=data, check=check), protocol="plain", outputs=())
    assert says('{"label": "dög"}'.encode(), 1) == says(b'{"label": "cat"}', 0) == ""
    assert says(b'{"label": "cat"}', 1) == says(b'{"label": 3}', 1) == "wrong_output"
    output = TensorSpec(name="y", datatype="BYTES", shape=(-1,))
    (files / "texts.jsonl").write_text('{"y": ["cat"]}\n{"y": ["dög"]}')
    says = judge(LoadProfile(data=data, check=check), outputs=(output,))
    assert says(as_json(["dög"], [1], "BYTES"), 1) == ""
    assert says(as_json(["dog"], [1], "BYTES"), 1) == "wrong_output"


def test_expected_outputs_that_do_not_fit(files):
    (files / "bad.jsonl").write_text('{"z": [1, 2, 3]}')
    with pytest.raises(DataError, match="'y' is missing"):
        judge(LoadProfile(data=str(files / "data.jsonl"), check=str(files / "bad.jsonl")))
