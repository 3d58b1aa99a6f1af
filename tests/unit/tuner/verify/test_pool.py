"""Several repeats of an operating point made into one."""

import numpy as np
import pytest

from dlbench.tuner.verify.pool import pool
from testbed import made


def test_quantiles_come_from_pooled_samples_not_from_a_mean_of_quantiles():
    quick, slow = np.full(900, 1.0), np.full(100, 100.0)
    points = [made.point(phase="verify", repeat=n) for n in (1, 3)]
    pooled = pool([(points[0], quick), (points[1], slow)]).measurement
    assert pooled.p50_ms == 1.0
    assert pooled.p99_ms == 100.0
    assert pooled.p90_ms == 1.0
    assert pooled.requests == 2000


def in_two_stretches(fast_ms, slows_ms):
    """One sample says nothing new about its neighbour's p99, so the pooled ones cannot tell."""
    return [
        (
            made.point("c01", "verify", 0.7, 2 * number + 1),
            np.concatenate([np.full(700, fast_ms), np.full(100, slow)]),
        )
        for number, slow in enumerate(slows_ms)
    ]


@pytest.mark.parametrize("unit_ms", [1.0, 0.01, 100.0])
def test_repeats_give_an_interval_where_correlated_samples_cannot(unit_ms):
    repeats = in_two_stretches(5 * unit_ms, [n * unit_ms for n in (40, 50, 60)])
    pooled = pool(repeats).measurement
    assert pooled.p99_low_ms < 40 * unit_ms < 60 * unit_ms < pooled.p99_high_ms


def test_two_repeats_that_cannot_tell_stay_undetermined():
    pooled = pool(in_two_stretches(5.0, [40.0, 60.0])).measurement
    assert pooled.p99_low_ms is pooled.p99_high_ms is None


def test_every_quantile_has_the_interval_of_the_pool_and_not_of_one_repeat():
    rng = np.random.default_rng(0)
    repeats = [
        (
            made.point(phase="verify", repeat=n, p95_low_ms=0.01, p95_high_ms=0.02),
            rng.exponential(1.0, 2000),
        )
        for n in (1, 3, 5)
    ]
    pooled = pool(repeats).measurement
    for name in ("p50", "p90", "p95", "p99"):
        low, value, high = (getattr(pooled, f"{name}{end}_ms") for end in ("_low", "", "_high"))
        assert 0.9 * value < low < value < high < 1.15 * value or name == "p99"
        assert low < value < high


def test_what_the_server_says_of_a_request_is_a_mean_over_requests():
    def repeat(number, requests, service, waiting):
        times = {"server_compute_ms": service, "server_queue_ms": waiting}
        point = made.point(phase="verify", repeat=number, requests=requests, **times)
        return point, np.full(requests, 1.0)

    pooled = pool([repeat(1, 100, 2.0, 1.0), repeat(3, 300, 4.0, 3.0)]).measurement
    assert (pooled.server_compute_ms, pooled.server_queue_ms) == (3.5, 2.5)
    partly = pool([repeat(1, 100, 2.0, 1.0), repeat(3, 300, None, 3.0)]).measurement
    assert partly.server_compute_ms is None
