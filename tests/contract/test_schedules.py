"""What every arrival schedule must keep, whatever its spacing and its pattern."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.schedule.pattern import PATTERNS, CumulativeRate
from dlbench.loadgen.schedule.schedule import ARRIVALS, Share, describe, offsets_ns

every_spacing = pytest.mark.parametrize("arrivals", sorted(ARRIVALS))
every_pattern = pytest.mark.parametrize("pattern", sorted(PATTERNS))


any_rate, fast = st.floats(0.5, 5000), st.floats(2000, 20_000)
# Fifteen kinds each.
few = settings(max_examples=25)


@st.composite
def loads(draw, arrivals, pattern, rates=any_rate, duration_s=5.0):
    """A profile of this kind."""
    return LoadProfile(
        arrivals=arrivals,
        gamma_cv=draw(st.floats(0.2, 5)),
        pattern=pattern,
        rate=draw(rates),
        rate_to=None if pattern == "steady" else draw(rates),
        period_s=draw(st.none() | st.floats(0.1, 5)),
        steps=draw(st.integers(2, 9)),
        duration_s=draw(st.floats(duration_s / 10, duration_s)),
        warmup_s=draw(st.sampled_from([0.0, 0.3, 1.0])),
        seed=draw(st.integers(0, 2**64)),
    )


def span_s(profile):
    return profile.warmup_s + profile.duration_s


@every_spacing
@every_pattern
@few
@given(st.data())
def test_is_sorted_and_inside_the_span(arrivals, pattern, data):
    profile = data.draw(loads(arrivals, pattern))
    offsets = offsets_ns(profile)
    assert offsets.dtype == np.int64
    assert np.all(np.diff(offsets) >= 0)
    assert np.all((offsets >= 0) & (offsets < span_s(profile) * 1e9))


@every_spacing
@every_pattern
@few
@given(st.data())
def test_the_shares_of_any_number_of_workers_are_the_whole(arrivals, pattern, data):
    profile, workers = data.draw(loads(arrivals, pattern)), data.draw(st.integers(1, 7))
    whole = offsets_ns(profile)
    found = np.full(len(whole), -1)
    for share in (Share(index, workers) for index in range(workers)):
        offsets = offsets_ns(profile, share)
        found[share.numbers(len(offsets))] = offsets
    assert np.array_equal(found, whole)


@every_spacing
@every_pattern
@few
@given(st.data())
def test_every_part_of_the_run_gets_the_integral_of_the_rate(arrivals, pattern, data):
    profile = data.draw(loads(arrivals, pattern, rates=fast, duration_s=3.0))
    bounds_s = np.linspace(0, span_s(profile), 5)
    counts = np.histogram(offsets_ns(profile), bins=np.rint(bounds_s * 1e9))[0]
    meant = np.diff(CumulativeRate(profile).at(bounds_s))
    cv = {"constant": 0.0, "poisson": 1.0, "gamma": profile.gamma_cv}[arrivals]
    # Constant: one request, that may fall on either side. Else seven standard deviations of a
    # renewal process' count, whose tail falls slower than the normal one when cv is large.
    assert np.all(np.abs(counts - meant) <= 1.001 + 7 * cv * np.sqrt(meant) + cv**2)


@every_spacing
@every_pattern
@few
@given(st.data())
def test_the_same_seed_gives_the_same_schedule(arrivals, pattern, data):
    profile = data.draw(loads(arrivals, pattern))
    assert np.array_equal(offsets_ns(profile), offsets_ns(profile.model_copy()))


@every_spacing
@few
@given(st.floats(1, 5000), st.integers(0, 2**32))
def test_a_longer_run_begins_like_a_shorter_one(arrivals, rate, seed):
    shorter, longer = (
        offsets_ns(LoadProfile(arrivals=arrivals, rate=rate, duration_s=duration_s, seed=seed))
        for duration_s in (1, 3)
    )
    assert np.array_equal(longer[: len(shorter)], shorter)


@every_spacing
@every_pattern
def test_is_described_in_one_line(arrivals, pattern):
    rate_to = None if pattern == "steady" else 250
    line = describe(LoadProfile(arrivals=arrivals, pattern=pattern, rate=125, rate_to=rate_to))
    assert arrivals in line.lower()
    assert "125/s" in line
    assert "\n" not in line
    assert "None" not in line


def test_the_profile_offers_all_there_are():
    fields = LoadProfile.model_fields
    assert set(get_args(fields["arrivals"].annotation)) == set(ARRIVALS)
    assert set(get_args(fields["pattern"].annotation)) == set(PATTERNS)
