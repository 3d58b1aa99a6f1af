"""The family of curves: against the queue that it is exact for, and against itself."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.rates.curve import log_load, log_rise, slope
from dlbench.tuner.twin.queueing import mm1_quantile_s

LOADS = st.floats(0.001, 0.98)
GROWTHS = st.floats(-3.5, 3.5)


@given(LOADS, st.floats(1e-5, 1.0))
def test_it_is_exact_for_one_worker_and_exponential_times(load, service_s):
    low_s = mm1_quantile_s(0.0, service_s, 0.99)
    expected = mm1_quantile_s(load / service_s, service_s, 0.99)
    assert low_s * math.exp(log_rise(math.log(load), 0.0)) == pytest.approx(expected)


@given(LOADS, GROWTHS)
def test_the_load_at_a_p99_is_the_one_that_has_it(load, growth):
    rise = log_rise(math.log(load), growth)
    assert log_load(rise, growth) == pytest.approx(math.log(load), abs=1e-6)


@given(LOADS, LOADS, GROWTHS)
def test_more_load_is_never_faster(one, other, growth):
    low, high = log_rise(np.log(sorted((one, other))), growth)
    assert 0 <= low <= high


@given(st.floats(0.01, 0.95), GROWTHS)
def test_the_slope_is_that_of_the_curve(load, growth):
    step = 1e-4
    low, high = log_rise(math.log(load) + np.array([-step, step]), growth)
    assert slope(math.log(load), growth) == pytest.approx((high - low) / (2 * step), rel=0.01)


@given(GROWTHS)
def test_the_ends_of_the_curve(growth):
    assert log_load(-0.1, growth) == -math.inf  # an empty server is over the bound
    assert log_load(math.inf, growth) == 0  # any p99 will do
    assert slope(0.0, growth) == math.inf
    assert math.isfinite(log_rise(0.5, growth))  # a window over the capacity ends some time
