import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.tuner.twin.queueing import (
    MG1,
    MMc,
    little_holds,
    littles_law,
    mm1,
    mm1_quantile_s,
    mmc_quantile_s,
)

RATES = st.floats(0.1, 1e4)
RHOS = st.floats(0.01, 0.99)


def test_a_textbook_queue_of_each_kind():
    # 8 an hour, 5 minutes each: Gross et al. give such queues a W_q of rho / (mu - lambda).
    assert mm1(0.5, 1.0).mean_wait_s() == pytest.approx(1.0)
    # M/M/2 with rho = 3/4: W_q = rho^2 / (mu (1 - rho^2)) = 9/7 of a service time.
    assert MMc(2, 1.5, 1.0).mean_wait_s() == pytest.approx(9 / 7)
    # M/D/1 waits half of what M/M/1 does.
    assert MG1(0.5, 1.0, 0.0).mean_wait_s() == pytest.approx(0.5)


@given(RATES, RHOS)
def test_exponential_service_is_a_case_of_the_general_one(rate, rho):
    service_s = rho / rate
    assert MG1(rate, service_s, 1.0).mean_wait_s() == pytest.approx(
        mm1(rate, service_s).mean_wait_s()
    )


@given(RATES, RHOS)
def test_what_is_in_an_mm1_system_is_rho_over_one_minus_rho_not_its_throughput(rate, rho):
    queue = MG1(rate, rho / rate, 1.0)
    assert littles_law(rate, queue.mean_sojourn_s(), rho / (1 - rho)) == pytest.approx(1)


@given(RATES, RHOS, st.floats(0.01, 0.999))
def test_an_mm1_quantile_is_where_the_tail_says(rate, rho, share):
    found = mm1_quantile_s(rate, rho / rate, share)
    assert mm1(rate, rho / rate).sojourn_tail(found) == pytest.approx(1 - share)


def test_the_p99_of_a_textbook_queue():
    # M/M/2 with rho = 3/4 waits with C = 9/14: the tail is 9/7 x - 2/7 x^2 with x = exp(-t / 2).
    x = (9 - math.sqrt(81 - 8 * 0.07)) / 4
    assert mmc_quantile_s(MMc(2, 1.5, 1.0), 0.99) == pytest.approx(-2 * math.log(x))


@given(st.integers(1, 64), RATES, RHOS, st.floats(0.01, 0.999))
def test_an_mmc_quantile_is_where_the_tail_says(workers, rate, rho, share):
    queue = MMc(workers, rate, workers * rho / rate)
    found = mmc_quantile_s(queue, share)
    assert queue.sojourn_tail(found) == pytest.approx(1 - share)


@given(RATES, RHOS, st.floats(0.01, 0.999))
def test_one_worker_is_a_case_of_many(rate, rho, share):
    assert mmc_quantile_s(mm1(rate, rho / rate), share) == pytest.approx(
        mm1_quantile_s(rate, rho / rate, share)
    )


def test_an_overloaded_queue_never_ends():
    assert mm1(2.0, 1.0).mean_wait_s() == math.inf
    assert MG1(1.0, 1.0, 0.5).mean_wait_s() == math.inf
    assert mm1_quantile_s(1.0, 1.0, 0.5) == math.inf
    assert mmc_quantile_s(MMc(2, 2.0, 1.0), 0.5) == math.inf


def test_littles_law_says_by_how_much_three_numbers_disagree():
    assert littles_law(100.0, 0.05, 5.0) == 1
    assert little_holds(littles_law(100.0, 0.05, 5.4))
    assert not little_holds(littles_law(100.0, 0.05, 5.6))
    assert not little_holds(littles_law(100.0, 0.05, 4.5))
    with pytest.raises(ValueError, match="rate"):
        littles_law(0.0, 1.0, 1.0)
