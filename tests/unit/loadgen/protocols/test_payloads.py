"""Requests as a server would read them: valid, distinct, and the same again with the same seed."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.errors import DataError
from dlbench.loadgen.inputs.inputs import read_rows, specs_of
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.digits import BINARY, JSON, Place, Stamped, places_needed
from dlbench.loadgen.protocols.payloads import requests_of
from dlbench.loadgen.target import Target
from dlbench.loadgen.tensors import DATATYPES, TensorSpec

PATH = "/v2/models/m/infer"


def target(inputs, **changes):
    given = {"url": "http://127.0.0.1:8000", "model": "m", "path": PATH, "inputs": inputs}
    return Target(**{**given, **changes})


def made(inputs, binary, profile, nonce=0, **changes):
    """The requests for a V2 server, by number."""
    profile = profile.model_copy(update={"encoding": "binary" if binary else "json"})
    return requests_of(target(inputs, **changes), profile, nonce)


def first(requests, count):
    return [bytes(requests.at(number)) for number in range(count)]


def spec(name="x", datatype="FP32", shape=(-1, 8)):
    return TensorSpec(name=name, datatype=datatype, shape=shape, batch_axis=0)


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
    assert line == f"POST {PATH} HTTP/1.1"
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
    for request in first(made(inputs, binary, LoadProfile(), nonce), 12):
        headers, arrays = decode(request)
        assert headers["host"] == "127.0.0.1:8000"
        assert ("inference-header-content-length" in headers) is binary
        for one in inputs:
            assert arrays[one.name].shape == one.row_shape
            assert is_small_and_valid(arrays[one.name], one.datatype)


@given(
    st.sampled_from(["FP16", "FP32", "FP64", "INT64", "INT8", "UINT8", "BYTES", "BOOL"]),
    st.booleans(),
)
def test_every_input_is_new_after_rounding_to_its_datatype(datatype, binary):
    requests = made((spec(datatype=datatype, shape=(-1, 40)),), binary, LoadProfile(), 1)
    seen = [content(decode(request)[1]) for request in first(requests, 1500)]
    assert len(set(seen)) == len(seen)


@given(st.lists(st.integers(0, 2**40), min_size=2, max_size=20), st.booleans())
def test_a_request_depends_on_its_number_alone(numbers, binary):
    profile = LoadProfile(distinct=50, zipf=1, churn=0.1) if binary else LoadProfile()
    numbers = [number % 5000 for number in numbers] if binary else numbers
    one, other = (made((spec(),), binary, profile) for _ in range(2))
    ahead = {number: bytes(one.at(number)) for number in sorted(numbers)}
    assert all(bytes(other.at(number)) == ahead[number] for number in numbers)


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
    profile = LoadProfile(distinct=5, zipf=1.0, seed=3)
    runs = [first(made((spec(),), True, profile, nonce), 300) for nonce in (1, 2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 5


def test_another_seed_draws_in_another_order_from_the_same_inputs():
    profiles = [LoadProfile(distinct=5, zipf=1.0, seed=seed) for seed in (3, 4)]
    runs = [first(made((spec(),), True, profile), 300) for profile in profiles]
    assert runs[0] != runs[1]
    assert set(runs[0]) == set(runs[1])


def test_new_inputs_differ_from_those_of_an_earlier_run():
    runs = [set(first(made((spec(),), True, LoadProfile(), nonce), 50)) for nonce in (1, 2)]
    assert not runs[0] & runs[1]


def test_churn_brings_new_inputs_in_for_good():
    still = first(made((spec(),), True, LoadProfile(distinct=5)), 4000)
    moved = first(made((spec(),), True, LoadProfile(distinct=5, churn=0.01)), 4000)
    new = set(moved) - set(still)
    assert 20 < len(new) < 70
    assert max(moved.count(request) for request in new) > 20
    assert not set(moved[-500:]) & set(still)


def test_more_distinct_inputs_than_the_model_can_have():
    with pytest.raises(DataError, match="only 8 can be distinct"):
        made((spec(datatype="BOOL", shape=(-1, 3)),), True, LoadProfile(distinct=9))


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
    requests = made(SILERO, True, LoadProfile(data=str(path)))
    sent = [decode(request)[1]["input"].ravel().tolist() for request in first(requests, 4)]
    assert sent == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [0, 1, 2, 3]]
    assert [requests.row(number) for number in range(4)] == [0, 1, 2, 0]


def test_npy_is_the_only_input(tmp_path):
    path = tmp_path / "data.npy"
    np.save(path, np.arange(6).reshape(3, 2))
    requests = made((spec(shape=(-1, 2)),), True, LoadProfile(data=str(path)))
    sent = [decode(request)[1]["x"].tolist() for request in first(requests, 3)]
    assert sent == [[[0, 1]], [[2, 3]], [[4, 5]]]
    with pytest.raises(DataError, match="holds one input, the model has 2"):
        read_rows(path, SILERO)


def test_jsonl_samples(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"x": [[1, 2]], "s": ["héllo"]}\n\n{"x": [[3, 4]], "s": ["b"]}\n')
    inputs = (spec(datatype="INT64", shape=(-1, 2)), spec("s", "BYTES", (-1,)))
    for binary in (True, False):
        arrays = decode(made(inputs, binary, LoadProfile(data=str(path))).at(0))[1]
        assert arrays["x"].tolist() == [[1, 2]]
        assert arrays["s"][0] in ("héllo", "héllo".encode())
    assert len(read_rows(path, inputs)) == 2


def numbered(folder, count):
    path = folder / "data.jsonl"
    path.write_text("".join(f'{{"x": [{n}]}}\n' for n in range(count)))
    return path, (spec(datatype="INT64", shape=(-1,)),)


def test_popularity_chooses_among_the_first_samples(tmp_path):
    path, inputs = numbered(tmp_path, 10)
    profile = LoadProfile(distinct=3, zipf=1, data=str(path))
    requests = made(inputs, True, profile)
    sent = [int(decode(request)[1]["x"][0]) for request in first(requests, 200)]
    assert set(sent) == {0, 1, 2}
    assert [requests.row(number) for number in range(200)] == sent
    churning = made(inputs, True, profile.model_copy(update={"churn": 0.2}))
    assert {churning.row(number) for number in range(500)} == set(range(10))
    with pytest.raises(DataError, match="churn needs more rows"):
        made(inputs, True, LoadProfile(data=str(path), churn=0.1))


def test_a_data_file_describes_its_inputs(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"x": [[1, 2]], "s": "a", "n": [1]}\n{"x": [[3, 4.5]], "s": "b", "n": [1, 2]}')
    found = {one.name: (one.datatype, one.shape) for one in specs_of(path)}
    assert found == {"x": ("FP64", (1, 2)), "s": ("BYTES", ()), "n": ("INT64", (-1,))}


def test_a_folder_of_raw_bodies_is_sent_as_it_is(tmp_path):
    for name, body in (("b.json", b"{}"), ("a.bin", b"\0\1"), (".hidden", b"no")):
        (tmp_path / name).write_bytes(body)
    requests = made((spec(),), False, LoadProfile(data=str(tmp_path)))
    for number, kind, body in ((0, b"octet-stream", b"\0\1"), (1, b"json", b"{}")):
        head, _, found = requests.at(number).partition(b"\r\n\r\n")
        assert (found, b"Content-Type: application/" + kind in head) == (body, True)


@pytest.mark.parametrize("shape", [(-1, 3, 2, 4), (-1, 2, 4, 3), (2, 4, 3)])
@pytest.mark.parametrize(("datatype", "red"), [("FP32", 1.0), ("UINT8", 255)])
def test_a_folder_of_images(tmp_path, shape, datatype, red):
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pillow.new("RGB", (40, 20), (255, 0, 0)).save(tmp_path / "a.png")
    one = spec(datatype=datatype, shape=shape)
    one = one.model_copy(update={"batch_axis": 0 if shape[0] == -1 else None})
    array = decode(made((one,), True, LoadProfile(data=str(tmp_path))).at(0))[1]["x"]
    assert array.shape == one.row_shape
    channels = array.reshape(3, -1).T if shape[1] == 3 else array.reshape(-1, 3)
    assert channels.tolist() == [[red, 0, 0]] * 8


def test_images_for_a_model_without_any(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"one input of known height|Pillow"):
        made((spec(shape=(-1, 7)),), True, LoadProfile(data=str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.txt", "", "data files end in"),
        ("data.jsonl", "not json\n", "cannot read data"),
        ("data.jsonl", "[1, 2]\n", "not a JSON object"),
        ("data.jsonl", "", "contains no samples"),
        ("data.jsonl", '{"y": [1]}\n', "'x' is missing"),
        ("data.jsonl", '{"x": [[1, 2, 3]]}\n', "has shape"),
        ("data.jsonl", '{"x": "abc"}\n', "cannot read data"),
        ("data.npz", "no archive", "cannot read data"),
        ("data.npy", "no array", "cannot read data"),
    ],
)
def test_a_data_file_that_does_not_fit_is_one_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_rows(path, (spec(shape=(-1, 2)),))
    assert "\n" not in str(caught.value)


def test_an_unknown_datatype_is_refused_by_name():
    with pytest.raises(DataError, match="BF16"):
        made((spec(datatype="BF16"),), True, LoadProfile())


CLASSES = {"rare": {"weight": 1, "priority": 2, "deadline_ms": 5}, "usual": {"weight": 3}}


@pytest.mark.parametrize("binary", [True, False])
def test_classes_come_by_weight_and_say_what_they_are(binary):
    requests = made((spec(),), binary, LoadProfile(request_class=CLASSES))
    numbers = np.arange(4000)
    found = requests.classes(numbers)
    assert 800 < np.count_nonzero(found == 0) < 1200
    for number in range(20):
        head, _, body = bytes(requests.at(number)).partition(b"\r\n\r\n")
        length = int(decode(head + b"\r\n\r\n" + body)[0].get(LENGTH, len(body)))
        stated = json.loads(body[:length]).get("parameters", {})
        stated.pop("binary_data_output", None)
        assert stated == ({"priority": 2, "timeout": 5000} if found[number] == 0 else {})
    assert requests.classes(numbers[::-7]).tolist() == found[::-7].tolist()


LENGTH = "inference-header-content-length"


def test_a_class_may_have_data_of_its_own(tmp_path):
    path, inputs = numbered(tmp_path, 3)
    profile = LoadProfile(request_class={"given": {"data": str(path)}, "made": {}})
    requests = made(inputs, True, profile)
    classes = requests.classes(np.arange(100))
    given = {content(decode(requests.at(int(n)))[1]) for n in np.flatnonzero(classes == 0)}
    others = {content(decode(requests.at(int(n)))[1]) for n in np.flatnonzero(classes == 1)}
    assert (len(given), len(others)) == (3, 10)  # one digit is all that [1] of INT64 has room for
    assert {requests.row(number) for number in range(100)} == {-1}


def test_a_priority_needs_a_protocol_that_has_one():
    profile = LoadProfile(request_class=CLASSES)
    with pytest.raises(DataError, match="cannot carry a priority"):
        requests_of(target((spec(),), protocol="plain"), profile, 0)


def test_token_and_new_connections_are_said_in_every_request(tmp_path):
    (tmp_path / "token").write_text("secret\n")
    profile = LoadProfile(token_file=str(tmp_path / "token"), keep_alive=False)
    headers, _ = decode(made((spec(),), True, profile).at(3))
    assert (headers["authorization"], headers["connection"]) == ("Bearer secret", "close")
    headers, _ = decode(made((spec(),), True, LoadProfile()).at(3))
    assert not {"authorization", "connection"} & set(headers)


@pytest.mark.parametrize(
    ("classes", "priorities"),
    [
        ({}, {2: 1.0}),
        ({"all": "weight=5,priority=1"}, {1: 1.0}),
        ({"a": "weight=1,priority=3", "b": "weight=2", "c": "priority=2"}, {3: 0.25, 2: 0.75}),
    ],
)
def test_the_share_of_each_priority(classes, priorities):
    assert LoadProfile(request_class=classes).priorities(untold=2) == priorities
