"""Comparing answers: what counts as the same, and how a difference is told."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.tuner.bench.agreement import DIGITS, QUANTISED, difference, own_tolerance


def floats(*values):
    return {"y": np.array([values], np.float32)}


def test_a_float_that_differs_is_named_with_both_values():
    assert difference(floats(1.0, 0.57), floats(1.0, 0.12), DIGITS) == ("y", "0.12 against 0.57")


def test_the_last_digits_may_differ_in_terms_of_the_largest_value():
    assert difference(floats(100.0, 0.001), floats(100.05, 0.05), DIGITS) is None
    assert difference(floats(100.0, 0.001), floats(100.0, 0.2), DIGITS) is not None


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_what_is_no_number_equals_itself_alone(value):
    assert difference(floats(value, 1.0), floats(value, 1.0), DIGITS) is None
    assert difference(floats(value, 1.0), floats(0.5, 1.0), DIGITS) is not None


def test_whole_numbers_and_texts_are_exact():
    for wanted, got in (([3, 4], [3, 5]), ([b"cat", b"dog"], [b"cat", b"cow"])):
        kind = object if isinstance(wanted[0], bytes) else np.int64
        rows = [{"label": np.array(values, kind)} for values in (wanted, got)]
        assert difference(rows[0], rows[0], DIGITS) is None
        assert difference(rows[0], rows[1], DIGITS).output == "label"
        assert difference(rows[0], rows[1], QUANTISED) is None


def test_missing_outputs_and_other_shapes_are_differences():
    assert difference(floats(1.0), {}, DIGITS) == ("y", "it is missing")
    assert difference(floats(1.0), floats(1.0, 2.0), DIGITS).text == "shape [1, 2] against [1, 1]"


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), st.integers(0, 19))
def test_one_element_that_is_off_is_always_found(values, at):
    wanted = floats(*values)
    got = {"y": wanted["y"].copy()}
    at %= len(values)
    got["y"][0, at] += 3 * DIGITS * max(1.0, np.abs(wanted["y"]).max())
    assert difference(wanted, wanted, DIGITS) is None
    assert difference(wanted, got, DIGITS) is not None


@pytest.mark.parametrize(("off", "tolerance"), [(1e-6, DIGITS), (0.03, QUANTISED), (0.5, math.inf)])
def test_the_tolerance_is_what_the_model_itself_keeps_to(off, tolerance):
    expected = [floats(1.0, 0.5), floats(0.3, 1.0)]
    seen = [(0, expected[0]), (1, floats(0.3 + off, 1.0))]
    assert own_tolerance(expected, seen) == tolerance
