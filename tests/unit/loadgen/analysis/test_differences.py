import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.analysis.differences import (
    Figure,
    Runs,
    compare_figures,
    ratio_interval,
    reported,
)
from dlbench.loadgen.analysis.statistics import UNDETERMINED
from testbed import made

POSITIVE = st.floats(0.01, 1e4)


@st.composite
def figures(draw):
    value = draw(POSITIVE)
    return Figure(value, (value / draw(st.floats(1.001, 3)), value * draw(st.floats(1.001, 3))))


def runs(seed, scale=1.0, n=5000, repeats=1):
    rng = np.random.default_rng(seed)
    return Runs(
        [scale * rng.exponential(size=n) for _ in range(repeats)],
        [rng.normal(1000 / scale, 5, size=10) for _ in range(repeats)],
    )


def compare(first, second):
    return compare_figures(first.figures(), second.figures())


def word(difference):
    """What the second is against the first, this figure looked at alone."""
    low, high = difference.interval
    if low is None or low <= 1 <= high:
        return "cannot tell"
    return "higher" if low > 1 else "lower"


@given(figures(), figures())
def test_the_ratio_lies_in_its_interval_which_is_wider_than_either(a, b):
    low, high = ratio_interval(a, b)
    assert low < b.value / a.value < high
    for one in (a, b):
        assert high / low > one.interval[1] / one.interval[0] * (1 - 1e-9)


@given(figures(), figures())
def test_the_other_way_round_is_the_inverse(a, b):
    low, high = ratio_interval(a, b)
    assert ratio_interval(b, a) == pytest.approx((1 / high, 1 / low))


def test_symmetric_intervals_give_the_textbook_one():
    """On the log scale two normal estimates differ with the root of the sum of the variances."""
    a, b = (
        Figure(1.0, (math.exp(-0.3), math.exp(0.3))),
        Figure(2.0, (2 * math.exp(-0.4), 2 * math.exp(0.4))),
    )
    assert ratio_interval(a, b) == pytest.approx((2 * math.exp(-0.5), 2 * math.exp(0.5)))


def test_a_twice_slower_server_is_told():
    found = compare(runs(1), runs(2, scale=2.0))
    assert found.tells
    assert [word(found[n]) for n in ("p50_ms", "p99_ms", "mean_ms")] == ["higher"] * 3
    assert word(found["throughput_rps"]) == "lower"
    assert found["p99_ms"].ratio == pytest.approx(2, rel=0.2)


def test_too_little_data_cannot_tell():
    found = compare(runs(1, n=100), runs(2, scale=2.0, n=100))["p99_ms"]
    assert found.interval == UNDETERMINED


def test_the_same_run_is_no_difference():
    found = compare(runs(1), runs(1))
    assert not found.tells
    assert {word(difference) for difference in found.differences} == {"cannot tell"}
    assert all(difference.ratio == 1 for difference in found.differences)


def test_repeats_that_disagree_tell_less_than_those_that_agree():
    other = runs(5, repeats=3)
    alike = compare(runs(1, repeats=3), other)["p99_ms"].interval
    unlike = Runs(
        [run * f for run, f in zip(runs(1, repeats=3).latencies_ms, (1, 1.4, 2), strict=True)]
    )
    unlike = compare(unlike, other)["p99_ms"].interval
    assert unlike == UNDETERMINED or unlike[1] / unlike[0] > 2 * alike[1] / alike[0]


def test_many_figures_get_wider_intervals_together():
    one = {"x": Figure(1.0, (0.9, 1.1))}
    alone = compare_figures(one, one)["x"]
    assert alone.together == pytest.approx(alone.interval)
    many = {f"x{i}": one["x"] for i in range(7)}
    low, high = compare_figures(many, many)["x0"].together
    assert low < alone.interval[0]
    assert high > alone.interval[1]


def test_more_figures_elsewhere_widen_the_interval_that_holds_for_all():
    one = {"x": Figure(1.0, (0.9, 1.1))}
    among_seven = compare_figures(one, one, together=7)["x"].together
    many = {f"x{i}": one["x"] for i in range(7)}
    assert among_seven == compare_figures(many, many)["x0"].together


def test_figures_that_one_side_lacks_are_left_out():
    found = compare_figures({"x": Figure(1.0), "y": Figure(None)}, {"y": Figure(1.0)})
    assert found.differences == ()
    with pytest.raises(KeyError):
        found["x"]


def test_measurements_are_compared_by_their_intervals():
    sides = (
        made.measurement(
            p99=p99,
            rate=rate,
            sure=0.01,
            p99_low_ms=0.9 * p99,
            p99_high_ms=1.1 * p99,
            p50_ms=1.0,
            p50_low_ms=None,
            p50_high_ms=None,
        )
        for rate, p99 in ((100, 10), (100.5, 20))
    )
    found = compare_figures(*map(reported, sides))
    assert [word(found[n]) for n in ("p99_ms", "p50_ms", "throughput_rps")] == [
        "higher",
        "cannot tell",
        "cannot tell",
    ]


def test_equal_servers_are_told_apart_in_one_of_twenty_comparisons_at_most():
    """200 comparisons of queues at a load of 0.7: 5 % and three standard errors are 19."""
    rng = np.random.default_rng(8)

    def queue(n=6000):
        service, gaps = rng.exponential(size=n), rng.exponential(1 / 0.7, size=n)
        walk = np.cumsum(np.append(0, service[:-1] - gaps[1:]))
        return Runs([walk - np.minimum.accumulate(walk) + service])

    found = [compare(queue(), queue()) for _ in range(200)]
    assert sum(comparison.tells for comparison in found) <= 19
    assert sum(comparison["p90_ms"].interval != UNDETERMINED for comparison in found) > 150
