"""Where the next window goes."""

import math

from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.rates.prior import Prior
from dlbench.loadgen.rates.window import OpenWindow
from dlbench.proxy.config import ServingConfig
from dlbench.tuner.bounds.finalists import finalists, round_rates
from dlbench.tuner.bounds.placement import STEP, free, next_rate, snapped, surely_loses
from dlbench.tuner.bounds.rating import Rating, leaders, posterior


def rating(name, capacity, windows=3):
    opened = tuple(
        OpenWindow(share * capacity, 2.0, 5 / (1 - share), moment=n)
        for n, share in enumerate([0.5, 0.7, 0.85][:windows])
    )
    return Rating(name, ServingConfig(workers=1), posterior(Prior(capacity, 4.0), opened))


@given(rate=st.floats(0.01, 1e6))
def test_the_grid_is_fine_and_the_same_for_all(rate):
    assert abs(math.log(snapped(rate) / rate)) <= math.log(STEP) / 2 + 1e-9
    assert snapped(snapped(rate)) == snapped(rate)


@given(rate=st.floats(1, 1e5), data=st.data())
def test_a_rate_that_is_taken_is_not_taken_again(rate, data):
    taken = [snapped(rate, data.draw(st.integers(-2, 2))) for _ in range(3)]
    found = free(rate, taken)
    assert all(abs(math.log(found / other)) > 0.01 for other in taken)
    assert abs(math.log(found / rate)) < 4 * math.log(STEP)


def test_the_next_window_is_near_the_bound():
    """20 ms are reached at 750/s."""
    assert 600 < next_rate(rating("c01", 1000.0), (20.0,)) < 900


def test_who_is_far_behind_surely_loses_and_who_is_near_does_not():
    rated = {
        r.name: r for r in (rating("default", 1000.0), rating("c01", 300.0), rating("c02", 950.0))
    }
    best = leaders(rated, (20.0,))
    assert best[20.0].name == "default"
    assert surely_loses(rated["c01"], best, (20.0,))
    assert not surely_loses(rated["c02"], best, (20.0,))
    assert not surely_loses(rated["default"], best, (20.0,))


def test_finalists_are_those_that_take_most_and_the_default():
    rated = {r.name: r for r in (rating("default", 1000.0), rating("naive", 5000.0), rating("c01", 1500.0), rating("c02", 1200.0), rating("c03", 100.0))}  # fmt: skip
    assert finalists(rated, (20.0,), 2) == ["default", "c01", "c02"]


def test_a_round_has_two_rates_on_the_grid():
    one = rating("c01", 1000.0)
    for number in range(1, 9):
        for bounds in ((20.0,), (10.0, 20.0, 50.0)):
            rates = round_rates(one, bounds, number)
            assert len(set(rates)) == 2
            assert all(snapped(rate) == rate for rate in rates)
            assert all(300 < rate < 1100 for rate in rates)
