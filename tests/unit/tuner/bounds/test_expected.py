"""Rates within bounds, from whole curves at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.tuner.bounds.expected import greedy, mean_gain, rates_within

SHARES = np.array([0.3, 0.5, 0.7, 0.9])


def curve(capacity, low):
    return capacity * SHARES, low / (1 - SHARES)


def test_at_a_measured_p99_it_is_the_rate_there():
    rates, p99 = curve(1000.0, 2.0)
    found = rates_within(rates[None], p99[None], p99.tolist())
    assert found[0] == pytest.approx(rates, rel=1e-9)


@given(capacity=st.floats(1, 1e5), low=st.floats(0.01, 100), data=st.data())
def test_a_higher_bound_never_takes_less(capacity, low, data):
    rates, p99 = curve(capacity, low)
    bounds = sorted(data.draw(st.lists(st.floats(0.5, 30), min_size=2, max_size=6)))
    (found,) = rates_within(rates[None], p99[None], [b * low for b in bounds])
    assert list(found) == sorted(found)
    assert found[-1] <= 1.1 * rates[-1] * 1.000001


def test_below_what_an_empty_server_takes_nothing_is_left():
    rates, p99 = curve(1000.0, 2.0)
    assert rates_within(rates[None], p99[None], (0.5,))[0, 0] == 0


def test_greedy_takes_what_adds_most():
    taken = np.array([[10.0, 10.0], [9.0, 30.0], [10.5, 1.0], [1.0, 29.0]])
    assert greedy(taken, 2) == [1, 2]
    assert greedy(taken, 9) == [1, 2], "the others add nothing"


def test_gains_are_shares_of_the_best():
    gains = mean_gain(np.array([[12.0, 5.0], [10.0, 20.0]]), np.array([10.0, 10.0]))
    assert gains == pytest.approx([0.1, 0.5])
