"""What windows say about a server, and what they must not."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.loadgen.rates.noise import Noise
from dlbench.loadgen.rates.posterior import infer, normal_masses
from dlbench.loadgen.rates.prior import Prior
from dlbench.loadgen.rates.rate_at_bound import rate_at_bound
from dlbench.loadgen.rates.window import ClosedWindow, OpenWindow

BOUND_MS = 20.0
SEEDS = st.integers(0, 10**6)


def answer(server, windows, **more):
    return rate_at_bound(infer(server.prior(), windows, **more), BOUND_MS)


@given(SEEDS, st.integers(0, 12))
@settings(max_examples=30)
def test_it_is_a_distribution_whatever_was_seen(server, seed, count):
    mass = infer(server.prior(), server.windows(seed, count)).mass
    assert mass.sum() == pytest.approx(1)
    assert mass.min() >= 0


@given(SEEDS)
@settings(max_examples=20)
def test_the_order_of_the_windows_does_not_matter(server, seed):
    windows = server.windows(seed)
    shuffled = random.Random(seed).sample(windows, len(windows))
    once, again = answer(server, windows), answer(server, shuffled)
    assert once.rate_rps == pytest.approx(again.rate_rps, rel=1e-6)
    assert once.low_rps == pytest.approx(again.low_rps, rel=1e-6)


def test_the_same_windows_say_the_same(server):
    windows = server.windows(1)
    assert answer(server, windows) == answer(server, list(windows))


@given(SEEDS, st.sampled_from([1e-3, 0.1, 60.0, 1e3]))
@settings(max_examples=20)
def test_another_unit_of_time_is_another_unit_of_rate(server, seed, times):
    """As many requests in windows so long that they differ by nothing but their number."""
    prior = server.prior()
    windows = [replace(window, duration_s=1e5) for window in server.windows(seed)]
    faster = [
        replace(w, throughput_rps=w.throughput_rps * times)
        if isinstance(w, ClosedWindow)
        else replace(
            w, rate_rps=w.rate_rps * times, p99_ms=w.p99_ms / times, duration_s=1e5 / times
        )
        for w in windows
    ]
    scaled = Prior(prior.capacity_rps * times, prior.low_ms / times, prior.growth)
    before = rate_at_bound(infer(prior, windows), BOUND_MS)
    after = rate_at_bound(infer(scaled, faster), BOUND_MS / times)
    for one, other in ((before.low_rps, after.low_rps), (before.rate_rps, after.rate_rps)):
        assert other == pytest.approx(one * times, rel=1e-6)
    assert after.high_rps == pytest.approx(before.high_rps * times, rel=1e-6)


@given(SEEDS, st.floats(0.5, 1.2), st.booleans())
@settings(max_examples=40)
def test_a_saturated_window_only_lowers_it(server, seed, share, disturbed):
    """But for the grid, which is laid anew: a hundredth."""
    windows = server.windows(seed)
    rate_rps = share * server.capacity_rps
    more = OpenWindow(rate_rps, 5.0, saturated=True, disturbed=disturbed, moment=99)
    assert answer(server, [*windows, more]).rate_rps <= 1.01 * answer(server, windows).rate_rps


def test_saturation_far_below_the_answer_lowers_it_much_unless_it_was_disturbed(server):
    low_rps = 0.5 * server.rate_rps(BOUND_MS)
    windows = [server.window(0.5 * low_rps, moment=moment) for moment in range(2)]
    saturated = [OpenWindow(low_rps, 5.0, saturated=True, moment=2 + m) for m in range(3)]
    before = answer(server, windows).rate_rps
    noticed = [replace(window, disturbed=True) for window in saturated]
    assert answer(server, [*windows, *saturated]).rate_rps < 0.6 * before
    assert answer(server, [*windows, *noticed]).rate_rps > 0.7 * before


def test_failed_requests_are_a_p99_beyond_any_bound(server):
    windows = server.windows(2)
    failed = OpenWindow(2000.0, 5.0, math.inf, moment=99)
    saturated = OpenWindow(2000.0, 5.0, saturated=True, moment=99)
    assert answer(server, [*windows, failed]) == replace(answer(server, [*windows, saturated]))


@given(SEEDS)
@settings(max_examples=20)
def test_a_window_that_ended_early_says_that_the_answer_is_lower(server, seed):
    windows = server.windows(seed, 4)
    rate_rps = server.rate_rps(BOUND_MS)
    ended = OpenWindow(rate_rps, 2.0, 4 * BOUND_MS, at_least=True, moment=99)
    assert answer(server, [*windows, ended]).rate_rps < 1.005 * answer(server, windows).rate_rps


def test_windows_that_all_ended_early_lower_it_much(server):
    windows = server.windows(5, 4)
    rate_rps = 0.8 * server.rate_rps(BOUND_MS)
    ended = [OpenWindow(rate_rps, 2.0, 2 * BOUND_MS, at_least=True, moment=9 + m) for m in range(4)]
    assert answer(server, [*windows, *ended]).rate_rps < 0.95 * answer(server, windows).rate_rps


def test_more_windows_narrow_the_interval(server):
    """One set of windows may disagree more than a smaller one: over many it shows."""
    widths = [
        np.mean([answer(server, server.windows(seed, count)).width for seed in range(12)])
        for count in (2, 6, 18)
    ]
    assert widths[0] > 1.2 * widths[1] > 1.44 * widths[2]


def test_the_interval_holds_the_truth_as_often_as_it_says(server):
    truth = server.rate_rps(BOUND_MS)
    found = [answer(server, server.windows(seed)) for seed in range(60)]
    assert sum(one.low_rps <= truth <= one.high_rps for one in found) >= 54
    assert np.median([abs(one.rate_rps / truth - 1) for one in found]) < 0.05


@pytest.mark.parametrize("share", [0.05, 0.2, 5.0, 20.0])
def test_one_odd_window_moves_little(server, share):
    """Its p99 is off by a factor, as it is when another process takes the core."""
    windows = server.windows(3, 10)
    odd = replace(windows[-1], p99_ms=windows[-1].p99_ms * share)
    before, after = answer(server, windows), answer(server, [*windows[:-1], odd])
    assert after.rate_rps == pytest.approx(before.rate_rps, rel=0.06)


def test_windows_of_one_moment_say_less_than_those_of_several(server):
    """They may all have been slow together."""
    noise = Noise(moment=0.1, window=0.02)
    rate_rps = server.rate_rps(BOUND_MS)
    together = [server.window(rate_rps, moment=0) for _ in range(6)]
    apart = [replace(window, moment=moment) for moment, window in enumerate(together)]
    once = answer(server, together, noise=noise)
    assert once.width > 1.2 * answer(server, apart, noise=noise).width
    assert once.rate_rps == pytest.approx(rate_rps, rel=0.1)


def test_a_window_with_too_few_requests_says_only_that_the_server_kept_up(server):
    near_rps = 0.98 * server.capacity_rps
    windows = [OpenWindow(near_rps, 5.0, moment=moment) for moment in range(4)]
    before, after = infer(server.prior(), []), infer(server.prior(), windows)
    assert rate_at_bound(after, 1e6).low_rps > 1.3 * rate_at_bound(before, 1e6).low_rps


def test_a_window_of_few_requests_misses_the_longest_queues(server):
    """The same p99 of fewer requests is that of a slower server."""
    long = [server.window(3000.0, moment=moment) for moment in range(4)]
    short = [replace(window, duration_s=0.3) for window in long]
    longest = [replace(window, duration_s=20.0) for window in long]
    rates = [answer(server, windows).rate_rps for windows in (short, long, longest)]
    assert rates == sorted(rates)
    assert rates[0] < 0.98 * rates[2]


@given(st.floats(0.01, 1.0), st.floats(0.001, 1.0), st.integers(1, 40))
def test_a_kernel_has_the_mass_one_and_no_side(spread, step, reach):
    masses = normal_masses(spread, step, reach)
    assert masses.sum() == pytest.approx(1)
    assert masses == pytest.approx(masses[::-1])
    assert masses.argmax() == reach
