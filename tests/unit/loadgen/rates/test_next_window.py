"""Where the next window is, how long it is, and when it may end."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.loadgen.rates.next_window import (
    LONGEST_S,
    REQUESTS,
    SHORTEST_S,
    is_hopeless,
    next_window,
    window_at,
)
from dlbench.loadgen.rates.posterior import infer
from dlbench.loadgen.rates.prior import Prior
from dlbench.loadgen.rates.rate_at_bound import rate_at_bound


@given(st.integers(0, 10**6), st.integers(0, 9), st.floats(6.0, 300.0))
@settings(max_examples=30)
def test_it_is_within_what_the_answer_may_be(server, seed, count, bound_ms):
    posterior = infer(server.prior(), server.windows(seed, count))
    found = rate_at_bound(posterior, bound_ms)
    step = next_window(posterior, bound_ms)
    assert found.low_rps < step.rate_rps < found.high_rps
    assert SHORTEST_S <= step.duration_s <= LONGEST_S


@given(st.floats(0.1, 1e6))
def test_it_is_as_short_as_a_p99_allows(rate_rps):
    step = window_at(rate_rps)
    assert step.duration_s in (SHORTEST_S, LONGEST_S, pytest.approx(REQUESTS / rate_rps))


def test_where_no_rate_seems_to_do_a_low_one_is_tried(server):
    posterior = infer(server.prior(), server.windows(1))
    step = next_window(posterior, 0.1 * server.low_ms)
    assert 0 < step.rate_rps < 0.2 * server.capacity_rps


@pytest.mark.parametrize("start_rps", [10.0, 300.0, 3000.0])
@pytest.mark.parametrize("bound_ms", [8.0, 20.0, 100.0])
def test_from_one_window_of_an_unknown_server_it_finds_the_answer(server, start_rps, bound_ms):
    windows = [server.window(start_rps)]
    prior = Prior.of_window(start_rps, windows[0].p99_ms)
    for moment in range(1, 16):
        step = next_window(infer(prior, windows), bound_ms)
        windows.append(server.window(step.rate_rps, moment=moment))
    found = rate_at_bound(infer(prior, windows), bound_ms)
    assert found.rate_rps == pytest.approx(server.rate_rps(bound_ms), rel=0.1)
    assert found.low_rps < server.rate_rps(bound_ms) < found.high_rps


def test_a_window_ends_when_far_too_many_requests_are_late():
    assert not is_hopeless(0, 1000)
    assert not is_hopeless(50, 1000)
    assert is_hopeless(51, 1000)
