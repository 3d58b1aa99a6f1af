"""The core before workers, a timer and a cache backend that do what the tests tell them."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.cache.backend import NoBackend
from dlbench.proxy.cache.cache_key import KeyMaker
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.dispatch.core import Core
from dlbench.proxy.dispatch.job import Job, Slot
from dlbench.proxy.dispatch.policy import POLICIES
from dlbench.proxy.errors import (
    BadRequest,
    ClientGone,
    DeadlineExceeded,
    Overloaded,
    RequestError,
    WorkerFailed,
)
from dlbench.proxy.request import all_outputs, lay_out, make_request
from dlbench.proxy.serving.scaling import Scaling
from dlbench.proxy.telemetry.stats import ModelStats
from dlbench.proxy.tensors import Signature, Tensor, TensorSpec
from dlbench.proxy.workers.frames import Result

MS = 1_000_000
WIDER = (0, 1)
POISON = 13  # the model refuses this value
ADDED = 1000  # to every value that it takes


class Worker(Slot):
    """What is sent lies in `sent` until `finish` answers the oldest."""

    def __init__(self, number, world):
        super().__init__(number, 1.0)
        self.world = world
        self.alive = True
        self.welcome = True  # whether the core may send anything
        self.left = False
        self.sent = deque()

    def send(self, number, rows, shapes, pieces):
        assert self.welcome, "a batch for a worker that has left"
        (shape,) = shapes
        data = b"".join(bytes(piece) for piece in pieces)
        self.sent.append((number, tuple(rows), shape, np.frombuffer(data, "<i8")))

    def release(self):
        self.left = True

    def finish(self, compute_ns=MS, *, odd=False, more=(0, 0), refuse=False):
        """Answer the oldest batch; an `odd` one comes back with a row too many.

        One alone may have `more` rows and columns, too.
        """
        number, rows, shape, data = self.sent.popleft()
        if self.world.core.over:  # nobody listens any more
            return
        if POISON in data or refuse:
            self.world.core.result(self, number, "poison", self.world.now_ns)
            return
        data = data + ADDED
        if odd and len(rows) > 1:
            shape = tuple(size + 1 for size in shape)
            data = np.zeros(shape, "<i8")
        if any(more):
            shape = tuple(size + further for size, further in zip(shape, more, strict=True))
            data = np.zeros(shape, "<i8")
        result = Result(1, compute_ns, 1, (Tensor(shape, data.tobytes()),))
        self.world.core.result(self, number, result, self.world.now_ns)

    def die(self):
        self.alive = self.welcome = False
        self.sent.clear()
        if not self.world.core.over:
            self.world.core.lost(self, self.world.now_ns, blame=True)


class SlowBackend:
    """A cache server that answers when `answer` is called, from what was stored."""

    def __init__(self):
        self.stored = {}
        self.fetches = deque()

    def fetch(self, key, found):
        self.fetches.append((key, found))

    def store(self, key, outputs, ttl_s, *, combined=False):
        self.stored[key] = outputs

    def answer(self):
        key, found = self.fetches.popleft()
        found(self.stored.get(key))

    def __bool__(self):
        return True


class World:
    """A core, its workers, and what became of every request."""

    def __init__(self, backend=None, axis=0, **knobs):
        dims = ("n", "width") if axis == 0 else ("width", "n")
        spec = TensorSpec("x", "INT64", dims, axis)
        self.axis = axis
        self.signature = Signature((spec,), (spec,), batchable=True)
        self.backend = backend or NoBackend()
        self.now_ns = 10**12
        self.wake_ns = None
        self.slots = []  # all that ever joined
        self.answers = []  # one list per request
        self.wrong = []  # what was wrong with them
        self.jobs = {}  # by the number of the answer, what stands for it
        self.gone = set()  # numbers of those whose clients have gone
        self.limits = []  # what was said of smaller batches
        self.keys = KeyMaker(b"model")
        self.stats = ModelStats(lambda: 0.0)
        config = ServingConfig(**{"workers": 1, **knobs})
        self.core = Core(self.signature, config, self.backend, self.stats, self)

    # What the core asks for

    def finish(self, job, outcome):
        latency_ns = self.now_ns - job.since_ns
        if isinstance(outcome, RequestError):
            self.stats.failed(latency_ns, outcome.status)
        else:
            self.stats.succeeded(latency_ns)
        job.tell(outcome)

    def fetch(self, job):
        def found(outputs):
            self.core.fetched(job, outputs, self.now_ns)

        self.backend.fetch(job.cache_key, found)

    def wake_at(self, when_ns):
        assert when_ns > 0
        self.wake_ns = when_ns if self.wake_ns is None else min(self.wake_ns, when_ns)

    def limit_batches(self, rows, why):
        self.limits.append((rows, why))

    # What happens to it

    def configure(self, **knobs):
        self.core.configure(ServingConfig(**{"workers": 1, **knobs}), self.now_ns)

    def shutdown(self):
        self.core.shutdown("the end", self.now_ns)

    def join(self, slot=None):
        if slot is None:
            slot = Worker(len(self.slots), self)
            self.slots.append(slot)
        slot.alive = slot.welcome = True  # perhaps again
        slot.left = False
        self.core.join(slot, self.now_ns)
        return slot

    def leave(self, slot):
        slot.welcome = False
        self.core.leave(slot, self.now_ns)

    def send(self, request, reply):
        self.stats.received()
        job = Job(request, reply, self.now_ns)
        if self.core.needs_key:
            job.cache_key = self.keys.key(request)
        self.core.submit(job, self.now_ns)
        return job

    def request(self, values, rows=1, width=1, priority=0, timeout_ms=0):
        x = (np.arange(rows * width) + values * 100).astype("<i8")
        shape = (rows, width) if self.axis == 0 else (width, rows)
        wanted = all_outputs(self.signature, binary=True)
        layout = lay_out(self.signature, (shape,), wanted, None, priority, timeout_ms * MS)
        return make_request(self.signature, layout, (x.tobytes(),))

    def submit(self, values=1, then=lambda: None, **options):
        """Submit a request for these values; returns the list that its answer will be in."""
        request = self.request(values, **options)
        answers, since_ns, number = [], self.now_ns, len(self.answers)
        self.answers.append(answers)

        def reply(outcome):
            answers.append(outcome)
            try:
                assert not isinstance(outcome, ClientGone) or number in self.gone
                self.check(request, outcome, since_ns)
            except AssertionError as error:  # the proxy survives whatever a reply raises
                self.wrong.append(error)
            then()

        self.jobs[number] = self.send(request, reply)
        return answers

    def abandon(self, number):
        """The client of a request goes, unless it has its answer."""
        if not self.answers[number] and number not in self.gone:
            self.gone.add(number)
            self.core.abandon(self.jobs[number], self.now_ns)

    def check(self, request, outcome, since_ns):
        """Whether that is an answer to this request."""
        (data,), layout = request.data, request.layout
        x = np.frombuffer(data, "<i8")
        if isinstance(outcome, BadRequest):
            assert POISON in x
        elif isinstance(outcome, DeadlineExceeded):
            timeout_ns = layout.timeout_ns or self.core.config.default_timeout_ms * MS
            assert timeout_ns == 0 or self.now_ns >= since_ns + timeout_ns
        elif not isinstance(outcome, RequestError):
            ((shape, answer),) = outcome
            assert shape == layout.shapes[0]
            assert POISON not in x
            np.testing.assert_array_equal(np.frombuffer(answer, "<i8"), x + ADDED)

    def advance(self, ms):
        """Let time pass."""
        end_ns = self.now_ns + int(ms * MS)
        while (when_ns := self.wake_ns) is not None and when_ns <= end_ns:
            self.now_ns = max(self.now_ns, when_ns)
            self.wake_ns = None
            self.core.tick(self.now_ns)
            if (next_ns := self.core.next_ns()) is not None:
                self.wake_at(next_ns)
        self.now_ns = end_ns

    def busy(self):
        return [slot for slot in self.slots if slot.sent]

    def settle(self):
        """Everybody does their work until there is none left, and nothing stays behind."""
        if not self.core.live:
            self.join()
        while self.busy() or self.wake_ns is not None or getattr(self.backend, "fetches", ()):
            for slot in self.busy():
                slot.finish()
            while getattr(self.backend, "fetches", ()):
                self.backend.answer()
            self.advance(5000)
        self.check_nothing_left()

    def check_nothing_left(self):
        assert [len(found) for found in self.answers] == [1] * len(self.answers)
        assert not self.wrong
        it = self.core
        assert (it.waiting, it.in_flight) == (0, 0)
        assert not it._results._joined
        for slot in self.slots:
            assert not slot.batches
            assert len(slot.queue) == 0
            assert slot.left == (slot.index < 0)
        loads = it.queues._loads
        assert (loads.total, set(loads.outstanding), set(loads.rows)) in [
            (0, {0}, {0}),
            (0, set(), set()),
        ]
        stats = self.stats
        assert stats.requests == len(self.answers) == stats.successes + stats.errors

    def check_nobody_is_idle_in_vain(self):
        config = self.core.config
        if config.max_queue_delay_ms or config.preferred_batch_sizes:
            return
        for slot in self.core.live:
            if not slot.batches:
                assert len(self.core.queues.queue_of(slot)) == 0

    def outcomes(self):
        return [type(found[0]).__name__ for found in self.answers if found]


# What happens to a core, in any order

POLICY = st.sampled_from(sorted(POLICIES))
KNOBS = st.fixed_dictionaries(
    {
        "scheduling_policy": POLICY,
        "queue_order": st.sampled_from(["fifo", "priority", "edf"]),
        "cache_scope": st.sampled_from(["shared", "worker"]),
        "cache_size": st.sampled_from([0, 0, 3, 100]),
        "cache_write": st.sampled_from(["write_through", "write_back"]),
        "batching": st.sampled_from(["greedy", "adaptive"]),
        "split_batch_over": st.integers(1, 4),
        "max_batch_size": st.integers(1, 5),
        "max_queue_delay_ms": st.sampled_from([0, 0, 2]),
        "preferred_batch_sizes": st.sampled_from([(), (), (2,), (2, 4)]),
        "max_queue_size": st.sampled_from([3, 100]),
        "default_timeout_ms": st.sampled_from([0, 0, 8]),
        "slo_ms": st.sampled_from([5, 100]),
    }
)
WHICH = st.integers(0, 9)
SUBMIT = st.tuples(
    st.just("submit"),
    st.integers(0, 6),
    st.fixed_dictionaries(
        {
            "rows": st.sampled_from([1, 1, 1, 2, 3, 20]),
            "width": st.sampled_from([1, 1, 2]),
            "priority": st.integers(0, 3),
            "timeout_ms": st.sampled_from([0, 0, 1, 6]),
        }
    ),
    st.booleans(),
)
STEP = st.one_of(
    SUBMIT,
    SUBMIT,
    SUBMIT,
    st.tuples(st.just("finish"), WHICH, st.sampled_from([1, 8]), st.booleans()),
    st.tuples(st.just("finish"), WHICH, st.sampled_from([1, 8]), st.booleans()),
    st.tuples(st.just("advance"), st.sampled_from([0.5, 1, 3, 10, 1500, 15_000])),
    st.tuples(st.just("join")),
    st.tuples(st.just("revive"), WHICH),
    st.tuples(st.just("leave"), WHICH),
    st.tuples(st.just("die"), WHICH),
    st.tuples(st.just("configure"), KNOBS),
    st.tuples(st.just("fetched")),
    st.tuples(st.just("abandon"), st.integers(0, 59)),
    st.tuples(st.just("abandon"), st.integers(0, 59)),
)
# Alone, lists are short: it takes many steps to get somewhere, and few to tell how.
STEPS = st.lists(STEP, max_size=8) | st.lists(STEP, min_size=30, max_size=60)


def pick(slots, which):
    return slots[which % len(slots)] if slots else None


def submit(it, values, options, again):
    """Some clients ask again from within their answer, as a pipelined connection does."""
    then = (lambda: it.submit(values, **options)) if again else (lambda: None)
    it.submit(values, then, **options)


def finish(it, which, ms, odd):
    if slot := pick(it.busy(), which):
        slot.finish(ms * MS, odd=odd)


def revive(it, which):
    if slot := pick([slot for slot in it.slots if not slot.alive], which):
        it.join(slot)


def leave(it, which):
    if slot := pick(it.core.live, which):
        it.leave(slot)


def die(it, which):
    if slot := pick([slot for slot in it.slots if slot.alive], which):
        slot.die()


def fetched(it):
    if getattr(it.backend, "fetches", ()):
        it.backend.answer()


def abandon(it, which):
    if it.answers:
        it.abandon(which % len(it.answers))


ACTIONS = {
    "submit": submit,
    "finish": finish,
    "advance": World.advance,
    "join": World.join,
    "revive": revive,
    "leave": leave,
    "die": die,
    "configure": lambda it, knobs: it.configure(**knobs),
    "fetched": fetched,
    "abandon": abandon,
}


@settings(max_examples=120, deadline=None)
@given(KNOBS, STEPS, st.booleans(), st.integers(0, 1), st.integers(0, 3))
def test_every_request_is_answered_once_whatever_happens(knobs, steps, remote, axis, workers):
    it = World(SlowBackend() if remote else None, axis, **knobs)
    for _ in range(workers):
        it.join()
    for action, *given_ in steps:
        ACTIONS[action](it, *given_)
        assert max(map(len, it.answers), default=1) <= 1
        it.check_nobody_is_idle_in_vain()
    it.settle()


@settings(max_examples=80, deadline=None)
@given(KNOBS, STEPS, st.booleans())
def test_a_shutdown_answers_everybody_and_nothing_comes_after_it(knobs, steps, remote):
    it = World(SlowBackend() if remote else None, **knobs)
    it.join()
    it.join()
    for action, *given_ in steps:
        ACTIONS[action](it, *given_)
    it.shutdown()
    it.submit(5)
    while it.busy():
        it.busy()[0].finish()
    assert not it.core.live
    while remote and it.backend.fetches:
        it.backend.answer()
    assert [len(found) for found in it.answers] == [1] * len(it.answers)
    assert (it.core.waiting, it.core.in_flight) == (0, 0)


# One thing at a time


@pytest.mark.parametrize("remote", [False, True])
def test_hits_and_those_who_joined_are_counted_as_answered(remote):
    it = World(SlowBackend() if remote else None, cache_size=8)
    it.join()
    for _ in range(3):
        it.submit(1)
    it.settle()
    it.submit(1)
    stats = it.stats
    assert (stats.joins, stats.cache_hits, stats.cache_misses) == (2, 1, 1)
    assert (stats.successes, sum(stats.latency.counts)) == (4, 4)
    it.configure(cache_size=8, max_batch_size=2)
    for _ in range(2):
        it.submit(0, rows=14)  # poisoned
    it.settle()
    assert stats.statuses == {400: 2}


@pytest.mark.parametrize("before", ["shared_queue", "least_outstanding"])
def test_work_that_outlives_a_reconfiguration_is_counted_once(before):
    it = World(scheduling_policy=before)
    it.join()
    it.join()
    for number in range(2):
        it.submit(number)
    for policy in ("least_outstanding", "shared_queue", "least_outstanding"):
        it.configure(scheduling_policy=policy)
    assert it.core.queues._loads.outstanding == [1, 1]
    it.submit(2)
    it.settle()


def test_a_worker_that_joins_takes_batches_as_large_as_the_others_do():
    it = World(scheduling_policy="round_robin", batching="adaptive", max_batch_size=4, slo_ms=100)
    first = it.join()
    for _ in range(3):
        for number in range(9):
            it.submit(number)
        while it.busy():
            first.finish()
    second = it.join()
    for number in range(12):
        it.submit(number)
    second.finish()
    ((_, rows, _, _),) = second.sent
    assert rows == (1, 1, 1, 1)
    it.settle()


def test_a_look_up_that_ends_under_another_policy_is_queued_where_somebody_looks():
    it = World(SlowBackend(), scheduling_policy="round_robin", cache_scope="worker", cache_size=8)
    it.join()
    it.submit(1)
    it.configure(cache_scope="worker", cache_size=8)
    it.backend.answer()
    it.settle()


def test_a_worker_that_leaves_writes_back_what_only_its_cache_knows():
    knobs = {"scheduling_policy": "round_robin", "cache_scope": "worker", "cache_size": 8}
    it = World(SlowBackend(), cache_write="write_back", **knobs)
    it.join()
    leaving = it.join()
    for number in range(2):
        it.submit(number)
        it.backend.answer()
    while it.busy():
        it.busy()[0].finish()
    assert not it.backend.stored
    it.leave(leaving)
    assert len(it.backend.stored) == 1
    it.settle()


def test_an_expired_request_whose_client_asks_again_gets_no_worker_two_batches():
    it = World(queue_order="priority", max_batch_size=1)
    slot = it.join()
    it.submit(1)
    it.submit(2, lambda: it.submit(3), timeout_ms=5)
    it.submit(4)
    it.now_ns += 10 * MS
    slot.finish()
    assert len(slot.sent) == 1
    it.settle()


def test_a_batch_committed_ahead_of_a_death_is_not_blamed():
    it = World(max_batch_size=1)
    slot = it.join()
    it.submit(1)
    slot.finish()  # now it is known to be quick, and gets a second batch ahead
    guilty, innocent = it.submit(2), it.submit(3)
    for _ in range(2):
        assert len(slot.sent) == 2
        slot.die()
        it.join(slot)
        slot.service_ns = MS
        it.submit(4)  # a batch behind the one that runs
    it.settle()
    assert isinstance(guilty[0], WorkerFailed)
    assert not isinstance(innocent[0], RequestError)


def test_a_key_is_looked_for_where_it_is_kept_however_busy_that_worker_is():
    knobs = {"scheduling_policy": "consistent_hash", "cache_scope": "worker", "cache_size": 64}
    it = World(max_batch_size=1, **knobs)
    slots = [it.join(), it.join()]
    it.submit(0)
    (home,) = it.busy()
    home.finish()
    number = 0
    while home.outstanding < 4:
        number += 1
        it.submit(number)
    (other,) = set(slots) - {home}
    while other.sent:
        other.finish()
    assert it.submit(0)  # at once, though home has more than its share
    it.settle()


class Watched:
    """A supervisor of so many, as the autoscaler sees it."""

    def __init__(self, size):
        self.size = size


def test_a_refused_client_hears_how_long_the_queue_takes_also_after_a_quiet_time():
    """What was served lately is no measure of it: nothing was asked for, or all of it was cached."""
    it = World(max_queue_size=20, max_batch_size=1)
    it.join()
    it.join()
    scaling = Scaling(it.core, it.stats, Watched(2), it.now_ns)
    for number in range(4):
        it.submit(number)
        it.busy()[0].finish(1000 * MS)  # a worker does one a second
    for _ in range(3):
        it.now_ns += 1000 * MS
        scaling.look(it.now_ns)
    found = [it.submit(number) for number in range(23)][-1]
    assert found[0].retry_after_s == 10
    it.settle()


# What cannot be batched after all


def four_waiting(it):
    """A worker that is busy with one request, and four that wait for it."""
    slot = it.join()
    for number in range(5):
        it.submit(number)
    return slot


def sizes(slot):
    """Rows of the batches that a worker gets until there is nothing left."""
    found = []
    while slot.sent:
        found.append(sum(slot.sent[0][1]))
        slot.finish()
    return found


def test_a_model_whose_row_count_depends_on_the_data_gets_no_second_batch():
    it = World(max_batch_size=4)
    slot = four_waiting(it)
    slot.finish()
    slot.finish(odd=True)
    for number in range(5):
        it.submit(number)
    assert sizes(slot) == [1] * 9
    it.configure(max_batch_size=8, batching="adaptive")
    for number in range(5):
        it.submit(number)
    assert sizes(slot) == [1] * 5
    assert it.limits == [(1, "the shape of output 'x' depends on the data")]
    it.settle()


def test_a_batch_that_fits_is_not_believed_once_another_did_not():
    """Three boxes and one add up to the rows of two pictures."""
    it = World(max_batch_size=2)
    first, second = it.join(), it.join()
    for number in range(6):
        it.submit(number)
    for slot in (first, second):
        slot.finish(8 * MS)  # too slow to get a batch ahead
    assert [len(slot.sent[0][1]) for slot in (first, second)] == [2, 2]
    first.finish(odd=True)
    second.finish()
    assert it.outcomes() == ["tuple"] * 2
    it.settle()
    assert it.outcomes() == ["tuple"] * 6


def test_rows_that_come_out_wider_than_before_are_not_handed_out():
    it = World(max_batch_size=4)
    slot = four_waiting(it)
    slot.finish()
    slot.finish(more=WIDER)
    assert sizes(slot) == [1] * 4
    it.settle()


def test_a_single_request_with_other_rows_than_its_own_is_warning_enough():
    it = World(max_batch_size=4)
    slot = it.join()
    it.answers.append([])
    it.send(it.request(1, rows=2), it.answers[0].append)
    slot.finish(more=WIDER)
    for number in range(3):
        it.submit(number)
    slot.finish()  # as wide as it is, and yet not as before
    assert sizes(slot) == [2, 1, 1]  # the first was on its way already
    it.settle()


def test_a_batch_refused_though_all_its_requests_are_fine_is_not_tried_again():
    it = World(max_batch_size=4)
    slot = four_waiting(it)
    slot.finish()
    slot.finish(refuse=True)
    assert sizes(slot) == [1] * 4
    for number in range(5):
        it.submit(number)
    assert sizes(slot) == [1, 2, 2]
    assert it.limits == [(2, "it refused more: poison")]
    it.settle()


def test_a_guilty_request_does_not_make_the_batches_smaller():
    it = World(max_batch_size=4)
    slot = four_waiting(it)
    it.submit(0, rows=14)  # poisoned
    it.settle()
    for number in range(5):
        it.submit(number)
    assert sizes(slot) == [1, 4]
    it.settle()


def test_parts_that_do_not_fit_together_are_run_as_a_whole():
    it = World(max_batch_size=2, split_batch_over=2)
    first, second = it.join(), it.join()
    it.submit(1, rows=4)
    first.finish()
    second.finish(more=WIDER)
    assert it.outcomes() == []
    it.settle()
    assert it.outcomes() == ["tuple"]
    it.submit(2, rows=4)
    assert len(it.busy()) == 1
    it.settle()


def test_parts_with_rows_that_only_add_up_are_run_as_a_whole():
    """One box and three are the four that were asked for."""
    it = World(max_batch_size=2, split_batch_over=2)
    first, second = it.join(), it.join()
    it.submit(1, rows=4)
    first.finish(more=(-1, 0))
    second.finish(more=(1, 0))
    assert it.outcomes() == []
    it.settle()
    assert it.outcomes() == ["tuple"]


# Workers that seem to hang


def warmed(it, workers=2, rows=1):
    """Workers that have run a batch each, so that its usual time is known."""
    slots = [it.join() for _ in range(workers)]
    for number in range(2 * workers):
        it.submit(number, rows=rows)
    while it.busy():
        it.busy()[0].finish()
    return slots


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_work_behind_a_hung_worker_is_done_by_the_other_one(policy):
    it = World(scheduling_policy=policy, max_batch_size=1)
    slots = warmed(it)
    answers = [it.submit(number) for number in range(12)]
    hung = max(slots, key=lambda slot: len(slot.sent))
    (other,) = set(slots) - {hung}
    begun = hung.running[0]
    while other.sent:
        other.finish()
    it.advance(2000)
    while other.sent:
        other.finish()
    assert [len(found) for found in answers].count(0) == 1, "but for the one that had begun"
    assert not begun.done
    assert it.core.live == [other]
    later = it.submit(99)
    other.finish()
    assert later, "and nothing new goes there"
    it.settle()
    assert set(it.core.live) == set(slots)
    assert begun.deaths == 0
    assert it.outcomes().count("WorkerFailed") == 0


def test_a_suspected_worker_that_dies_is_blamed_for_what_had_begun_alone():
    it = World(max_batch_size=1, scheduling_policy="round_robin")
    hung, other = warmed(it)
    hung.service_ns = other.service_ns = MS
    for number in range(8):
        it.submit(number)
    (begun,), *committed = hung.batches.values()
    assert len(committed) == 1
    it.advance(1500)
    assert hung.batches
    hung.die()
    assert begun.deaths == 1
    assert committed[0][0].deaths == 0
    while other.sent:
        other.finish()
    assert hung.left
    it.settle()


def test_the_answer_to_what_was_taken_back_is_nobodys():
    it = World(max_batch_size=1, scheduling_policy="round_robin")
    hung, other = warmed(it)
    for number in range(6):
        it.submit(number)
    assert len(hung.sent) == 2
    it.advance(1500)
    batches = it.stats.executions
    while other.sent:
        other.finish()
    computed = it.stats.executions - batches
    hung.finish()
    assert it.stats.executions - batches == computed + 1
    hung.finish()  # what it was never told not to do
    assert it.stats.executions - batches == computed + 1
    it.settle()


def test_the_only_worker_is_not_suspected_until_there_is_another():
    it = World(max_batch_size=1, scheduling_policy="least_outstanding")
    (hung,) = warmed(it, workers=1)
    answers = [it.submit(number) for number in range(5)]
    it.advance(30_000)
    assert it.core.live == [hung]
    other = it.join()
    assert it.core.live == [other]
    while other.sent:
        other.finish()
    assert [len(found) for found in answers] == [0, 1, 1, 1, 1]
    it.settle()


def test_when_the_last_one_hangs_too_it_is_suspected_as_soon_as_another_answers():
    it = World(max_batch_size=1, scheduling_policy="round_robin")
    first, last = warmed(it)
    for number in range(4):
        it.submit(number)
    it.advance(1100)
    assert len(it.core.live) == 1
    (last,) = it.core.live
    (first,) = {first, last, *it.slots} - {last}
    first.finish()
    assert it.core.live == [first]
    it.settle()


def test_the_first_run_of_a_shape_has_more_time():
    it = World(max_batch_size=1)
    warmed(it)
    it.submit(1, width=2)
    it.advance(5000)
    assert len(it.core.live) == 2
    it.advance(6000)
    assert len(it.core.live) == 1
    it.settle()


def test_a_suspected_worker_may_be_sent_home_and_keeps_up_with_what_changes():
    knobs = {"scheduling_policy": "round_robin", "cache_scope": "worker", "cache_size": 8}
    it = World(max_batch_size=1, **knobs)
    slots = warmed(it)
    for number in range(50, 54):
        it.submit(number)
    it.advance(1500)
    (other,) = it.core.live
    (hung,) = set(slots) - {other}
    it.configure(workers=2, max_batch_size=1, **knobs)
    assert len(hung.cache) == 0
    it.leave(hung)
    assert not hung.left
    while hung.sent:
        hung.finish()
    assert hung.left
    it.settle()


def test_a_slot_knows_since_when_its_oldest_batch_runs():
    it = World(max_batch_size=1)
    (slot,) = warmed(it, workers=1)
    assert slot.running_since_ns is None
    it.submit(1)
    began_ns = it.now_ns
    it.advance(1)
    it.submit(2)  # committed ahead
    assert slot.running_since_ns == began_ns
    it.advance(1)
    slot.finish()
    assert slot.running_since_ns == it.now_ns
    slot.die()
    assert slot.running_since_ns is None
    it.settle()


def test_a_request_queued_again_after_a_death_still_expires():
    """Its deadline lies after another one's, at which it was running."""
    it = World(max_batch_size=1)
    slot = it.join()
    late = it.submit(1, timeout_ms=8)
    it.submit(2, timeout_ms=5)
    it.advance(6)
    slot.die()
    it.advance(3)
    assert isinstance(late[0], DeadlineExceeded)
    it.settle()


def test_whoever_asked_first_is_answered_first():
    it = World(cache_size=8)
    it.join()
    order = []
    for name in "abc":
        it.submit(1, lambda name=name: order.append(name))
    it.settle()
    assert order == ["a", "b", "c"]


# Clients that go


def test_what_nobody_waits_for_is_not_computed_and_makes_room():
    it = World(max_batch_size=1, max_queue_size=3)
    slot = it.join()
    for number in range(4):
        it.submit(number)
    assert isinstance(it.submit(9)[0], Overloaded)
    for number in (1, 3):
        it.abandon(number)
    assert it.core.waiting == 1
    late = it.submit(5)
    values = []
    while slot.sent:
        values.append(int(slot.sent[0][3][0]) // 100)
        slot.finish()
    assert values == [0, 2, 5]
    assert not isinstance(late[0], RequestError)
    assert it.stats.statuses == {503: 1, 499: 2}
    it.settle()


def test_what_has_begun_is_finished_and_kept():
    it = World(max_batch_size=1, cache_size=8)
    slot = it.join()
    it.submit(1)
    it.abandon(0)
    slot.finish()
    assert it.submit(1), "from the cache"
    it.settle()


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 1, 3)])
def test_a_request_in_flight_lives_as_long_as_anybody_waits_for_it(order):
    it = World(max_batch_size=1, cache_size=8)
    slot = it.join()
    it.submit(0)
    for _ in range(3):
        it.submit(7)
    for number in order[:2]:
        it.abandon(number)
    assert it.core.waiting == 1
    it.abandon(order[2])
    assert it.core.waiting == 0
    slot.finish()
    assert not slot.sent
    assert it.submit(7) == [], "nothing came of it: it is asked anew"
    it.settle()


def test_a_client_that_goes_while_its_request_is_looked_up_is_not_queued():
    it = World(SlowBackend(), cache_size=8)
    slot = it.join()
    it.submit(1)
    it.abandon(0)
    it.backend.answer()
    assert not slot.sent
    it.settle()


def test_the_parts_of_a_request_whose_client_has_gone_are_not_begun():
    it = World(max_batch_size=2, split_batch_over=2)
    slots = [it.join(), it.join()]
    it.submit(1)
    it.submit(2, rows=4)
    assert sum(len(slot.sent) for slot in slots) == 2
    it.abandon(1)
    assert it.core.waiting == 0
    it.settle()


def test_a_gone_clients_request_is_not_run_again_after_a_death():
    it = World(max_batch_size=1)
    slot = it.join()
    it.submit(1)
    it.abandon(0)
    slot.die()
    assert it.core.waiting == 0
    assert it.core.in_flight == 0
    it.settle()
