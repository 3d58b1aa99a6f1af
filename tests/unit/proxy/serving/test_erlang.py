"""The M/M/c queue against published tables, closed forms and what must be monotone."""

from math import exp, inf, log

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dlbench.proxy.serving.erlang import MMc, erlang_b, erlang_c, service_quantile_s, workers_needed

workers = st.integers(1, 64)
shares = st.floats(0.001, 0.999)
times = st.floats(0.0, 100.0)


@pytest.mark.parametrize(
    ("count", "offered", "blocked"),
    # T. Rappaport, Wireless Communications (2nd ed., 2002), table 3.4: the load to three digits.
    [
        (1, 0.0101, 0.01),
        (5, 1.36, 0.01),
        (10, 4.46, 0.01),
        (20, 12.0, 0.01),
        (100, 84.1, 0.01),
        (5, 0.762, 0.001),
        (20, 9.41, 0.001),
    ],
)
def test_erlang_b_is_what_the_tables_say(count, offered, blocked):
    assert erlang_b(count, offered) == pytest.approx(blocked, rel=0.03)


@pytest.mark.parametrize(
    ("count", "offered", "waits"), [(8, 3.87, 0.05), (10, 4.08, 0.01)]
)  # a TETRA channel table
def test_erlang_c_is_what_the_tables_say(count, offered, waits):
    assert erlang_c(count, offered) == pytest.approx(waits, rel=0.02)


@given(st.floats(0, 0.999))
def test_one_or_two_workers_have_a_closed_form(load):
    assert erlang_c(1, load) == pytest.approx(load)
    assert erlang_c(2, 2 * load) == pytest.approx(2 * load**2 / (1 + load))


@given(st.floats(0.01, 100), st.floats(0.01, 0.99), times)
def test_with_one_worker_the_sojourn_is_exponential(service_s, load, services):
    queue = MMc(1, load / service_s, service_s)
    rate = 1 / service_s - queue.arrivals_per_s
    assert queue.sojourn_tail(services * service_s) == pytest.approx(
        exp(-rate * services * service_s), abs=1e-9
    )
    assert queue.mean_wait_s() == pytest.approx(load / rate)


@pytest.mark.parametrize("load", [0.1, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_the_sojourn_tail_adds_up_to_the_mean_wait_and_the_service(count, load):
    queue = MMc(count, load * count, 1.0)
    end, steps = 12 * (1 + 1 / queue.spare_per_s), 2000
    area = sum(queue.sojourn_tail(end * (step + 0.5) / steps) for step in range(steps))
    assert area * end / steps == pytest.approx(1 + queue.mean_wait_s(), rel=1e-3)


@given(workers, shares)
def test_the_tail_starts_at_one(count, load):
    queue = MMc(count, load * count, 1.0)
    assert queue.sojourn_tail(0) == 1


def test_where_wait_and_service_have_the_same_rate_the_tail_is_smooth():
    tails = [MMc(4, 3 + offset, 1.0).sojourn_tail(2.0) for offset in (-1e-9, 0, 1e-9)]
    assert tails == pytest.approx([tails[1]] * 3, rel=1e-6)
    assert tails[1] == pytest.approx(exp(-2) * (1 + erlang_c(4, 3) * 2))


@given(workers, shares, times)
def test_more_workers_and_more_time_never_make_it_worse(count, load, seconds):
    one, more = (MMc(n, load * count, 1.0) for n in (count, count + 1))
    # Differences below the last bits of a float are no finding.
    assert more.mean_wait_s() <= one.mean_wait_s() + 1e-12
    assert more.sojourn_tail(seconds) <= one.sojourn_tail(seconds) + 1e-12
    assert one.sojourn_tail(seconds + 0.1) <= one.sojourn_tail(seconds) + 1e-12
    assert 0 <= one.sojourn_tail(seconds) <= 1 + 1e-11


@given(workers, st.floats(1.0, 10.0), times)
def test_too_much_load_waits_for_ever(count, load, seconds):
    queue = MMc(count, load * count, 1.0)
    assert queue.mean_wait_s() == inf
    assert queue.sojourn_tail(seconds) == 1


def test_a_bound_of_thousands_of_services_does_not_overflow():
    assert MMc(1, 500.0, 1e-3).sojourn_tail(60.0) == 0


@given(st.floats(0.1, 1000), st.floats(1e-4, 1.0), st.floats(1.1, 10.0))
def test_the_fewest_workers_hold_and_one_fewer_does_not(rate, service_s, slack):
    bound = slack * service_quantile_s(0.99, service_s)

    def holds(queue):
        return queue.sojourn_tail(bound) <= 0.01

    needed = workers_needed(rate, service_s, 2000, holds)
    assert holds(MMc(needed, rate, service_s))
    assert not holds(MMc(needed - 1, rate, service_s))


@given(st.floats(0, 1000), st.floats(0, 100), st.integers(1, 300))
def test_more_load_never_needs_fewer_and_never_more_than_allowed(rate, extra, most):
    def needed(arrivals_per_s):
        return workers_needed(arrivals_per_s, 0.1, most, lambda q: q.mean_wait_s() <= 0.1)

    assert needed(rate) <= needed(rate + extra) <= most


def test_no_load_needs_nobody():
    assert workers_needed(0.0, 0.1, 8, lambda _: False) == 0


@given(shares)
def test_a_service_quantile_is_where_its_tail_is(share):
    assume(share < 0.999)
    seconds = service_quantile_s(share, 0.5)
    assert exp(-seconds / 0.5) == pytest.approx(1 - share)
    assert service_quantile_s(0.99, 1) == pytest.approx(log(100))
