import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.analysis.statistics import (
    UNDETERMINED,
    binomial_cdf,
    block_shares,
    design_effect,
    holds,
    mean_interval,
    minimum_samples,
    pooled_mean_interval,
    pooled_quantile_interval,
    quantile,
    quantile_interval,
    quantile_ranks,
    t_quantile,
    window_rates,
)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.floats(0.01, 0.999))
def test_quantile_is_the_smallest_sample_that_the_share_does_not_exceed(values, q):
    ordered = np.sort(np.array(values))
    found = quantile(ordered, q)
    assert np.mean(ordered <= found) >= q - 1e-9
    assert np.mean(ordered < found) < q + 1e-9


def test_ranks_known_from_tables():
    for n, q, whole in ((2000, 0.99, (1971, 1989)), (100, 0.5, (40, 61))):
        low, high = quantile_ranks(n, q)
        assert (math.floor(low), math.ceil(high)) == whole
    # 0.99**n must fall to 2.5 %.
    assert quantile_ranks(367, 0.99) is None
    assert quantile_ranks(368, 0.99) is not None


@given(st.integers(2, 400), st.floats(0.02, 0.98))
def test_binomial_equals_the_sum_by_hand(n, p):
    first, cdf = binomial_cdf(n, p)
    for at in {0, len(cdf) // 2, len(cdf) - 1}:
        by_hand = math.fsum(
            math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(first + at + 1)
        )
        assert cdf[at] == pytest.approx(by_hand, abs=1e-9)


@given(st.integers(400, 3000), st.sampled_from([0.5, 0.9, 0.99]))
def test_whole_ranks_around_hold_the_confidence_and_those_inside_do_not(n, q):
    low, high = quantile_ranks(n, q)
    first, cdf = binomial_cdf(n, q)

    def held(low, high):
        return cdf[min(high - 1 - first, len(cdf) - 1)] - cdf[low - 1 - first]

    assert held(math.floor(low), math.ceil(high)) >= 0.95 - 1e-9
    assert held(math.floor(low) + 1, math.ceil(high) - 1) <= 0.95 + 1e-9


@given(st.integers(20, 300), st.floats(0.3, 0.7))
def test_ranks_follow_the_beta_distribution(n, q):
    """The r-th of n uniform numbers is Beta(r, n - r + 1), so P[it <= q] = P[Bin(n, q) >= r]."""
    low, _ = quantile_ranks(n, q)
    below, above = (beta_cdf(q, rank, n - rank + 1) for rank in (math.floor(low), math.ceil(low)))
    assert above - 1e-6 <= 0.975 <= below + 1e-6


def beta_cdf(x, a, b, steps=20_000):
    """By the midpoint rule: an oracle that shares nothing with the binomial sum."""
    at = (np.arange(steps) + 0.5) / steps
    logs = (a - 1) * np.log(at) + (b - 1) * np.log1p(-at)
    density = np.exp(logs - logs.max())
    return float(
        np.interp(x, np.arange(steps + 1) / steps, np.append(0, density.cumsum())) / density.sum()
    )


@pytest.mark.parametrize(("over", "n"), [(0, 459), (1, 662), (5, 1307), (10, 2010)])
def test_minimum_samples_are_mlperfs(over, n):
    assert minimum_samples(0.99, over) == n


@pytest.mark.parametrize(
    ("p", "freedom", "expected"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.3027),
        (0.975, 3, 3.1824),
        (0.975, 4, 2.7764),
        (0.975, 9, 2.2622),
        (0.975, 29, 2.0452),
        (0.995, 8, 3.3554),
        (0.95, 5, 2.0150),
        (0.975, 1000, 1.9623),
    ],
)
def test_t_quantiles_known_from_tables(p, freedom, expected):
    assert t_quantile(p, freedom) == pytest.approx(expected, abs=2e-4)


def test_mean_interval_by_hand():
    low, high = mean_interval([9.0, 10.0, 11.0])
    assert (low, high) == pytest.approx((10 - 4.30265 / math.sqrt(3), 10 + 4.30265 / math.sqrt(3)))
    assert mean_interval([1.0]) == UNDETERMINED


def test_window_rates_add_up():
    times = np.sort(np.random.default_rng(0).integers(10**9, 3 * 10**9, 500))
    rates = window_rates(times, (10**9, 3 * 10**9))
    assert rates.mean() == pytest.approx(250)
    assert len(window_rates(times[:5], (10**9, 3 * 10**9))) == 0


def test_too_few_samples_tell_nothing():
    values = np.random.default_rng(0).exponential(size=300)
    assert quantile_interval(values, 0.99) == UNDETERMINED
    assert quantile_interval(np.empty(0), 0.99) == UNDETERMINED


def test_one_stall_is_no_statistics():
    values = np.full(20_000, 2.0)
    values[5000:6000] = np.linspace(1000, 2, 1000)
    assert quantile_interval(values, 0.99) == UNDETERMINED


def test_autocorrelation_widens_the_interval():
    rng = np.random.default_rng(3)
    independent = rng.exponential(size=20_000)
    correlated = np.repeat(rng.exponential(size=2000), 10)
    narrow = np.subtract(*quantile_interval(independent, 0.99)[::-1])
    wide = np.subtract(*quantile_interval(correlated, 0.99)[::-1])
    assert wide > 2 * narrow


def test_repeats_that_disagree_widen_the_interval():
    rng = np.random.default_rng(4)
    alike = [rng.exponential(size=3000) for _ in range(3)]
    unlike = [run * scale for run, scale in zip(alike, (1.0, 1.4, 2.0), strict=True)]
    low, high = pooled_quantile_interval(alike, 0.99)
    assert high / low < 1.6
    low, high = pooled_quantile_interval(unlike, 0.99)
    assert high / low > 2.5


@given(st.integers(0, 2**32), st.integers(400, 3000), st.integers(1, 4))
def test_the_interval_holds_the_estimate(seed, n, repeats):
    rng = np.random.default_rng(seed)
    runs = [rng.exponential(size=n) for _ in range(repeats)]
    low, high = pooled_quantile_interval(runs, 0.99)
    assert low is None or low <= quantile(np.sort(np.concatenate(runs)), 0.99) <= high


def autoregressive(rng, n, memory):
    """Log-normal values whose logarithms remember each other."""
    noise = rng.normal(size=n) * math.sqrt(1 - memory**2)
    logs = np.empty(n)
    logs[0] = rng.normal()
    for i in range(1, n):
        logs[i] = memory * logs[i - 1] + noise[i]
    return np.exp(logs)


@pytest.mark.parametrize(("memory", "n"), [(0.0, 600), (0.0, 4000), (0.5, 4000), (0.9, 5000)])
def test_the_interval_covers_the_truth(memory, n):
    """In 95 % of the paths at least, but for four standard errors."""
    rng = np.random.default_rng(5)
    truth, paths = math.exp(2.3263), 200
    intervals = [quantile_interval(autoregressive(rng, n, memory), 0.99) for _ in range(paths)]
    determined = [found for found in intervals if found != UNDETERMINED]
    covered = sum(low <= truth <= high for low, high in determined)
    assert len(determined) > 0.8 * paths
    assert covered / len(determined) > 0.95 - 4 * math.sqrt(0.95 * 0.05 / paths)


def test_an_interval_for_every_quantile_of_a_known_distribution():
    """Closed form: the quantile of an exponential is -ln(1 - q)."""
    rng = np.random.default_rng(11)
    for q in (0.5, 0.9, 0.95, 0.99, 0.999):
        found = [quantile_interval(rng.exponential(size=20_000), q) for _ in range(100)]
        held = [low <= -math.log(1 - q) <= high for low, high in found if low is not None]
        assert len(held) > 90
        assert np.mean(held) > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 100)


def test_memory_longer_than_the_blocks_tells_nothing():
    slow = np.repeat([1.0, 5.0, 1.0, 5.0], 5000) + np.random.default_rng(0).exponential(size=20_000)
    assert quantile_interval(slow, 0.5) == UNDETERMINED
    assert pooled_mean_interval([slow]) == UNDETERMINED


def test_two_stalls_in_twenty_seconds_are_too_few():
    """Every 10 s one of 0.5 s, at 1,000/s."""
    values = np.random.default_rng(0).exponential(5, size=20_000)
    for start in (4000, 14_000):
        values[start : start + 500] += np.linspace(500, 0, 500)
    assert [quantile_interval(values, q) for q in (0.95, 0.99, 0.999)] == [UNDETERMINED] * 3


@given(st.integers(0, 2**32), st.floats(0.01, 100), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_unit_does_not_matter(seed, scale, q):
    values = np.random.default_rng(seed).exponential(size=1000)
    low, high = quantile_interval(values, q)
    if low is not None:
        assert quantile_interval(values * scale, q) == pytest.approx((low * scale, high * scale))


def test_the_design_effect_of_repeated_values_is_their_number():
    rng = np.random.default_rng(1)
    effects = [
        design_effect(block_shares([np.repeat(rng.exponential(size=2000), 10)], 1.0), 20_000)
        for _ in range(200)
    ]
    # A variance over 20 blocks spreads by a third, its mean over 200 by 2 %.
    assert np.mean(effects) == pytest.approx(10, rel=0.1)


@given(st.integers(0, 2**32), st.integers(1, 3))
def test_independent_samples_have_a_design_effect_of_one(seed, repeats):
    rng = np.random.default_rng(seed)
    runs = [rng.exponential(size=4000) for _ in range(repeats)]
    # Beyond 0.1 and 3.5 a chi-squared of 17 or more degrees of freedom does not come.
    assert 0.1 < design_effect(block_shares(runs, 2.0), 4000 * repeats) < 3.5


def test_the_mean_interval_of_a_series_knows_its_memory():
    rng = np.random.default_rng(2)
    found = [pooled_mean_interval([autoregressive(rng, 4000, 0.8)]) for _ in range(150)]
    held = [low <= math.exp(0.5) <= high for low, high in found if low is not None]
    assert len(held) > 135
    assert np.mean(held) > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 150)


def test_holds_is_mlperfs_rule_for_independent_requests():
    """459 samples and none above bear p99; 1.3 times as many leave room for the blocks' chance."""
    quick = np.random.default_rng(0).uniform(1, 2, size=600)
    assert holds(quick[:400], 10.0, 0.99) is None
    assert holds(quick, 10.0, 0.99) is True
    assert holds(quick, 0.5, 0.99) is False


def test_holds_cannot_tell_what_lies_at_the_bound():
    rng = np.random.default_rng(1)
    sides = [holds(rng.exponential(size=2000), -math.log(0.01), 0.99) for _ in range(300)]
    # Each side is wrongly taken with 1 %; 17 are five standard deviations above both together.
    assert sum(side is not None for side in sides) <= 17
    away = [holds(rng.exponential(size=4000), -math.log(at), 0.99) for at in (0.003, 0.03)]
    assert away == [True, False]


def test_holds_counts_a_burst_as_one_event():
    values = np.ones(20_000)
    values[7000:7400] = 100.0
    assert holds(values, 50.0, 0.99) is None
    scattered = np.ones(20_000)
    scattered[::50] = 100.0
    assert holds(scattered, 50.0, 0.99) is False


def test_failures_are_infinitely_late():
    values = np.random.default_rng(3).exponential(size=4000)
    values[::10] = np.inf
    assert holds(values, 100.0, 0.99) is False
    assert holds(np.full(1000, np.inf), 100.0, 0.99) is False


def test_a_pile_that_grows_is_above_a_bound_far_below():
    values = np.linspace(1, 1000, 5000)
    assert holds(values, 0.5, 0.99) is False
