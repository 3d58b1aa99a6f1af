"""TorchServe's predictions: JSON rows in several dresses, raw bytes, and what the server says."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.protocols.torchserve import (
    ROUTES,
    SERVER_ROUTES,
    UPLOADS,
    listing,
    ping,
    predictions,
)

ROWS = st.lists(
    st.lists(st.floats(width=32, min_value=-1e6, max_value=1e6), min_size=3, max_size=3),
    min_size=1,
    max_size=4,
)
BYTES = {"content_type": b"application/octet-stream"}
# What curl -d says of anything.
FORM = b"application/x-www-form-urlencoded"


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_every_dress_of_the_rows_gives_the_same_values(affine, ask, rows):
    expected = (2 * np.array(rows, np.float32) + 1).tolist()
    assert ask(predictions, affine, rows)[2] == expected
    assert ask(predictions, affine, {"data": rows})[2] == expected
    assert ask(predictions, affine, {"instances": rows})[2] == {"predictions": expected}
    assert ask(predictions, affine, np.array(rows, np.float32).tobytes(), **BYTES)[2] == expected


def test_several_outputs_are_an_object_per_row(recurrent, ask):
    rows = [{"x": [1, 2, 3], "state": [[10], [20]], "scale": 2}]
    assert ask(predictions, recurrent, rows)[2] == [{"y": 12.0, "next": [[16.0], [26.0]]}]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[", "not valid JSON"),
        (7, "list of rows"),
        (b"null", "list of rows"),
        ({"rows": []}, "list of rows"),
        ([], "one row"),
    ],
)
@pytest.mark.parametrize("kind", [b"application/json", b"text/plain; charset=utf-8", FORM])
def test_what_makes_no_sense_is_refused_and_says_why(affine, ask, body, says, kind):
    code, _, reply = ask(predictions, affine, body, content_type=kind)
    assert code == 400
    assert says in reply["error"]


ROW = [[1.0, 2.0, 3.0]]
RAW = np.array(ROW, np.float32).tobytes()
DOUBLED = [[3.0, 5.0, 7.0]]
UNSAID = [{}, {"content_type": b"image/jpeg"}, {"content_type": b"application/x-npy"}]


@pytest.mark.parametrize("said", UNSAID)
def test_a_file_whose_kind_nobody_says_is_json_or_the_bytes_of_the_input(affine, ask, said):
    """`curl -T FILE` sends no Content-Type, or what the file's name suggests."""
    assert ask(predictions, affine, json.dumps(ROW).encode(), **said)[2] == DOUBLED
    assert ask(predictions, affine, b'\n {"data": [[1, 2, 3]]}', **said)[2] == DOUBLED
    assert ask(predictions, affine, RAW, **said)[2] == DOUBLED
    like_json = b"[" + RAW[1:]
    expected = (2 * np.frombuffer(like_json, np.float32) + 1).tolist()
    assert ask(predictions, affine, like_json, **said)[2] == [expected]
    code, _, reply = ask(predictions, affine, b"\xff\xd8\xff\xe0 a picture", **said)
    assert (code, "JSON rows" in reply["error"]) == (400, True)
    code, _, reply = ask(predictions, affine, b'[["a", "b", "c"]]', **said)
    assert (code, "a string" in reply["error"]) == (400, True)


def form(*fields):
    """A form as curl sends it: name, content type and content of each field."""
    text = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%b"; filename="f"\r\n%b\r\n%b\r\n'
        % (name, b"Content-Type: %b\r\n" % kind if kind else b"", content)
        for name, kind, content in fields
    )
    return text + b"--b--\r\n"


@pytest.mark.parametrize("name", [b"data", b"body"])
@pytest.mark.parametrize("kind", [b"", b"application/octet-stream", b"image/jpeg", b"text/plain"])
def test_a_form_holds_rows_or_bytes(affine, ask, name, kind):
    said = {"content_type": b"multipart/form-data; boundary=b"}
    text = json.dumps(ROW).encode()
    assert ask(predictions, affine, form((name, kind, text)), **said)[2] == DOUBLED
    instances = b'{"instances": [[1, 2, 3]]}'
    reply = ask(predictions, affine, form((name, kind, instances)), **said)[2]
    assert reply == {"predictions": DOUBLED}
    if kind != b"text/plain":
        assert ask(predictions, affine, form((name, kind, RAW)), **said)[2] == DOUBLED


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (form((b"picture", b"", RAW)), "named data or body"),
        (form((b"data", b"", RAW), (b"body", b"", RAW)), "named data or body"),
        (form((b"data", b"", RAW), (b"data", b"", RAW)), "named data or body"),
        (form((b"data", b"", RAW[:-1])), "is not a multiple of"),
        (form(), "named data or body"),
        (RAW, "form"),
    ],
)
def test_a_form_that_says_anything_else_is_refused(affine, ask, body, says):
    said = {"content_type": b"Multipart/Form-Data; boundary=b"}
    code, _, reply = ask(predictions, affine, body, **said)
    assert (code, says in reply["error"]) == (400, True), reply


def test_raw_bytes_have_to_be_whole_rows_of_an_only_input(affine, recurrent, ask):
    assert ask(predictions, affine, b"\0" * 13, **BYTES)[0] == 400
    assert ask(predictions, recurrent, b"\0" * 12, **BYTES)[0] == 400


def test_the_server_is_healthy_and_lists_its_models(affine, numpy_models, ask):
    assert ask(ping, numpy_models(affine))[2] == {"status": "Healthy"}
    assert ask(listing, numpy_models(affine))[2] == {
        "models": [{"modelName": "m", "modelUrl": "m"}]
    }
    assert set(SERVER_ROUTES) == {"/ping", "/models"}
    assert set(ROUTES) == set(UPLOADS) == {"/predictions/{name}", "/predictions/{name}/{version}"}
