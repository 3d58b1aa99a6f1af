"""Requests as a server would read them: valid, distinct, and the same again with the same seed."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.digits import BINARY, JSON, Place, Stamped, places_needed
from dlbench.loadgen.errors import DataError
from dlbench.loadgen.inputs import read_rows
from dlbench.loadgen.payloads import generated_requests, recorded_requests
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.tensors import DATATYPES, TensorSpec

TO = ("127.0.0.1:8000", "/v2/models/m/infer")

shapes = st.lists(st.integers(1, 4), min_size=0, max_size=2)
specs = st.lists(
    st.builds(
        lambda datatype, shape: (datatype, (-1, *shape)), st.sampled_from(sorted(DATATYPES)), shapes
    ),
    min_size=1,
    max_size=3,
).map(
    lambda drawn: tuple(
        TensorSpec(name=f"x{i}", datatype=datatype, shape=shape, batch_axis=0)
        for i, (datatype, shape) in enumerate(drawn)
    )
)


def decode(request):
    """(headers, {name: array}) of a request, read as the protocol says."""
    head, _, body = bytes(request).partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    assert line == f"POST {TO[1]} HTTP/1.1"
    headers = {name.lower(): value for name, value in (text.split(": ") for text in lines)}
    assert int(headers["content-length"]) == len(body)
    length = int(headers.get("inference-header-content-length", len(body)))
    raw, arrays = body[length:], {}
    for tensor in json.loads(body[:length])["inputs"]:
        dtype = DATATYPES[tensor["datatype"]]
        if "data" in tensor:
            array = np.array(tensor["data"], dtype)
        else:
            size = tensor["parameters"]["binary_data_size"]
            own, raw = raw[:size], raw[size:]
            array = texts(own) if tensor["datatype"] == "BYTES" else np.frombuffer(own, dtype)
        arrays[tensor["name"]] = array.reshape(tensor["shape"])
    assert not raw
    return headers, arrays


def texts(raw):
    found = []
    while raw:
        size = int.from_bytes(raw[:4], "little")
        found.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return np.array(found, object)


def is_small_and_valid(array, datatype):
    if datatype.startswith("FP"):
        return bool(np.all((array >= 0) & (array < 1)))
    if datatype in ("UINT8", "BOOL"):
        return True
    if datatype == "BYTES":
        return all(len(item) == 8 for item in array.ravel())
    return bool(np.all((array >= 0) & (array < 10)))


def content(arrays):
    return tuple(
        tuple(array.ravel()) if array.dtype == object else array.tobytes()
        for array in arrays.values()
    )


@given(specs, st.booleans(), st.integers(0, 100))
def test_requests_are_valid_v2_with_small_values(inputs, binary, nonce):
    make = generated_requests(inputs, binary, LoadProfile(), nonce, TO)
    for _ in range(12):
        headers, arrays = decode(make())
        assert ("inference-header-content-length" in headers) is binary
        for spec in inputs:
            assert arrays[spec.name].shape == spec.row_shape
            assert is_small_and_valid(arrays[spec.name], spec.datatype)


@given(
    st.sampled_from(["FP16", "FP32", "FP64", "INT64", "INT8", "UINT8", "BYTES", "BOOL"]),
    st.booleans(),
)
def test_every_input_is_new_after_rounding_to_its_datatype(datatype, binary):
    inputs = (TensorSpec(name="x", datatype=datatype, shape=(-1, 40), batch_axis=0),)
    make = generated_requests(inputs, binary, LoadProfile(), 1, TO)
    seen = [content(decode(make())[1]) for _ in range(1500)]
    assert len(set(seen)) == len(seen)


def test_digits_carry_into_the_next_element():
    show = Stamped(bytes(12), [Place(BINARY["FP32"], 0), Place(BINARY["FP32"], 4)]).show
    base = BINARY["FP32"].base
    numbers = [0, 1, base - 1, base, base + 1, 5 * base + 3, 2, base]
    shown = [bytes(show(number)) for number in numbers]
    assert len(set(shown)) == len(numbers) - 1
    assert shown[3] == shown[-1]  # whatever was shown in between


@given(st.sampled_from(sorted(DATATYPES)), st.integers(0, 2**53))
def test_digits_keep_their_width(datatype, number):
    for digits in (BINARY, JSON):
        digit = digits[datatype]
        assert len(digit.render(number % digit.base)) == digit.width


@given(st.lists(st.integers(2, 300), min_size=1, max_size=12), st.integers(1, 10**9))
def test_as_few_places_as_tell_the_numbers_apart(bases, numbers):
    used = places_needed(bases, numbers)
    assert used == len(bases) or np.prod(bases[:used], dtype=float) >= numbers
    assert used == 0 or np.prod(bases[: used - 1], dtype=float) < numbers


def test_distinct_repeats_the_same_inputs_in_every_run():
    inputs = (TensorSpec(name="x", datatype="FP32", shape=(-1, 8), batch_axis=0),)
    profile = LoadProfile(distinct=5, zipf=1.0, seed=3)
    runs = [
        [bytes(make()) for _ in range(300)]
        for make in (generated_requests(inputs, True, profile, nonce, TO) for nonce in (1, 2))
    ]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 5


def test_new_inputs_differ_from_those_of_an_earlier_run():
    inputs = (TensorSpec(name="x", datatype="FP32", shape=(-1, 8), batch_axis=0),)
    runs = [
        {bytes(make()) for _ in range(50)}
        for make in (generated_requests(inputs, True, LoadProfile(), n, TO) for n in (1, 2))
    ]
    assert not runs[0] & runs[1]


def test_more_distinct_inputs_than_the_model_can_have():
    inputs = (TensorSpec(name="x", datatype="BOOL", shape=(-1, 3), batch_axis=0),)
    with pytest.raises(DataError, match="only 8 can be distinct"):
        generated_requests(inputs, True, LoadProfile(distinct=9), 0, TO)


SILERO = (
    TensorSpec(name="input", datatype="FP32", shape=(-1, 4), batch_axis=0),
    TensorSpec(name="state", datatype="FP32", shape=(2, -1, 3), batch_axis=1),
)


def test_npz_samples_get_their_batch_dimension(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, input=np.arange(12.0).reshape(3, 4), state=np.zeros((3, 2, 3)))
    rows = read_rows(path, SILERO)
    assert [row["input"].shape for row in rows] == [(1, 4)] * 3
    assert rows[0]["state"].shape == (2, 1, 3)
    assert rows[1]["input"].dtype == np.float32
    make = recorded_requests(rows, SILERO, True, LoadProfile(), TO)
    sent = [decode(make())[1]["input"].ravel().tolist() for _ in range(4)]
    assert sent == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [0, 1, 2, 3]]


def test_jsonl_samples(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"x": [[1, 2]], "s": ["héllo"]}\n\n{"x": [[3, 4]], "s": ["b"]}\n')
    inputs = (
        TensorSpec(name="x", datatype="INT64", shape=(-1, 2), batch_axis=0),
        TensorSpec(name="s", datatype="BYTES", shape=(-1,), batch_axis=0),
    )
    rows = read_rows(path, inputs)
    for binary in (True, False):
        make = recorded_requests(rows, inputs, binary, LoadProfile(), TO)
        arrays = decode(make())[1]
        assert arrays["x"].tolist() == [[1, 2]]
        assert arrays["s"][0] in ("héllo", "héllo".encode())
    assert len(rows) == 2


def test_popularity_chooses_among_the_first_samples(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f'{{"x": [{n}]}}\n' for n in range(10)))
    inputs = (TensorSpec(name="x", datatype="INT64", shape=(-1,), batch_axis=0),)
    make = recorded_requests(
        read_rows(path, inputs), inputs, True, LoadProfile(distinct=3, zipf=1), TO
    )
    assert {int(decode(make())[1]["x"][0]) for _ in range(200)} == {0, 1, 2}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.txt", "", "data files end in"),
        ("data.jsonl", "not json\n", "cannot read data"),
        ("data.jsonl", "", "holds no samples"),
        ("data.jsonl", '{"y": [1]}\n', "'x' is missing"),
        ("data.jsonl", '{"x": [[1, 2, 3]]}\n', "has shape"),
        ("data.jsonl", '{"x": "abc"}\n', "cannot read data"),
        ("data.npz", "no archive", "cannot read data"),
    ],
)
def test_a_data_file_that_does_not_fit_is_one_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    inputs = (TensorSpec(name="x", datatype="FP32", shape=(-1, 2), batch_axis=0),)
    with pytest.raises(DataError, match=message) as caught:
        read_rows(path, inputs)
    assert "\n" not in str(caught.value)


def test_an_unknown_datatype_is_refused_by_name():
    inputs = (TensorSpec(name="x", datatype="BF16", shape=(-1, 2), batch_axis=0),)
    with pytest.raises(DataError, match="BF16"):
        generated_requests(inputs, True, LoadProfile(), 0, TO)


def test_another_seed_draws_in_another_order_from_the_same_inputs():
    inputs = (TensorSpec(name="x", datatype="FP32", shape=(-1, 8), batch_axis=0),)
    profiles = [LoadProfile(distinct=5, zipf=1.0, seed=seed) for seed in (3, 4)]
    runs = [
        [bytes(make()) for _ in range(300)]
        for make in (generated_requests(inputs, True, profile, 1, TO) for profile in profiles)
    ]
    assert runs[0] != runs[1]
    assert set(runs[0]) == set(runs[1])
