"""The plot of a front: everything in it, named, within its width and without control sequences."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.results.plot import ASCII, Series, linear_axis, p99_axis, plot
from dlbench.tuner.front import Outcome

AMOUNTS = st.floats(min_value=1e-3, max_value=1e7)
OUTCOMES = st.lists(st.builds(Outcome, AMOUNTS, AMOUNTS), min_size=1, max_size=6)
FRONT = Series("o", "front", (Outcome(904.0, 7.4), Outcome(15431.0, 51.0)))
PICK = Series("*", "recommended", (Outcome(10772.0, 20.6),))
NAIVE = Series("n", "naive", (Outcome(716.0, 451.0),))


@settings(max_examples=25, deadline=None)
@given(OUTCOMES, st.sampled_from([60, 80, 120]))
def test_every_point_is_within_the_frame_of_any_plot(outcomes, width):
    text = plot([Series("@", "mine", tuple(outcomes))], width)
    *lines, legend = text.splitlines()
    assert len(lines) == 22
    assert legend == "@ mine"
    assert max(map(len, lines)) <= width
    seen = sum(line.count("@") for line in lines)
    assert 1 <= seen <= len(outcomes)
    assert "\x1b" not in text


@given(AMOUNTS, AMOUNTS)
def test_axes_hold_their_values_between_round_numbers(one, other):
    low, high = sorted((one, other))
    for axis in (linear_axis(high), p99_axis(low, high)):
        assert axis.ticks[-1] >= high * (1 - 1e-12)
        assert axis.ticks[0] <= low
        assert 1 < len(axis.labels) <= max(9, 2 + math.log10(high / low))
    assert p99_axis(low, high).logarithmic == (high > 10 * low)


def test_every_kind_has_its_character_in_the_plot_and_in_the_legend():
    *lines, legend = plot([PICK, NAIVE, FRONT]).splitlines()
    assert legend == "* recommended   n naive   o front"
    assert lines[0] == "p99 in ms, logarithmic"
    canvas = "\n".join(line.partition("│")[2] or line for line in lines[2:-2])
    assert [canvas.count(mark) for mark in "*no"] == [1, 1, 2]
    height = {mark: next(n for n, line in enumerate(lines[1:]) if mark in line) for mark in "*n"}
    assert height["n"] < height["*"]  # the slower one is higher


def test_of_two_in_one_place_the_earlier_kind_is_seen():
    *lines, _ = plot([PICK, Series("#", "front", PICK.outcomes)]).splitlines()
    assert "*" in "".join(lines)
    assert "#" not in "".join(lines)


def test_a_pipe_gets_ascii_and_nothing_makes_no_plot():
    assert plot([PICK, NAIVE, FRONT]).translate(ASCII).isascii()
    assert plot([]) == ""


@pytest.mark.parametrize(("highest", "ticks"), [(3.3, 8), (15431, 5), (100, 6)])
def test_linear_ticks_are_round(highest, ticks):
    axis = linear_axis(highest)
    assert axis.ticks[0] == 0
    assert len(axis.ticks) == ticks


@pytest.mark.parametrize("highest", [0.035, 0.07, 0.14])
def test_rounding_may_add_a_tick_to_a_linear_axis(highest):
    """0 has no logarithm, and every tick of a linear axis has its label."""
    axis = linear_axis(highest)
    assert list(axis.labels) == list(axis.ticks)
