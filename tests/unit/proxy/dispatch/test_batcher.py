"""When the batcher cuts, and what: against an oracle that sorts, with a clock that the test turns."""

from __future__ import annotations

import weakref
from itertools import accumulate
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.dispatch.batcher import TIDY_FROM, Batcher
from dlbench.proxy.dispatch.order import ORDERS, rank_by

AGEING = 20


class Request(NamedTuple):
    rank: int
    number: int
    key: str
    rows: int
    since: int
    deadline: int


class Oracle:
    """The batcher as one list, sorted anew for every question."""

    def __init__(self, most, delay, preferred, order):
        self.most, self.delay, self.preferred = most, delay, preferred
        self.rank = rank_by(order, AGEING)
        self.waiting = []

    def add(self, number, key, rows, since, priority, deadline):
        rank = self.rank(since, priority, deadline)
        self.waiting.append(Request(rank, number, key, rows, since, deadline))

    def groups(self):
        """Requests by key, each in rank order, the group with the smallest rank first."""
        found = {}
        for request in sorted(self.waiting):
            found.setdefault(request.key, []).append(request)
        return list(found.values())

    def has_enough(self, group, enough):
        return sum(request.rows for request in group) >= enough

    def late(self, now):
        return bool(self.delay) and min(r.since for r in self.waiting) + self.delay <= now

    def ready(self):
        enough = min((self.most, *self.preferred))
        return [g for g in self.groups() if not self.delay or self.has_enough(g, enough)]

    def due(self):
        if not self.waiting:
            return None
        return 0 if self.ready() else min(r.since for r in self.waiting) + self.delay

    def is_full(self):
        candidates = self.groups() if self.delay else self.groups()[:1]
        return any(self.has_enough(group, self.most) for group in candidates)

    def cut(self, now):
        if not self.waiting:
            return []
        late = self.late(now)
        head = self.groups()[0]
        ready = self.ready()
        if not late and not ready:
            return []
        group = head if late or head in ready else ready[0]
        sums = list(accumulate(request.rows for request in group))
        count = max(1, sum(total <= self.most for total in sums))
        exact = [n for n in range(1, count + 1) if sums[n - 1] in self.preferred]
        if exact and not late and sums[count - 1] < self.most:
            count = exact[-1]
        return self.remove(group[:count])

    def expire(self, now):
        expired = [r for r in self.waiting if r.deadline and r.deadline <= now]
        return self.remove(sorted(expired, key=lambda r: (r.deadline, r.number)))

    def remove(self, requests):
        self.waiting = [request for request in self.waiting if request not in requests]
        return [request.number for request in requests]


ADD = st.tuples(
    st.just("add"),
    st.sampled_from("abc"),
    st.integers(1, 5),  # rows
    st.integers(0, 30),  # how long ago it arrived: a request that is queued again is older
    st.integers(0, 4),  # priority
    st.sampled_from([0, 0, 3, 40]),  # time-out
)
TAKE = st.tuples(st.sampled_from(["cut", "cut", "cut", "expire", "drain"]))
LIMIT = st.tuples(st.just("limit"), st.integers(1, 9))
# Long lists: only where much waits is there anything to choose.
STEPS = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, 10]), st.one_of(ADD, ADD, ADD, TAKE, LIMIT)),
    min_size=20,
    max_size=60,
)
PREFERRED = st.sets(st.integers(1, 9), max_size=2)


@pytest.mark.parametrize("order", sorted(ORDERS))
@settings(max_examples=80, deadline=None)
@given(st.integers(1, 9), st.sampled_from([0, 1, 15, 1000]), PREFERRED, STEPS)
def test_it_does_what_sorting_everything_would(order, most, delay, preferred, steps):
    batcher = Batcher(most, delay, preferred, rank_by(order, AGEING))
    oracle = Oracle(most, delay, preferred, order)
    now = 1000
    for number, (step, (what, *values)) in enumerate(steps):
        now += step
        if what == "add":
            key, rows, ago, priority, timeout = values
            deadline = timeout and now + timeout
            batcher.add(key, rows, number, now - ago, priority, deadline)
            oracle.add(number, key, rows, now - ago, priority, deadline)
        elif what == "limit":
            batcher.max_batch_size = oracle.most = values[0]
        elif what == "drain":
            assert batcher.drain() == oracle.remove(sorted(oracle.waiting, key=lambda r: r.number))
        else:
            assert getattr(batcher, what)(now) == getattr(oracle, what)(now)
        assert len(batcher) == len(oracle.waiting)
        assert batcher.rows == sum(request.rows for request in oracle.waiting)
        assert batcher.due_ns() == oracle.due()
        assert batcher.is_full() == oracle.is_full()
        deadlines = [request.deadline for request in oracle.waiting if request.deadline]
        assert batcher.next_deadline_ns() == min(deadlines, default=None)


@pytest.mark.parametrize("order", sorted(ORDERS))
@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 9),
    st.sampled_from([0, 1, 15, 1000]),
    PREFERRED,
    st.lists(ADD, min_size=5, max_size=40),
)
def test_every_request_leaves_once_and_none_later_than_the_delay(
    order, most, delay, preferred, adds
):
    batcher = Batcher(most, delay, preferred, rank_by(order, AGEING))
    left, oldest = [], {}
    for now, (_, key, rows, _, priority, timeout) in enumerate(adds):
        batcher.add(key, rows, now, now, priority, timeout and now + timeout)
        oldest[now] = now
        due = batcher.due_ns()
        assert due is not None
        assert due <= min(oldest.values()) + delay
        for item in batcher.cut(now):
            left.append(item)
            del oldest[item]
    end = len(adds) + delay
    while batch := batcher.cut(end):
        left += batch
    assert sorted(left) == list(range(len(adds)))
    assert (len(batcher), batcher.rows, batcher.due_ns()) == (0, 0, None)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 40))
def test_under_overload_ageing_lets_a_low_priority_through(level, ageing):
    batcher = Batcher(1, 0, rank=rank_by("priority", ageing))
    batcher.add("k", 1, "low", 0, level)
    for now in range(1, 1000):  # two come while one is served
        batcher.add("k", 1, now, now, 1)
        batcher.add("k", 1, now, now, 1)
        [served] = batcher.cut(now)
        if served == "low":
            break
        assert served <= (level - 1) * ageing, "one that came later went first"
    assert served == "low"


def test_under_overload_a_request_without_deadline_gets_through():
    batcher = Batcher(1, 0, rank=rank_by("edf", 0))
    second = 1_000_000_000
    batcher.add("k", 1, "patient", 0)
    served = []
    for now in range(0, 60 * second, second):
        batcher.add("k", 1, now, now, 0, now + 2 * second)
        batcher.add("k", 1, now, now, 0, now + 2 * second)
        served += batcher.cut(now)
    assert "patient" in served


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


@pytest.mark.parametrize(
    ("rows", "delay", "batches"),
    [
        ([1] * 3, 0, [3]),  # no preferred size can be made: what waits
        ([1] * 7, 0, [4, 3]),
        ([1] * 11, 0, [8, 3]),
        ([1] * 17, 0, [16, 1]),  # a full batch is as good as a preferred one
        ([1] * 7, 100, [4]),  # the rest waits out the delay
        ([3, 3, 3], 100, [9]),  # no sum of these is preferred, and enough wait
        ([3, 1, 3], 100, [4]),
    ],
)
def test_a_preferred_size_is_cut_at_once(rows, delay, batches):
    batcher = Batcher(16, delay, (4, 8))
    for count in rows:
        batcher.add("k", count, count, 0)
    found = []
    while batch := batcher.cut(1):
        found.append(sum(batch))
    assert found == batches
    if len(batcher):
        assert sum(batcher.cut(delay)) == sum(rows) - sum(batches)


def test_a_new_limit_holds_at_once():
    batcher = Batcher(8, 1000)
    for item in range(4):
        batcher.add("k", 1, item, 0)
    assert not batcher.is_full()
    batcher.max_batch_size = 3
    assert (batcher.is_full(), batcher.due_ns()) == (True, 0)
    assert batcher.cut(0) == [0, 1, 2]
    assert not batcher.is_full()


def test_what_left_is_let_go_of_though_its_deadline_is_far_off():
    class Body:
        """Stands for a request's bytes."""

    batcher = Batcher(1, 0, rank=rank_by("edf", 0))
    bodies = [Body() for _ in range(3)]
    gone = [weakref.ref(body) for body in bodies]
    for body in bodies:
        batcher.add("k", 1, body, 0, 0, 10**18)
    del body
    bodies.clear()
    while batcher.cut(0):
        pass
    assert [ref() for ref in gone] == [None] * 3


def test_what_left_is_forgotten_though_its_deadline_is_far_off():
    batcher = Batcher(1, 0, rank=rank_by("priority", 1))
    batcher.add("k", 1, "last", 0, 10**6, 10**18)
    for now in range(20 * TIDY_FROM):
        batcher.add("k", 1, "next", now, 1, 10**18)
        assert batcher.cut(now) == ["next"]
    for heap in (batcher._heads, batcher._deadlines):
        assert len(heap.entries) < 4 * TIDY_FROM
    assert batcher.cut(0) == ["last"]


def test_what_expired_is_forgotten_though_its_turn_is_far_off():
    batcher = Batcher(1, 0, rank=rank_by("priority", 1))
    batcher.add("k", 1, "first", 0, 1)
    for now in range(20 * TIDY_FROM):
        batcher.add("k", 1, "low", now, 10**6, now + 1)
        assert batcher.expire(now + 1) == ["low"]
    assert len(batcher._groups["k"].entries) < 4 * TIDY_FROM
    assert batcher.drain() == ["first"]
