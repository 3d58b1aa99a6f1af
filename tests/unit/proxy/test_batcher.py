"""When the batcher cuts, and what: by properties, with a clock that the test turns."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.batcher import Batcher

# A step of time, then a request under one of three keys.
ARRIVALS = st.lists(
    st.tuples(st.integers(0, 50), st.sampled_from("abc"), st.integers(1, 12)), max_size=40
)


@settings(max_examples=150, deadline=None)
@given(ARRIVALS, st.integers(1, 8), st.sampled_from([0, 1, 30, 1000]), st.booleans())
def test_every_item_leaves_once_in_order_and_when_it_is_due(arrivals, most, delay, eager):
    batcher = Batcher(most, delay)
    now, added, left = 0, [], []

    def cut():
        while batch := batcher.cut(now):
            keys = {added[i][0] for i in batch}
            rows = sum(added[i][1] for i in batch)
            assert len(keys) == 1
            assert rows <= most or len(batch) == 1
            waiting = [i for i in range(len(added)) if i not in left]
            same = [i for i in waiting if added[i][0] == added[batch[0]][0]]
            oldest_due = added[min(waiting)][2] + delay <= now
            full = sum(added[i][1] for i in same) >= most
            assert oldest_due or full, "cut before it was due"
            left.extend(batch)
        due = batcher.due_ns()
        assert due is None or due > now

    for step, key, rows in arrivals:
        now += step
        batcher.add(key, rows, len(added), now)
        added.append((key, rows, now))
        assert len(batcher) == len(added) - len(left)
        if eager:
            cut()
    while batcher.due_ns() is not None:
        now = max(now, batcher.due_ns())
        cut()
    assert sorted(left) == list(range(len(added)))
    for key in "abc":
        mine = [i for i in left if added[i][0] == key]
        assert mine == sorted(mine)


def test_a_full_batch_does_not_wait_for_the_delay():
    batcher = Batcher(4, 1000)
    for item in range(3):
        batcher.add("k", 1, item, 0)
    assert batcher.cut(999) == []
    assert batcher.due_ns() == 1000
    batcher.add("k", 1, 3, 1)
    assert batcher.is_full()
    assert batcher.cut(1) == [0, 1, 2, 3]
    assert batcher.due_ns() is None


def test_the_delay_counts_from_the_oldest_request():
    batcher = Batcher(8, 100)
    batcher.add("k", 1, "old", 10)
    batcher.add("k", 1, "new", 90)
    assert batcher.cut(109) == []
    assert batcher.cut(110) == ["old", "new"]


def test_a_full_batch_overtakes_a_request_that_is_not_due_but_not_one_that_is():
    batcher = Batcher(2, 100)
    batcher.add("a", 1, "a0", 0)
    batcher.add("b", 2, "b0", 50)
    assert batcher.cut(60) == ["b0"]
    batcher.add("b", 2, "b1", 70)
    assert batcher.cut(100) == ["a0"]
    assert batcher.cut(100) == ["b1"]


def test_a_request_larger_than_a_batch_runs_alone():
    batcher = Batcher(4, 0)
    for item, rows in enumerate((1, 9, 1)):
        batcher.add("k", rows, item, 0)
    assert [batcher.cut(0) for _ in range(4)] == [[0], [1], [2], []]


def test_drain_gives_all_oldest_first():
    batcher = Batcher(4, 100)
    for item, key in enumerate("abab"):
        batcher.add(key, 1, item, item)
    assert batcher.drain() == [0, 1, 2, 3]
    assert len(batcher) == 0
    assert batcher.cut(10**9) == []
