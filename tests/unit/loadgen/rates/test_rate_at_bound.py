"""R(B), read off a posterior."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.loadgen.rates.posterior import infer
from dlbench.loadgen.rates.rate_at_bound import rate_at_bound, rate_quantiles

LADDER_MS = (1.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


@given(st.integers(0, 10**6), st.integers(1, 10))
@settings(max_examples=30)
def test_a_higher_bound_allows_a_higher_rate_and_each_interval_holds_its_rate(server, seed, count):
    posterior = infer(server.prior(), server.windows(seed, count))
    ladder = [rate_at_bound(posterior, bound_ms) for bound_ms in LADDER_MS]
    assert all(one.low_rps <= one.rate_rps <= one.high_rps for one in ladder)
    for name in ("low_rps", "rate_rps", "high_rps"):
        rates = [getattr(one, name) for one in ladder]
        assert rates == sorted(rates)


@pytest.mark.parametrize("bound_ms", [10.0, 20.0, 50.0, 100.0])
def test_windows_without_noise_give_the_curve(server, bound_ms):
    shares = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97)
    windows = [
        server.window(share * server.capacity_rps, moment=i) for i, share in enumerate(shares)
    ]
    found = rate_at_bound(infer(server.prior(), windows), bound_ms)
    assert found.rate_rps == pytest.approx(server.rate_rps(bound_ms), rel=0.07)
    assert found.measured


def test_a_bound_below_an_empty_server_cannot_be_kept(server):
    posterior = infer(server.prior(), server.windows(1))
    found = rate_at_bound(posterior, 0.2 * server.low_ms)
    assert (found.rate_rps, found.low_rps, found.reachable) == (0.0, 0.0, False)
    assert found.width == math.inf
    assert not found.measured


def test_where_perhaps_no_rate_will_do_the_interval_begins_at_nothing(server):
    windows = [server.window(0.3 * server.capacity_rps, moment=moment) for moment in range(3)]
    found = rate_at_bound(infer(server.prior(), windows), 1.1 * server.low_ms)
    assert found.low_rps == 0 < found.high_rps


def test_a_rate_beyond_the_windows_is_called_so(server):
    posterior = infer(server.prior(), [server.window(1000.0, moment=m) for m in range(4)])
    assert not rate_at_bound(posterior, 100.0).measured
    assert not rate_at_bound(infer(server.prior(), []), 100.0).measured


def test_without_a_bound_it_is_the_capacity(server):
    posterior = infer(server.prior(), server.windows(4))
    [rate] = rate_quantiles(posterior, math.inf, (0.5,))
    assert rate == pytest.approx(server.capacity_rps, rel=0.1)
