"""Ratios of two figures and their intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.results.ratio import Estimated, ratio

SIDES = st.floats(1.0, 3.0)


@st.composite
def a_figure(draw):
    value = draw(st.floats(0.1, 1e4))
    return Estimated(value, value / draw(SIDES), value * draw(SIDES))


@given(a_figure(), a_figure())
def test_turned_round_it_is_the_reciprocal(one, other):
    forth, back = ratio(one, other), ratio(other, one)
    assert forth.value == pytest.approx(1 / back.value)
    assert forth.low == pytest.approx(1 / back.high)
    assert forth.high == pytest.approx(1 / back.low)


@given(a_figure(), a_figure())
def test_it_is_wider_than_either_and_narrower_than_both_at_their_worst(one, other):
    found, room = ratio(one, other), 1 + 1e-9
    assert one.low / other.high <= found.low * room
    assert found.high <= one.high / other.low * room
    assert found.low <= found.value * min(one.low / one.value, other.value / other.high) * room
    assert found.high * room >= found.value * max(one.high / one.value, other.value / other.low)


@given(a_figure(), st.floats(0.1, 10))
def test_against_what_is_known_exactly_only_the_scale_changes(one, exact):
    assert ratio(one, Estimated(exact, exact, exact)) == pytest.approx([v / exact for v in one])


def test_it_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    sd = (0.05, 0.2)
    logs = rng.normal(size=(2000, 2)) * sd
    held = 0
    for a, b in logs:
        one, other = (
            Estimated(*np.exp([x, x - 1.96 * s, x + 1.96 * s]))
            for x, s in zip((a, b), sd, strict=True)
        )
        found = ratio(one, other)
        held += found.low <= 1 <= found.high
    assert 0.935 <= held / 2000 <= 0.965


def test_without_an_interval_there_is_none_and_anything_may_be():
    found = ratio(Estimated(2, None, None), Estimated(1, 0.9, 1.1))
    assert found == Estimated(2, None, None)
    assert found.holds_one
    assert ratio(Estimated(2, 0.0, 3), Estimated(1, 0.9, 1.1)).low is None
    assert not Estimated(2, 1.5, 3).holds_one
