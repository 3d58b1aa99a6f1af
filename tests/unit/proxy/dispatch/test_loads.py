"""What policies see stays true to what happened."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.dispatch.loads import Loads

NAMES = ["a", "b", "c", "d"]
MS = 1_000_000


def measured(*row_ns):
    loads = Loads(NAMES[: len(row_ns)])
    for index, value in enumerate(row_ns):
        loads.took(index, 1, value)
    return loads


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 70)), max_size=40))
def test_what_began_and_ended_leaves_nothing_behind(steps):
    loads = Loads(NAMES)
    for step in steps:
        loads.began(*step)
    assert loads.total == sum(loads.outstanding) == sum(requests for _, requests, _ in steps)
    assert sum(loads.rows) == sum(rows for _, _, rows in steps)
    for step in reversed(steps):
        loads.ended(*step)
    assert (loads.outstanding, loads.rows, loads.total) == ([0] * 4, [0] * 4, 0)


def test_the_wait_is_the_work_ahead_and_one_more_row():
    loads = measured(2 * MS, 3 * MS)
    loads.began(0, 2, 5)
    loads.began(1, 1, 1)
    assert loads.wait_ns == [12 * MS, 6 * MS]
    loads.ended(0, 1, 4)
    assert loads.wait_ns == [4 * MS, 6 * MS]


def test_the_estimate_is_per_row_and_follows_a_change():
    loads = Loads(["a"])
    loads.took(0, 8, 16 * MS)
    assert loads.row_ns == [2 * MS]
    loads.took(0, 1, 3 * MS)
    assert 2 * MS < loads.row_ns[0] < 2.5 * MS
    for _ in range(60):
        loads.took(0, 4, 4 * 9 * MS)
    assert loads.row_ns[0] == pytest.approx(9 * MS, rel=0.01)


def test_a_worker_never_measured_is_tried_once_then_it_is_usual():
    loads = measured(2 * MS, 2 * MS)
    loads.resize(["a", "b", "new"])
    assert loads.wait_ns[2] == 0 < min(loads.wait_ns[:2])
    loads.began(2, 1, 1)
    assert loads.wait_ns[2] == pytest.approx(2 * MS)
    loads.began(2, 1, 1)
    assert loads.wait_ns[2] > max(loads.wait_ns[:2])


def test_before_any_measurement_the_rows_decide():
    loads = Loads(NAMES)
    for index, rows in enumerate([3, 1, 2, 9]):
        loads.began(index, 1, rows)
    assert loads.wait_ns.index(min(loads.wait_ns)) == 1


def test_who_stays_keeps_work_and_estimate_and_who_comes_back_starts_anew():
    loads = measured(1 * MS, 2 * MS, 3 * MS)
    for index in range(3):
        loads.began(index, index + 1, 10 * (index + 1))
    stays, wait = loads.row_ns[2], loads.wait_ns[2]
    loads.resize(["c", "a"])
    assert (loads.outstanding, loads.rows, loads.total) == ([3, 1], [30, 10], 4)
    assert (loads.row_ns[0], loads.wait_ns[0]) == (stays, wait)
    loads.resize(["a", "b", "c"])
    assert (loads.outstanding, loads.rows, loads.total) == ([1, 0, 3], [10, 0, 30], 4)
    assert (loads.row_ns[1], loads.wait_ns[1]) == (0, 0)


def test_an_idle_worker_is_tried_again_and_its_estimate_is_not_touched():
    loads = measured(1 * MS, 50 * MS)
    results = 0
    while min(loads.wait_ns) == loads.wait_ns[0]:
        loads.began(0, 1, 1)
        loads.took(0, 1, 1 * MS)
        loads.ended(0, 1, 1)
        results += 1
        assert results < 1000
    assert results > 100
    assert loads.row_ns[1] == 50 * MS
    loads.began(1, 1, 1)
    assert loads.wait_ns[1] == 100 * MS


def test_a_busy_worker_looks_no_better_with_time():
    loads = measured(1 * MS, 50 * MS)
    loads.began(1, 1, 1)
    for _ in range(100):
        loads.took(0, 1, 1 * MS)
    assert loads.wait_ns[1] == 100 * MS
