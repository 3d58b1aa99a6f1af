"""The queue orders, as ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.dispatch.order import DEFAULT_PRIORITY, IMPLIED_TIMEOUT_NS, ORDERS, rank_by

MS = 1_000_000
TIMES = st.integers(0, 10**15)
LEVELS = st.integers(0, 100)
# None, or so long after the arrival.
TIMEOUTS = st.integers(0, 10**12)


def test_every_order_that_can_be_configured_is_there():
    offered = ServingConfig.model_json_schema()["properties"]["queue_order"]["enum"]
    assert set(offered) == set(ORDERS)


@given(TIMES, TIMES, LEVELS, LEVELS)
def test_fifo_looks_at_nothing_but_the_arrival(first, second, level, deadline):
    rank = rank_by("fifo", MS)
    assert (rank(first, level, deadline) < rank(second, 1, 1)) == (first < second)


@given(TIMES, TIMES, LEVELS, LEVELS, st.integers(1, 10**12), TIMES)
def test_by_priority_a_wait_of_one_ageing_is_worth_one_level(a, b, level_a, level_b, ageing, more):
    rank = rank_by("priority", ageing)
    now = max(a, b) + more
    worth_a = (level_a or DEFAULT_PRIORITY) * ageing - (now - a)
    worth_b = (level_b or DEFAULT_PRIORITY) * ageing - (now - b)
    assert (rank(a, level_a, 0) < rank(b, level_b, 0)) == (worth_a < worth_b)


def test_a_request_without_priority_is_behind_the_highest_and_before_a_low_one():
    rank = rank_by("priority", MS)
    assert rank(0, 1, 0) < rank(0, 0, 0) < rank(0, 3, 0)


@given(TIMES, TIMES, st.integers(1, 10**15), st.integers(1, 10**15))
def test_the_earliest_deadline_is_first_whoever_came_first(a, b, due_a, due_b):
    rank = rank_by("edf", MS)
    assert (rank(a, 0, due_a) < rank(b, 0, due_b)) == (due_a < due_b)


@given(TIMES, st.integers(1, IMPLIED_TIMEOUT_NS - 1), st.integers(1, 10**12))
def test_without_a_deadline_a_request_is_behind_those_in_a_hurry_and_first_come_first(
    since, timeout, later
):
    rank = rank_by("edf", MS)
    assert rank(since, 0, since + timeout) < rank(since, 0, 0) < rank(since + later, 0, 0)


@pytest.mark.parametrize("order", sorted(ORDERS))
@given(TIMES, LEVELS, TIMEOUTS, LEVELS, TIMEOUTS)
def test_nothing_starves_for_whoever_comes_much_later_is_behind(order, since, level, t, other, u):
    rank = rank_by(order, MS)
    patience = max(level, DEFAULT_PRIORITY) * MS + max(t, IMPLIED_TIMEOUT_NS)
    late = since + patience + 1
    assert rank(since, level, t and since + t) < rank(late, other, u and late + u)
