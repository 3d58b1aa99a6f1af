"""Holt's trend: right on lines, calm on noise, indifferent to how samples are spaced."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.serving.forecast import HoltTrend

values = st.floats(-1e6, 1e6)
gaps = st.lists(st.floats(0.05, 5.0), min_size=1, max_size=50)


def followed(samples):
    trend = HoltTrend(2.0, 5.0)
    for at_s, value in samples:
        trend.observe(at_s, value)
    return trend


@given(values, gaps, st.floats(0, 60))
def test_a_constant_stays_what_it_is(value, distances, ahead_s):
    times = [sum(distances[:count]) for count in range(len(distances) + 1)]
    trend = followed((at_s, value) for at_s in times)
    assert trend.ahead(ahead_s) == pytest.approx(value)


@given(st.floats(-100, 100), st.floats(-10, 10), st.integers(0, 2**32))
def test_a_line_is_followed_without_lag_however_it_is_sampled(start, slope, seed):
    random, at_s, samples = Random(seed), 0.0, []
    while at_s < 200:
        samples.append((at_s, start + slope * at_s))
        at_s += random.uniform(0.2, 2.0)
    last_s = samples[-1][0]
    expected = start + slope * (last_s + 7)
    assert followed(samples).ahead(7) == pytest.approx(expected, abs=1e-3)


def test_samples_twice_as_often_make_the_same_forecast():
    """A step sampled finely or coarsely is nearly as far on after the same time."""
    coarse, fine = (
        followed([(0.0, 0.0), *((step / often, 10.0) for step in range(1, 6 * often))])
        for often in (2, 8)
    )
    assert coarse.ahead(0) == pytest.approx(fine.ahead(0), rel=0.1)


def test_noise_is_damped():
    random = Random(1)
    trend, off = HoltTrend(2.0, 20.0), []
    for second in range(1000):
        trend.observe(second, 100 + random.gauss(0, 10))
        off.append(abs(trend.ahead(0) - 100))
    assert sum(off[100:]) / len(off[100:]) < 6


def test_the_trend_turns_with_the_load():
    rising = [(second, 10.0 * second) for second in range(30)]
    falling = [(30 + second, 300 - 10.0 * second) for second in range(30)]
    assert followed(rising).ahead(5) > rising[-1][1]
    assert followed(rising + falling).ahead(5) < falling[-1][1]


@given(values, values)
def test_a_sample_that_is_not_newer_is_ignored(value, other):
    assert followed([(1.0, value), (1.0, other), (0.5, other)]).ahead(1) == value


def test_before_any_sample_nothing_is_expected():
    assert HoltTrend(1.0, 1.0).ahead(10) == 0
