import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.schedule.pattern import PATTERNS, CumulativeRate, words

rates = st.floats(0.1, 10_000)
every_pattern = pytest.mark.parametrize("pattern", sorted(PATTERNS))


@st.composite
def changing(draw, pattern):
    """A profile with this pattern; the rates may differ by a factor of 100,000."""
    duration_s = draw(st.floats(0.01, 60))
    return LoadProfile(
        pattern=pattern,
        rate=draw(rates),
        rate_to=None if pattern == "steady" else draw(rates),
        steps=draw(st.integers(2, 50)),
        spike_at_s=draw(st.none() | st.floats(0, duration_s, exclude_max=True)),
        spike_s=draw(st.floats(0.001, 20)),
        period_s=draw(st.none() | st.floats(0.01, 60)),
        duration_s=duration_s,
        warmup_s=draw(st.sampled_from([0.0, 0.3, 5.0])),
    )


def span_s(profile):
    return profile.warmup_s + profile.duration_s


def rate_at(profile, time_s):
    """The rate as a person would write it down: the oracle."""
    at, low, high = time_s - profile.warmup_s, profile.rate, profile.rate_to or profile.rate
    at = max(at, 0.0)
    start = profile.duration_s / 2 if profile.spike_at_s is None else profile.spike_at_s
    day = profile.period_s or profile.duration_s
    step = min(int(at / profile.duration_s * profile.steps), profile.steps - 1)
    return {
        "steady": low,
        "steps": low + (high - low) * step / (profile.steps - 1),
        "ramp": low + (high - low) * at / profile.duration_s,
        "spike": high if start <= at < start + profile.spike_s else low,
        "diurnal": (low + high) / 2 - (high - low) / 2 * np.cos(2 * np.pi * at / day),
    }[profile.pattern]


@every_pattern
@given(st.data())
def test_the_inverse_undoes_the_cumulative_rate(pattern, data):
    profile = data.draw(changing(pattern))
    rate = CumulativeRate(profile)
    times = np.linspace(0, span_s(profile), 1001)
    slowest = min(profile.rate, profile.rate_to or profile.rate)
    # The clock's nanosecond, and what a rounded count is worth where the rate is lowest.
    accuracy_s = 1e-9 + 4 * np.spacing(rate.total) / slowest
    assert np.allclose(rate.inverse(rate.at(times)), times, rtol=0, atol=accuracy_s)


@every_pattern
@given(st.data())
def test_the_cumulative_rate_rises_from_zero_to_the_total(pattern, data):
    profile = data.draw(changing(pattern))
    rate = CumulativeRate(profile)
    counts = rate.at(np.linspace(0, span_s(profile), 1001))
    assert abs(counts[0]) < 1e-9 * rate.total
    assert np.all(np.diff(counts) > 0)
    assert counts[-1] == pytest.approx(rate.total)


@every_pattern
@given(st.data())
def test_its_slope_is_the_rate(pattern, data):
    profile = data.draw(changing(pattern))
    rate = CumulativeRate(profile)
    shortest = min(profile.duration_s / profile.steps, profile.period_s or 1.0, profile.spike_s)
    step_s = 1e-5 * min(shortest, profile.duration_s)
    at = data.draw(st.floats(step_s, 1 - 1e-3)) * span_s(profile)
    if pattern in ("steps", "spike") and rate_at(profile, at) != rate_at(profile, at + step_s):
        return
    slope = (rate.at(at + step_s) - rate.at(at)) / step_s
    scale = max(profile.rate, profile.rate_to or 0)
    # The subtraction loses digits; the chords of a day are off by a millionth.
    assert abs(slope - rate_at(profile, at)) < 1e-4 * scale + 1e-14 * rate.total / step_s


@given(rates, st.floats(0.1, 100), st.floats(0, 10))
@example(0.1, 30, 0)
def test_the_total_of_a_steady_rate(rate, duration_s, warmup_s):
    profile = LoadProfile(rate=rate, duration_s=duration_s, warmup_s=warmup_s)
    assert CumulativeRate(profile).total == pytest.approx(rate * (duration_s + warmup_s))


@pytest.mark.parametrize("pattern", ["steps", "ramp", "diurnal"])
@given(rates, rates, st.floats(0.1, 100))
def test_the_total_is_that_of_the_mean_rate(pattern, rate, rate_to, duration_s):
    profile = LoadProfile(
        pattern=pattern, rate=rate, rate_to=rate_to, duration_s=duration_s, warmup_s=2
    )
    expected = 2 * rate + duration_s * (rate + rate_to) / 2
    assert CumulativeRate(profile).total == pytest.approx(expected)


def test_a_spike_beyond_the_end_is_cut():
    profile = LoadProfile(
        pattern="spike", rate=10, rate_to=100, spike_at_s=9, spike_s=5, duration_s=10, warmup_s=0
    )
    assert CumulativeRate(profile).total == pytest.approx(9 * 10 + 1 * 100)


def test_many_days_are_as_exact_as_one():
    profile = LoadProfile(
        pattern="diurnal", rate=1, rate_to=3, period_s=0.1, duration_s=86_400, warmup_s=0
    )
    rate = CumulativeRate(profile)
    assert rate.total == pytest.approx(2 * 86_400)
    assert rate.inverse(2 * 50_000.0) == pytest.approx(50_000, abs=1e-8)


def test_a_trace_has_no_rate():
    with pytest.raises(ValueError, match="drop trace or users"):
        CumulativeRate(LoadProfile(trace="day.csv"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "100/s"),
        ({"pattern": "steps", "steps": 4}, "4 steps from 100/s to 2,000/s"),
        ({"pattern": "ramp"}, "ramp from 100/s to 2,000/s"),
        ({"pattern": "spike"}, "100/s with a spike of 2,000/s for 1 s after 5 s"),
        ({"pattern": "diurnal"}, "diurnal between 100/s and 2,000/s, period 10 s"),
    ],
)
def test_is_said_in_plain_words(options, text):
    rate_to = {"rate_to": 2000} if options else {}
    assert words(LoadProfile(rate=100, **options, **rate_to)) == text
