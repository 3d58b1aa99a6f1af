"""Numbers in JSON by every protocol: NaN and infinity both ways, and no value that becomes another."""

import json
import math

import numpy as np
import pytest

from dlbench.proxy.protocols import plain, tfserving, torchserve, v2

NAN, INF = math.nan, math.inf
FLOATS = ["FP16", "FP32", "FP64"]
INTEGERS = ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]


def v2_body(datatype, rows, nested):
    data = rows if nested else [value for row in rows for value in row]
    tensor = {"name": "x", "datatype": datatype, "shape": [len(rows), 2], "data": data}
    return {"inputs": [tensor], "id": "NaN", "parameters": {"binary_data_output": False}}


# How a protocol asks for rows of two values, which are echoed, and where they are in the reply.
PROTOCOLS = {
    "v2 flat": (v2.Infer, lambda kind, rows: v2_body(kind, rows, nested=False)),
    "v2 nested": (v2.Infer, lambda kind, rows: v2_body(kind, rows, nested=True)),
    "tfserving instances": (tfserving.predict, lambda _, rows: {"instances": rows}),
    "tfserving named": (
        tfserving.predict,
        lambda _, rows: {"instances": [{"x": row} for row in rows]},
    ),
    "tfserving inputs": (tfserving.predict, lambda _, rows: {"inputs": rows}),
    "torchserve list": (torchserve.predictions, lambda _, rows: rows),
    "torchserve data": (torchserve.predictions, lambda _, rows: {"data": rows}),
    "torchserve instances": (torchserve.predictions, lambda _, rows: {"instances": rows}),
    "plain": (plain.predict, lambda _, rows: {"input": rows}),
    "plain named": (plain.predict, lambda _, rows: {"inputs": {"x": rows}}),
}
every_protocol = pytest.mark.parametrize("protocol", sorted(PROTOCOLS))


@pytest.fixture
def echo(numpy_model, numpy_models, ask):
    """Ask for rows of two values by a protocol; gives the status and the rows, or the error's text."""

    def call(protocol, datatype, body_or_rows):
        row = (datatype, ("n", 2), 0)
        model = numpy_model([("x", *row)], [("y", *row)], lambda x: [x])
        handler, body = PROTOCOLS[protocol]
        subject = numpy_models(model) if handler is plain.predict else model
        if isinstance(body_or_rows, list):
            body_or_rows = json.dumps(body(datatype, body_or_rows)).encode()
        status, _, reply = ask(handler, subject, body_or_rows)
        if status >= 400:
            return status, reply["error"]
        kind = float if datatype in FLOATS else object
        return status, np.array(values_of(reply), kind).reshape(-1, 2)

    return call


def values_of(reply):
    if isinstance(reply, list):
        return reply
    found = next(reply[key] for key in ("predictions", "output", "outputs") if key in reply)
    if isinstance(found, dict):
        return found["y"]
    return found[0]["data"] if isinstance(found[0], dict) else found


def same(found, expected):
    return np.array_equal(found, expected, equal_nan=True)


@every_protocol
@pytest.mark.parametrize("datatype", FLOATS)
def test_nan_and_infinity_come_and_go(echo, protocol, datatype):
    for rows in (
        [[NAN, NAN]],
        [[INF, -INF]],
        [[1.5, NAN], [-INF, 2.0]],
        [[0, NAN], [INF, 3]],
        [[1.5, 2.5], [0.25, 3.0]],
    ):
        status, found = echo(protocol, datatype, rows)
        assert (status, same(found, np.array(rows))) == (200, True), found


@pytest.mark.parametrize("shape", [(), (1,), (2, 1, 3)])
def test_a_reply_of_any_rank_holds_nan(numpy_model, ask, shape):
    values = np.full(shape, NAN, np.float32)
    row = ("FP32", ("n", 2), -1)
    model = numpy_model([("x", *row)], [("y", "FP32", shape, -1)], lambda _: [values])
    _, _, reply = ask(tfserving.predict, model, {"inputs": [[1, 2]]})
    assert same(np.array(reply["outputs"], np.float32), values)


def test_rows_of_several_outputs_hold_nan(numpy_model, ask):
    row = ("FP32", ("n", 2), 0)
    model = numpy_model(
        [("x", *row)],
        [("y", *row), ("top", "FP32", ("n",), 0), ("index", "INT64", ("n",), 0)],
        lambda x: [x, x.max(axis=1), x.argmax(axis=1)],
    )
    body = b'{"instances":[[1,Infinity],[NaN,NaN],[3,4]]}'
    _, _, reply = ask(tfserving.predict, model, body)
    assert [row["index"] for row in reply["predictions"]] == [1, 0, 1]
    assert same([row["top"] for row in reply["predictions"]], [INF, NAN, 4.0])
    assert same([row["y"] for row in reply["predictions"]], [[1, INF], [NAN, NAN], [3, 4]])


def test_a_value_that_all_instances_agree_on_may_be_nan(recurrent, numpy_model, ask):
    model = numpy_model(
        [("x", "FP32", ("n", 1), 0), ("scale", "FP32", (), -1)],
        [("y", "FP32", ("n", 1), 0)],
        lambda x, scale: [x * scale],
    )
    body = b'{"instances":[{"x":[1],"scale":NaN},{"x":[2],"scale":NaN}]}'
    status, _, reply = ask(tfserving.predict, model, body)
    assert (status, same(reply["predictions"], [[NAN], [NAN]])) == (200, True)


@every_protocol
@pytest.mark.parametrize("datatype", [*INTEGERS, "BOOL"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_nan_is_neither_an_integer_nor_a_truth(echo, protocol, datatype, value):
    status, text = echo(protocol, datatype, [[value, value], [value, value]])
    assert (status, f"'x' is {datatype}" in text) == (400, True), text
    status, text = echo(protocol, datatype, [[value, True], [False, 1]])
    assert status == 400


@every_protocol
@pytest.mark.parametrize(("datatype", "value"), [("FP16", 1e5), ("FP32", 1e39)])
@pytest.mark.parametrize("other", [1.0, NAN, INF])
def test_a_number_too_large_does_not_become_infinity(echo, protocol, datatype, value, other):
    for sign in (1, -1):
        status, text = echo(protocol, datatype, [[other, sign * value]])
        assert (status, f"does not fit {datatype}" in text) == (400, True), text


@pytest.mark.parametrize("text", ["1e999", "-1e999", "[1e999", "1e400]"])
@pytest.mark.parametrize("other", ["1", "NaN"])
def test_a_number_too_large_for_json_is_refused_beside_nan_too(echo, text, other):
    body = b'{"input":[[%b,%b]]}' % (other.encode(), text.encode())
    assert echo("plain", "FP64", body)[0] == 400


@every_protocol
@pytest.mark.parametrize("datatype", [*FLOATS, *INTEGERS, "BOOL"])
def test_null_is_refused_with_what_to_send(echo, protocol, datatype):
    value = {"BOOL": True}.get(datatype, 1)
    for rows in ([[None, None]], [[value, value], [value, None]]):
        status, text = echo(protocol, datatype, rows)
        assert (status, "null" in text, "'x'" in text) == (400, True, True), text
        assert ("NaN" in text) is (datatype in FLOATS)


@every_protocol
@pytest.mark.parametrize("datatype", [*FLOATS, *INTEGERS])
def test_true_and_false_are_not_numbers(echo, protocol, datatype):
    for rows in (
        [[1, True]],
        [[False, 0]],
        [[True, True]],
        [[3, 4], [5, False]],
        [[3, 4]] * 20_000 + [[True, 5]],
        [[7, 8], [9, 10], [True, False]],
    ):
        status, text = echo(protocol, datatype, rows)
        assert (status, "true" in text, "'x'" in text) == (400, True, True), text


@pytest.mark.parametrize("datatype", FLOATS)
def test_true_is_refused_beside_nan_too(echo, datatype):
    assert echo("plain", datatype, [[NAN, True]])[0] == 400


@every_protocol
def test_numbers_are_not_truths(echo, protocol):
    for rows in ([[True, 1]], [[0, 1]], [[0, False]], [[1.0, True]], [[True, False], [0, True]]):
        status, text = echo(protocol, "BOOL", rows)
        assert (status, "is BOOL" in text) == (400, True), text
    status, found = echo(protocol, "BOOL", [[True, False]])
    assert (status, found.tolist()) == (200, [[True, False]])


@every_protocol
@pytest.mark.parametrize("datatype", [*FLOATS, *INTEGERS, "BOOL"])
def test_texts_are_not_numbers(echo, protocol, datatype):
    for value in ("1", "NaN", "Infinity", "true"):
        status, text = echo(protocol, datatype, [[value, value]])
        assert (status, "'x'" in text) == (400, True), text


@every_protocol
@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("INT64", [2**53 + 1, -(2**53) - 1]),
        ("INT64", [2**63 - 1, -(2**63)]),
        ("UINT64", [2**64 - 1, 0]),
        ("UINT64", [2**63, 2**53 + 1]),
        ("UINT64", [1, 2]),
    ],
)
def test_large_integers_keep_their_value(echo, protocol, datatype, values):
    status, found = echo(protocol, datatype, [values, values[::-1]])
    assert status == 200
    assert found.tolist() == [values, values[::-1]]


@every_protocol
@pytest.mark.parametrize("datatype", INTEGERS)
def test_a_fraction_is_not_an_integer(echo, protocol, datatype):
    for rows in ([[1.5, 2]], [[1.0, 2]], [[1, 2], [3, 1e3]]):
        status, text = echo(protocol, datatype, rows)
        assert (status, f"is {datatype}" in text) == (400, True), text


@pytest.mark.parametrize(
    "body",
    [
        b'{"input":[[NaN,nan]]}',
        b'{"input":[[NaN,-NaN]]}',
        b'{"input":[[1NaN,2]]}',
        b'{"input":[[+Infinity,2]]}',
        b'{"input":[[NaN,Inf]]}',
        b'{"input":[[NaN,1],]}',
        b'{"input":[[NaN,1]]} NaN',
        b'{"input":[[NaN,01]]}',
        b'{"input":[[NaN,"\xff"]]}',
        b'{"input":[[NaN,"\\ud800"]]}',
        b'{"input":[[NaN,"' + b"NaN" * 10_000,
        b'{"input":[[NaN,1]],"id":"a\nb"}',
        b'{"input":' + b"[" * 100_000 + b"NaN",
        b'{"input":' + b"[" * 1010 + b"NaN" + b"]" * 1010 + b"}",
        b'{"input":[[NaN,1]],"id":"' + b'\\"' * 200_000,
        b"NaN",
        b"[NaN",
    ],
)
def test_what_is_almost_json_is_refused_as_ever(echo, body):
    status, text = echo("plain", "FP32", body)
    assert (status, type(text)) == (400, str)


def test_the_words_inside_of_texts_are_texts(echo):
    body = b'{"id":"NaN, \\"Infinity\\" and -Infinity","input":[[NaN,1]],"k":"\\\\","l":"NaN"}'
    status, found = echo("plain", "FP32", body)
    assert (status, same(found, [[NAN, 1]])) == (200, True)


def test_a_large_integer_beside_nan_is_what_it_is_without(echo):
    status, found = echo("plain", "FP64", [[2**70, NAN], [2**53 + 1, 1]])
    assert (status, same(found, [[2.0**70, NAN], [2.0**53, 1]])) == (200, True)
