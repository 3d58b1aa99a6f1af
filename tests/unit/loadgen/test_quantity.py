"""Numbers as people read them."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.quantity import (
    HIGHER,
    SLOWER,
    change,
    change_interval,
    digits,
    duration,
    interval,
    latency,
)

positive = st.floats(1e-9, 1e15)
counts = st.integers(1, 6)


def read(text):
    return float(text.replace(",", ""))


@given(st.one_of(positive, st.just(0.0), positive.map(lambda value: -value)), counts)
def test_digits_are_never_a_power_of_ten_and_off_by_half_of_the_last_one(value, count):
    text = digits(value, count)
    assert not set(text) - set("-0123456789.,")
    if abs(value) < 10 ** (count - 1):
        assert read(text) == pytest.approx(value, rel=0.501 * 10.0 ** (1 - count))
    else:
        assert abs(read(text) - value) <= 0.5


@given(positive, positive, counts)
def test_a_larger_number_never_reads_as_a_smaller_one(one, other, count):
    small, large = sorted((one, other))
    assert read(digits(small, count)) <= read(digits(large, count))


@given(st.floats(1e-7, 1e7), st.floats(1e-7, 1e7))
def test_durations_rise_across_their_units(one, other):
    def seconds(text):
        number, unit = text.split()
        return read(number) * {"ms": 1e-3, "s": 1.0}[unit]

    small, large = sorted((one, other))
    assert seconds(duration(small)) <= seconds(duration(large)) * (1 + 1e-12)
    assert seconds(duration(one)) == pytest.approx(one, rel=0.00501)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.12, "120 ms"),
        (0.00085, "0.85 ms"),
        (4.3, "4.3 s"),
        (0.99999, "1 s"),
        (125, "125 s"),
        (0, "0 ms"),
    ],
)
def test_seconds_where_they_are_seconds(seconds, text):
    assert duration(seconds) == text


@given(st.floats(1e-12, 1e12))
def test_a_ratio_is_said_by_its_larger_side(ratio):
    words = change(ratio, SLOWER)
    if words == "the same":
        assert abs(ratio - 1) < 0.0006
        return
    amount, unit, side = words.split()
    assert side == ("slower" if ratio > 1 else "faster")
    if unit == "times":
        assert read(amount) >= 2
        assert read(amount) == pytest.approx(max(ratio, 1 / ratio), rel=0.00501)
    else:
        assert read(amount) == pytest.approx(abs(ratio - 1) * 100, rel=0.051, abs=0.0501)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_an_interval_of_ratios_says_its_smaller_change_first_where_both_are_alike(one, other):
    words = change_interval(*sorted((one, other)), HIGHER)
    assert "e" not in words.replace("higher", "").replace("lower", "").replace("times", "").replace(
        "the same", ""
    )
    if found := re.fullmatch(r"([\d.,]+) to ([\d.,]+) (%|times) (higher|lower)", words):
        assert read(found[1]) <= read(found[2])


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.0022, 0.0025, "400 to 455 times faster"),
        (0.95, 0.97, "3 to 5 % faster"),
        (0.95, 1.02, "5 % faster to 2 % slower"),
        (0.4, 0.8, "1.25 to 2.5 times faster"),
        (2.0, math.inf, "at least 2 times slower"),
        (0.9, math.inf, "at most 10 % faster"),
        (0.0, 0.9, "at least 10 % faster"),
        (0.0, 1.2, "at most 20 % slower"),
        (0.0, math.inf, "undetermined"),
        (None, None, "undetermined"),
        (1e-9, 0.5, "2 to > 1,000 times faster"),
        (1.0, 1.0, "the same"),
    ],
)
def test_intervals_of_ratios(low, high, words):
    assert change_interval(low, high, SLOWER) == words


def test_what_is_among_failed_requests_is_longer_than_anything_seen():
    assert latency(math.inf, 1000.4) == "> 1,000"
    assert latency(111.2, 1000.4) == "111"
    assert interval(820.0, math.inf, 1000.4, joint="-") == "[820, > 1,000]"
    assert interval(math.inf, math.inf, 1000.4) == "[> 1,000, > 1,000]"
    assert interval(3.0, 5.0, joint="-") == "[3-5]"
    assert interval(None, None) == "undetermined"


SHORT = re.compile(r"[:\"],?\.[1-3]g[}\"]")
ROOT = Path(__file__).parents[3]


def test_no_figure_for_people_is_written_otherwise():
    """`.3g` writes 1.2e+02 for 120 where two digits are asked for, and 1e-05 for 0.00001."""
    rooms = [ROOT / room for room in ("loadgen", "tuner", "cli", "results", "doctor")]
    files = [file for room in rooms for file in room.glob("**/*.py")]
    assert len(files) > 100
    lines = [(file.name, line) for file in files for line in file.read_text().splitlines()]
    own = [(name, line) for name, line in lines if SHORT.search(line)]
    assert own == []
