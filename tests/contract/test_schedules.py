"""What every arrival schedule must keep, whatever its name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.schedule import ARRIVALS, offsets_ns

rates = st.floats(0.5, 5000)
durations = st.floats(0.05, 5)
seeds = st.integers(0, 2**32)
every_schedule = pytest.mark.parametrize("arrivals", sorted(ARRIVALS))


@every_schedule
@given(rates, durations, seeds)
def test_is_sorted_and_inside_the_duration(arrivals, rate, duration_s, seed):
    offsets = offsets_ns(arrivals, rate, duration_s, seed)
    assert offsets.dtype == np.int64
    assert np.all(np.diff(offsets) >= 0)
    assert np.all((offsets >= 0) & (offsets <= duration_s * 1e9))


@every_schedule
@given(rates, durations, seeds)
def test_the_same_seed_gives_the_same_schedule(arrivals, rate, duration_s, seed):
    first, second = (offsets_ns(arrivals, rate, duration_s, seed) for _ in range(2))
    assert np.array_equal(first, second)


@every_schedule
@given(st.floats(50, 5000), seeds)
def test_the_rate_is_the_one_asked_for(arrivals, rate, seed):
    wanted = rate * 5
    # Six standard deviations of a Poisson count.
    assert abs(len(offsets_ns(arrivals, rate, 5, seed)) - wanted) <= 6 * np.sqrt(wanted)


@every_schedule
def test_the_profile_offers_it(arrivals):
    assert LoadProfile(rate=1, arrivals=arrivals).arrivals == arrivals
