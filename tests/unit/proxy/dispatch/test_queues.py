"""The line-up against a plain count of who has what to do."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.dispatch.dispatcher import WorkerSlot
from dlbench.proxy.dispatch.job import Job
from dlbench.proxy.dispatch.policy import POLICIES
from dlbench.proxy.dispatch.queues import Queues
from dlbench.proxy.request import InferRequest, Layout

CHOOSING = sorted(set(POLICIES) - {"shared_queue"})


def config(policy="round_robin", **knobs):
    return ServingConfig(scheduling_policy=policy, **knobs)


def slot(number, weight=1.0):
    return WorkerSlot(number, weight, link=None)


def job(since_ns=1, rows=1, deadline_ns=0):
    made = Job(InferRequest(Layout(((rows,),), rows, ((),), ()), (b"",), ()), None, since_ns)
    made.deadline_ns = deadline_ns
    return made


def line_of(policy="round_robin", workers=2, most=8, **knobs):
    line = Queues(config(policy, **knobs), most)
    for number in range(workers):
        line.join(slot(number))
    return line


def add(line, new, key=b""):
    chosen = line.choose(key)
    line.add(new, (), chosen)
    return chosen


def cut(line, at):
    """A batch as the dispatcher takes it."""
    jobs = line.queue_of(at).cut(1 << 62)
    line.waiting -= len(jobs)
    return jobs


@pytest.mark.parametrize("policy", CHOOSING)
def test_what_waits_for_nobody_goes_to_the_first_who_comes(policy):
    line = line_of(policy, workers=0)
    jobs = [job(1), job(2)]
    assert [add(line, new) for new in jobs] == [None, None]
    assert line.waiting == 2
    assert line.join(slot(0)) == jobs
    assert line.waiting == 0


def test_under_the_shared_queue_nobody_is_chosen_and_nothing_moves():
    line = line_of("shared_queue")
    jobs = [job(1), job(2), job(3)]
    assert [add(line, new) for new in jobs] == [None] * 3
    assert line.join(slot(2)) == []
    assert line.leave(line.live[0]) == []
    assert line.waiting == 3
    assert cut(line, line.live[0]) == jobs


@pytest.mark.parametrize("policy", CHOOSING)
def test_who_leaves_hands_back_what_waited_for_it_and_is_never_chosen_again(policy):
    line = line_of(policy, workers=3)
    theirs = {}
    for number in range(30):
        new = job(number)
        theirs.setdefault(add(line, new, b"%d" % number), []).append(new)
    leaving = max(theirs, key=lambda at: len(theirs[at]))
    assert line.leave(leaving) == theirs[leaving]
    assert leaving.index == -1
    assert line.waiting == 30 - len(theirs[leaving])
    assert all(add(line, job(), b"%d" % number) is not leaving for number in range(60))
    assert [at.index for at in line.live] == [0, 1]


def test_a_reconfiguration_hands_everything_back_the_oldest_first():
    line = line_of("round_robin", workers=3)
    jobs = [job(since) for since in (5, 3, 9, 1, 7)]
    for new in jobs:
        add(line, new)
    assert [found.since_ns for found in line.configure(config("shared_queue"), 8)] == [
        1,
        3,
        5,
        7,
        9,
    ]
    assert line.waiting == 0
    assert line.shares


@pytest.mark.parametrize("policy", POLICIES)
def test_every_queue_has_the_limit_also_of_those_who_come_later(policy):
    line = line_of(policy, workers=1, most=1)
    line.limit_batches(3)
    line.join(slot(1))
    assert [queue.max_batch_size for queue in line.all()] == [3] * (
        1 if policy == "shared_queue" else 3
    )
    line.configure(config(policy), 5)
    assert {queue.max_batch_size for queue in line.all()} == {5}


def test_weights_are_shares_also_after_somebody_left():
    line = Queues(config("weighted_round_robin"), 8)
    for number, weight in enumerate((3, 2, 1)):
        line.join(slot(number, weight))
    assert Counter(add(line, job()).number for _ in range(60)) == {0: 30, 1: 20, 2: 10}
    line.leave(line.live[0])
    assert Counter(add(line, job()).number for _ in range(60)) == {1: 40, 2: 20}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "run", "end", "expire", "join", "leave", "knobs"]),
        st.integers(0, 9),
    ),
    max_size=60,
)


@given(st.sampled_from(sorted(POLICIES)), STEPS)
def test_the_loads_are_what_waits_and_runs(policy, steps):
    line, now = line_of(policy), 0
    for now, (step, number) in enumerate(steps, 1):
        at = line.live[number % len(line.live)] if line.live else None
        if step == "add":
            add(line, job(now, rows=1 + number % 3, deadline_ns=now + number), b"%d" % number)
        elif step == "join":
            line.join(slot(100 + now))
        elif step == "knobs":
            policy = sorted(POLICIES)[number % len(POLICIES)]
            for new in line.configure(config(policy), 4):
                add(line, new)
        elif step == "expire":
            for queue in line.all():
                for gone in queue.expire(now):
                    line.taken_back(gone)
        elif at is not None:
            act(line, at, step, now)
        check_loads(line)


def act(line, at, step, now):
    if step == "leave":
        for new in line.leave(at):
            add(line, new)
    elif step == "run" and (jobs := cut(line, at)):
        at.batches[now] = jobs
    elif step == "end" and at.batches:
        jobs = at.batches.pop(min(at.batches))
        line.ended(at, len(jobs), sum(found.request.rows for found in jobs), 1000)


def check_loads(line):
    assert line.waiting == sum(map(len, line.all()))
    assert [at.index for at in line.live] == list(range(len(line.live)))
    if line.shares:
        return
    assert line._loads.outstanding == [at.outstanding for at in line.live]
    running = [sum(j.request.rows for b in at.batches.values() for j in b) for at in line.live]
    waiting = [at.queue.rows for at in line.live]
    assert line._loads.rows == [r + w for r, w in zip(running, waiting, strict=True)]
    assert line._loads.total == sum(line._loads.outstanding)
