"""TorchServe's predictions: JSON rows in several dresses, raw bytes, and what the server says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.torchserve import ROUTES, SERVER_ROUTES, listing, ping, predictions

ROWS = st.lists(
    st.lists(st.floats(width=32, min_value=-1e6, max_value=1e6), min_size=3, max_size=3),
    min_size=1,
    max_size=4,
)
BYTES = {"content_type": b"application/octet-stream"}


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
    [(b"[", "broken"), (7, "list of rows"), ({"rows": []}, "list of rows"), ([], "one row")],
)
def test_what_makes_no_sense_is_refused_and_says_why(affine, ask, body, says):
    code, _, reply = ask(predictions, affine, body)
    assert code == 400
    assert says in reply["error"]


def test_raw_bytes_have_to_be_whole_rows_of_an_only_input(affine, recurrent, ask):
    assert ask(predictions, affine, b"\0" * 13, **BYTES)[0] == 400
    assert ask(predictions, recurrent, b"\0" * 12, **BYTES)[0] == 400


def test_the_server_is_healthy_and_lists_its_models(affine, numpy_models, ask):
    assert ask(ping, numpy_models(affine))[2] == {"status": "Healthy"}
    assert ask(listing, numpy_models(affine))[2] == {
        "models": [{"modelName": "m", "modelUrl": "m"}]
    }
    assert set(SERVER_ROUTES) == {"/ping", "/models"}
    assert set(ROUTES) == {"/predictions/{name}", "/predictions/{name}/{version}"}
