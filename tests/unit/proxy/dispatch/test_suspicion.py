"""When a batch has run for suspiciously long."""

from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.dispatch.suspicion import (
    FIRST_RUN_NS,
    FIRST_SIZE_NS,
    FLOOR_NS,
    KEPT_SHAPES,
    TIMES,
    UsualTimes,
)

MS = 1_000_000
SHAPE = ((3,),)


def after(*runs):
    usual = UsualTimes()
    for rows, compute_ns in runs:
        usual.took(SHAPE, rows, compute_ns)
    return usual


def test_a_quick_batch_has_the_floor_and_a_slow_one_a_multiple_of_its_time():
    usual = after(*[(1, MS), (8, 500 * MS)] * 50)
    assert usual.patience_ns(SHAPE, 1) == FLOOR_NS
    assert usual.patience_ns(SHAPE, 8) == TIMES * 500 * MS


def test_a_first_run_has_time_and_a_large_batch_more():
    assert UsualTimes().patience_ns(SHAPE, 1) == FIRST_RUN_NS
    usual = after(*[(1, 100 * MS)] * 100)
    assert usual.patience_ns(((4,),), 1) == FIRST_RUN_NS
    assert usual.patience_ns(SHAPE, 2) == FIRST_SIZE_NS
    assert usual.patience_ns(SHAPE, 64) > 0.99 * TIMES * 64 * 100 * MS


def test_what_is_usual_follows_what_is_measured():
    usual = after((1, 1000 * MS), *[(1, 200 * MS)] * 100)
    assert usual.patience_ns(SHAPE, 1) < 1.01 * TIMES * 200 * MS


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(0, 10**11)), max_size=30))
def test_nobody_is_suspected_before_the_floor(runs):
    usual = after(*runs)
    assert all(usual.patience_ns(SHAPE, rows) >= FLOOR_NS for rows in range(1, 65))


def test_shapes_without_end_are_not_remembered_without_end():
    usual = UsualTimes()
    for number in range(3 * KEPT_SHAPES):
        usual.took(((number,),), 1, MS)
    assert len(usual._usual_ns) + len(usual._row_ns) <= 2 * KEPT_SHAPES
