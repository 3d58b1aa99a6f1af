"""The bounds that a study answers for."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dlbench.tuner.bounds.ladder import LEAST_STEPS, MOST_STEPS, ladder


@given(least=st.floats(1e-3, 1e5))
def test_bounds_rise_from_what_can_be_reached(least):
    found = ladder(least)
    assert LEAST_STEPS <= len(found) <= MOST_STEPS
    assert list(found) == sorted(set(found))
    assert least < found[0] <= 2.5 * least * 1.0001
    assert all(1.99 <= b / a <= 2.51 for a, b in pairwise(found))


def test_they_end_at_a_second():
    assert ladder(3.0) == (5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
    assert ladder(150.0) == (200.0, 500.0, 1000.0, 2000.0)
