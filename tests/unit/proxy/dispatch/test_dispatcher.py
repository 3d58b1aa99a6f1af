"""The dispatcher before workers, a timer and a cache backend that do what the tests tell them."""

import asyncio
from collections import deque
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.cache.backend import NoBackend
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.dispatch import dispatcher as dispatcher_module
from dlbench.proxy.dispatch import job as job_module
from dlbench.proxy.dispatch import results as results_module
from dlbench.proxy.dispatch import runner as runner_module
from dlbench.proxy.dispatch.dispatcher import Dispatcher
from dlbench.proxy.dispatch.job import WorkerSlot
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
from dlbench.proxy.serving import scaling as scaling_module
from dlbench.proxy.serving.scaling import Scaling
from dlbench.proxy.telemetry.stats import ModelStats
from dlbench.proxy.tensors import Signature, Tensor, TensorSpec
from dlbench.proxy.workers.frames import HEAD, Result, decode_batch

MODULES = (dispatcher_module, job_module, results_module, runner_module, scaling_module)
MS = 1_000_000
WIDER = (0, 1)
POISON = 13  # the model refuses this value
ADDED = 1000  # to every value that it takes


class Worker:
    """A link: what is sent lies in `batches` until `finish` answers the oldest."""

    def __init__(self):
        self.alive = True
        self.broken = False
        self.service_ns = 0.0
        self.running_since_ns = None
        self.welcome = True  # whether the dispatcher may send anything
        self.batches = deque()

    def send(self, pieces):
        assert self.welcome, "a batch for a worker that has left"
        frame = b"".join(bytes(piece) for piece in pieces)
        _, number, size, _ = HEAD.unpack_from(frame)
        rows, (shape,) = decode_batch(frame[HEAD.size : HEAD.size + size])
        if not self.batches:
            self.running_since_ns = runner_module.now_ns()
        self.batches.append((number, rows, shape, np.frombuffer(frame[HEAD.size + size :], "<i8")))

    def check(self, signature, result, rows):
        """It is believed."""

    def took(self, compute_ns):
        self.service_ns = compute_ns

    def finish(self, compute_ns=MS, *, odd=False, more=(0, 0), refuse=False):
        """Answer the oldest batch; an `odd` one comes back with a row too many.

        One alone may have `more` rows and columns, too.
        """
        number, rows, shape, data = self.batches.popleft()
        self.running_since_ns = runner_module.now_ns() if self.batches else None
        if POISON in data or refuse:
            self.on_result(self, number, "poison")
            return
        data = data + ADDED
        if odd and len(rows) > 1:
            shape = tuple(size + 1 for size in shape)
            data = np.zeros(shape, "<i8")
        if any(more):
            shape = tuple(size + further for size, further in zip(shape, more, strict=True))
            data = np.zeros(shape, "<i8")
        tensors = (Tensor(shape, data.tobytes()),)
        self.on_result(self, number, Result(1, compute_ns, 1, tensors))

    def die(self):
        self.alive = self.welcome = False
        self.batches.clear()
        self.running_since_ns = None
        self.on_lost(self)


class Timer:
    """Rings when `World.advance` reaches its time."""

    def __init__(self, callback):
        self.ring = callback
        self.when_ns = None
        self.closed = False

    def at(self, when_ns):
        assert not self.closed
        assert when_ns > 0
        self.when_ns = when_ns if self.when_ns is None else min(self.when_ns, when_ns)

    def close(self):
        self.closed = True
        self.when_ns = None


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
    """A dispatcher, its workers, and what became of every request."""

    def __init__(self, config, backend, axis=0):
        dims = ("n", "width") if axis == 0 else ("width", "n")
        spec = TensorSpec("x", "INT64", dims, axis)
        self.axis = axis
        self.signature = Signature((spec,), (spec,), batchable=True)
        self.backend = backend
        self.now_ns = 10**12
        self.slots = []  # all that ever joined
        self.answers = []  # one list per request
        self.wrong = []  # what was wrong with them
        self.jobs = {}  # by the number of the answer, what stands for it
        self.gone = set()  # numbers of those whose clients have gone
        self.dispatcher = Dispatcher(
            self.signature, b"model", config, backend, ModelStats(lambda: 0.0)
        )

    def make_timer(self, loop, callback):
        self.timer = Timer(callback)
        return self.timer

    def join(self, slot=None):
        if slot is None:
            slot = WorkerSlot(len(self.slots), 1.0, Worker())
            self.slots.append(slot)
        else:  # a replacement
            slot.link = Worker()
        self.dispatcher.join(slot)
        return slot

    def leave(self, slot):
        slot.link.welcome = False
        self.dispatcher.leave(slot)

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

        self.jobs[number] = self.dispatcher.submit(request, reply)
        return answers

    def abandon(self, number):
        """The client of a request goes, unless it has its answer."""
        if not self.answers[number] and number not in self.gone:
            self.gone.add(number)
            self.dispatcher.abandon(self.jobs[number])

    def check(self, request, outcome, since_ns):
        """Whether that is an answer to this request."""
        (data,), layout = request.data, request.layout
        x = np.frombuffer(data, "<i8")
        if isinstance(outcome, BadRequest):
            assert POISON in x
        elif isinstance(outcome, DeadlineExceeded):
            timeout_ns = layout.timeout_ns or self.dispatcher.config.default_timeout_ms * MS
            assert timeout_ns == 0 or self.now_ns >= since_ns + timeout_ns
        elif not isinstance(outcome, RequestError):
            ((shape, answer),) = outcome
            assert shape == layout.shapes[0]
            assert POISON not in x
            np.testing.assert_array_equal(np.frombuffer(answer, "<i8"), x + ADDED)

    def advance(self, ms):
        """Let time pass."""
        end_ns = self.now_ns + int(ms * MS)
        while (when_ns := self.timer.when_ns) is not None and when_ns <= end_ns:
            self.now_ns = max(self.now_ns, when_ns)
            self.timer.when_ns = None
            self.timer.ring()
        self.now_ns = end_ns

    def busy(self):
        return [slot for slot in self.slots if slot.link.batches]

    def settle(self):
        """Everybody does their work until there is none left, and nothing stays behind."""
        if not self.dispatcher.live:
            self.join()
        while self.busy() or self.timer.when_ns is not None or getattr(self.backend, "fetches", ()):
            for slot in self.busy():
                slot.link.finish()
            while getattr(self.backend, "fetches", ()):
                self.backend.answer()
            self.advance(5000)
        self.check_nothing_left()

    def check_nothing_left(self):
        assert [len(found) for found in self.answers] == [1] * len(self.answers)
        assert not self.wrong
        it = self.dispatcher
        assert (it.waiting, it.in_flight) == (0, 0)
        assert not it._results._joined
        for slot in self.slots:
            assert not slot.batches
            assert len(slot.queue) == 0
            assert slot.idle.is_set() == (slot.index < 0)
        loads = it._queues._loads
        assert (loads.total, set(loads.outstanding), set(loads.rows)) in [
            (0, {0}, {0}),
            (0, set(), set()),
        ]
        stats = it.stats
        assert stats.requests == len(self.answers) == stats.successes + stats.errors

    def check_nobody_is_idle_in_vain(self):
        config = self.dispatcher.config
        if config.max_queue_delay_ms or config.preferred_batch_sizes:
            return
        for slot in self.dispatcher.live:
            if not slot.batches:
                assert len(self.dispatcher._queues.queue_of(slot)) == 0

    def outcomes(self):
        return [type(found[0]).__name__ for found in self.answers if found]


@contextmanager
def world(backend=None, axis=0, **knobs):
    """A dispatcher in the time of its world; a timer needs a loop, so there is one."""
    made = World.__new__(World)
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        for module in MODULES:
            patch.setattr(module, "now_ns", lambda: made.now_ns)
        patch.setattr(runner_module, "make_timer", lambda *given: made.make_timer(*given))

        async def start():
            made.__init__(ServingConfig(**{"workers": 1, **knobs}), backend or NoBackend(), axis)

        runner.run(start())
        yield made


# What happens to a dispatcher, in any order

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
        slot.link.finish(ms * MS, odd=odd)


def revive(it, which):
    if slot := pick([slot for slot in it.slots if not slot.link.alive], which):
        it.join(slot)


def leave(it, which):
    if slot := pick(it.dispatcher.live, which):
        it.leave(slot)


def die(it, which):
    if slot := pick([slot for slot in it.slots if slot.link.alive], which):
        slot.link.die()


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
    "configure": lambda it, knobs: it.dispatcher.configure(ServingConfig(workers=1, **knobs)),
    "fetched": fetched,
    "abandon": abandon,
}


@settings(max_examples=120, deadline=None)
@given(KNOBS, STEPS, st.booleans(), st.integers(0, 1), st.integers(0, 3))
def test_every_request_is_answered_once_whatever_happens(knobs, steps, remote, axis, workers):
    with world(SlowBackend() if remote else None, axis, **knobs) as it:
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
    with world(SlowBackend() if remote else None, **knobs) as it:
        it.join()
        it.join()
        for action, *given_ in steps:
            ACTIONS[action](it, *given_)
        it.dispatcher.shutdown()
        it.submit(5)
        while it.busy():
            it.busy()[0].link.finish()
        while it.dispatcher.live:
            it.dispatcher.live[0].link.die()
        while remote and it.backend.fetches:
            it.backend.answer()
        assert [len(found) for found in it.answers] == [1] * len(it.answers)
        assert (it.dispatcher.waiting, it.dispatcher.in_flight) == (0, 0)


# One thing at a time


@pytest.mark.parametrize("remote", [False, True])
def test_hits_and_those_who_joined_are_counted_as_answered(remote):
    with world(SlowBackend() if remote else None, cache_size=8) as it:
        it.join()
        for _ in range(3):
            it.submit(1)
        it.settle()
        it.submit(1)
        stats = it.dispatcher.stats
        assert (stats.joins, stats.cache_hits, stats.cache_misses) == (2, 1, 1)
        assert (stats.successes, sum(stats.latency.counts)) == (4, 4)
        it.dispatcher.configure(ServingConfig(workers=1, cache_size=8, max_batch_size=2))
        for _ in range(2):
            it.submit(0, rows=14)  # poisoned
        it.settle()
        assert stats.statuses == {400: 2}


@pytest.mark.parametrize("before", ["shared_queue", "least_outstanding"])
def test_work_that_outlives_a_reconfiguration_is_counted_once(before):
    with world(scheduling_policy=before) as it:
        it.join()
        it.join()
        for number in range(2):
            it.submit(number)
        for policy in ("least_outstanding", "shared_queue", "least_outstanding"):
            it.dispatcher.configure(ServingConfig(workers=1, scheduling_policy=policy))
        assert it.dispatcher._queues._loads.outstanding == [1, 1]
        it.submit(2)
        it.settle()


def test_a_worker_that_joins_takes_batches_as_large_as_the_others_do():
    with world(
        scheduling_policy="round_robin", batching="adaptive", max_batch_size=4, slo_ms=100
    ) as it:
        first = it.join()
        for _ in range(3):
            for number in range(9):
                it.submit(number)
            while it.busy():
                first.link.finish()
        second = it.join()
        for number in range(12):
            it.submit(number)
        second.link.finish()
        ((_, rows, _, _),) = second.link.batches
        assert rows == (1, 1, 1, 1)
        it.settle()


def test_a_look_up_that_ends_under_another_policy_is_queued_where_somebody_looks():
    with world(
        SlowBackend(), scheduling_policy="round_robin", cache_scope="worker", cache_size=8
    ) as it:
        it.join()
        it.submit(1)
        it.dispatcher.configure(ServingConfig(workers=1, cache_scope="worker", cache_size=8))
        it.backend.answer()
        it.settle()


def test_a_worker_that_leaves_writes_back_what_only_its_cache_knows():
    knobs = {"scheduling_policy": "round_robin", "cache_scope": "worker", "cache_size": 8}
    with world(SlowBackend(), cache_write="write_back", **knobs) as it:
        it.join()
        leaving = it.join()
        for number in range(2):
            it.submit(number)
            it.backend.answer()
        while it.busy():
            it.busy()[0].link.finish()
        assert not it.backend.stored
        it.leave(leaving)
        assert len(it.backend.stored) == 1
        it.settle()


def test_an_expired_request_whose_client_asks_again_gets_no_worker_two_batches():
    with world(queue_order="priority", max_batch_size=1) as it:
        slot = it.join()
        it.submit(1)
        it.submit(2, lambda: it.submit(3), timeout_ms=5)
        it.submit(4)
        it.now_ns += 10 * MS
        slot.link.finish()
        assert len(slot.link.batches) == 1
        it.settle()


def test_a_batch_committed_ahead_of_a_death_is_not_blamed():
    with world(max_batch_size=1) as it:
        slot = it.join()
        it.submit(1)
        slot.link.finish()  # now it is known to be quick, and gets a second batch ahead
        guilty, innocent = it.submit(2), it.submit(3)
        for _ in range(2):
            assert len(slot.link.batches) == 2
            slot.link.die()
            it.join(slot)
            slot.link.service_ns = MS
            it.submit(4)  # a batch behind the one that runs
        it.settle()
        assert isinstance(guilty[0], WorkerFailed)
        assert not isinstance(innocent[0], RequestError)


def test_a_key_is_looked_for_where_it_is_kept_however_busy_that_worker_is():
    knobs = {"scheduling_policy": "consistent_hash", "cache_scope": "worker", "cache_size": 64}
    with world(max_batch_size=1, **knobs) as it:
        slots = [it.join(), it.join()]
        it.submit(0)
        (home,) = it.busy()
        home.link.finish()
        number = 0
        while home.outstanding < 4:
            number += 1
            it.submit(number)
        (other,) = set(slots) - {home}
        while other.link.batches:
            other.link.finish()
        assert it.submit(0)  # at once, though home has more than its share
        it.settle()


class Watched:
    """A supervisor of so many, as the autoscaler sees it."""

    def __init__(self, size):
        self.size = size


def test_a_refused_client_hears_how_long_the_queue_takes_also_after_a_quiet_time():
    """What was served lately is no measure of it: nothing was asked for, or all of it was cached."""
    with world(max_queue_size=20, max_batch_size=1) as it:
        it.join()
        it.join()
        scaling = Scaling(it.dispatcher.config, it.dispatcher, Watched(2))
        for number in range(4):
            it.submit(number)
            it.busy()[0].link.finish(1000 * MS)  # a worker does one a second
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
    while slot.link.batches:
        found.append(sum(slot.link.batches[0][1]))
        slot.link.finish()
    return found


def test_a_model_whose_row_count_depends_on_the_data_gets_no_second_batch():
    with world(max_batch_size=4) as it:
        slot, said = four_waiting(it), []
        it.dispatcher.on_less = lambda *less: said.append(less)
        slot.link.finish()
        slot.link.finish(odd=True)
        for number in range(5):
            it.submit(number)
        assert sizes(slot) == [1] * 9
        it.dispatcher.configure(ServingConfig(workers=1, max_batch_size=8, batching="adaptive"))
        for number in range(5):
            it.submit(number)
        assert sizes(slot) == [1] * 5
        assert said == [(1, "the shape of output 'x' depends on the data")]
        it.settle()


def test_a_batch_that_fits_is_not_believed_once_another_did_not():
    """Three boxes and one add up to the rows of two pictures."""
    with world(max_batch_size=2) as it:
        first, second = it.join(), it.join()
        for number in range(6):
            it.submit(number)
        for slot in (first, second):
            slot.link.finish(8 * MS)  # too slow to get a batch ahead
        assert [len(slot.link.batches[0][1]) for slot in (first, second)] == [2, 2]
        first.link.finish(odd=True)
        second.link.finish()
        assert it.outcomes() == ["tuple"] * 2
        it.settle()
        assert it.outcomes() == ["tuple"] * 6


def test_rows_that_come_out_wider_than_before_are_not_handed_out():
    with world(max_batch_size=4) as it:
        slot = four_waiting(it)
        slot.link.finish()
        slot.link.finish(more=WIDER)
        assert sizes(slot) == [1] * 4
        it.settle()


def test_a_single_request_with_other_rows_than_its_own_is_warning_enough():
    with world(max_batch_size=4) as it:
        slot = it.join()
        it.answers.append([])
        it.dispatcher.submit(it.request(1, rows=2), it.answers[0].append)
        slot.link.finish(more=WIDER)
        for number in range(3):
            it.submit(number)
        slot.link.finish()  # as wide as it is, and yet not as before
        assert sizes(slot) == [2, 1, 1]  # the first was on its way already
        it.settle()


def test_a_batch_refused_though_all_its_requests_are_fine_is_not_tried_again():
    with world(max_batch_size=4) as it:
        slot, said = four_waiting(it), []
        it.dispatcher.on_less = lambda *less: said.append(less)
        slot.link.finish()
        slot.link.finish(refuse=True)
        assert sizes(slot) == [1] * 4
        for number in range(5):
            it.submit(number)
        assert sizes(slot) == [1, 2, 2]
        assert said == [(2, "it refused more: poison")]
        it.settle()


def test_a_guilty_request_does_not_make_the_batches_smaller():
    with world(max_batch_size=4) as it:
        slot = four_waiting(it)
        it.submit(0, rows=14)  # poisoned
        it.settle()
        for number in range(5):
            it.submit(number)
        assert sizes(slot) == [1, 4]
        it.settle()


def test_parts_that_do_not_fit_together_are_run_as_a_whole():
    with world(max_batch_size=2, split_batch_over=2) as it:
        first, second = it.join(), it.join()
        it.submit(1, rows=4)
        first.link.finish()
        second.link.finish(more=WIDER)
        assert it.outcomes() == []
        it.settle()
        assert it.outcomes() == ["tuple"]
        it.submit(2, rows=4)
        assert len(it.busy()) == 1
        it.settle()


def test_parts_with_rows_that_only_add_up_are_run_as_a_whole():
    """One box and three are the four that were asked for."""
    with world(max_batch_size=2, split_batch_over=2) as it:
        first, second = it.join(), it.join()
        it.submit(1, rows=4)
        first.link.finish(more=(-1, 0))
        second.link.finish(more=(1, 0))
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
        it.busy()[0].link.finish()
    return slots


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_work_behind_a_hung_worker_is_done_by_the_other_one(policy):
    with world(scheduling_policy=policy, max_batch_size=1) as it:
        slots = warmed(it)
        answers = [it.submit(number) for number in range(12)]
        hung = max(slots, key=lambda slot: len(slot.link.batches))
        (other,) = set(slots) - {hung}
        begun = hung.running[0]
        while other.link.batches:
            other.link.finish()
        it.advance(2000)
        while other.link.batches:
            other.link.finish()
        assert [len(found) for found in answers].count(0) == 1, "but for the one that had begun"
        assert not begun.done
        assert it.dispatcher.live == [other]
        later = it.submit(99)
        other.link.finish()
        assert later, "and nothing new goes there"
        it.settle()
        assert set(it.dispatcher.live) == set(slots)
        assert begun.deaths == 0
        assert it.outcomes().count("WorkerFailed") == 0


def test_a_suspected_worker_that_dies_is_blamed_for_what_had_begun_alone():
    with world(max_batch_size=1, scheduling_policy="round_robin") as it:
        hung, other = warmed(it)
        hung.link.service_ns = other.link.service_ns = MS
        for number in range(8):
            it.submit(number)
        (begun,), *committed = hung.batches.values()
        assert len(committed) == 1
        it.advance(1500)
        assert hung.batches
        hung.link.die()
        assert begun.deaths == 1
        assert committed[0][0].deaths == 0
        while other.link.batches:
            other.link.finish()
        assert hung.idle.is_set()
        it.settle()


def test_the_answer_to_what_was_taken_back_is_nobodys():
    with world(max_batch_size=1, scheduling_policy="round_robin") as it:
        hung, other = warmed(it)
        for number in range(6):
            it.submit(number)
        assert len(hung.link.batches) == 2
        it.advance(1500)
        batches = it.dispatcher.stats.executions
        while other.link.batches:
            other.link.finish()
        computed = it.dispatcher.stats.executions - batches
        hung.link.finish()
        assert it.dispatcher.stats.executions - batches == computed + 1
        hung.link.finish()  # what it was never told not to do
        assert it.dispatcher.stats.executions - batches == computed + 1
        it.settle()


def test_the_only_worker_is_not_suspected_until_there_is_another():
    with world(max_batch_size=1, scheduling_policy="least_outstanding") as it:
        (hung,) = warmed(it, workers=1)
        answers = [it.submit(number) for number in range(5)]
        it.advance(30_000)
        assert it.dispatcher.live == [hung]
        other = it.join()
        assert it.dispatcher.live == [other]
        while other.link.batches:
            other.link.finish()
        assert [len(found) for found in answers] == [0, 1, 1, 1, 1]
        it.settle()


def test_when_the_last_one_hangs_too_it_is_suspected_as_soon_as_another_answers():
    with world(max_batch_size=1, scheduling_policy="round_robin") as it:
        first, last = warmed(it)
        for number in range(4):
            it.submit(number)
        it.advance(1100)
        assert len(it.dispatcher.live) == 1
        (last,) = it.dispatcher.live
        (first,) = {first, last, *it.slots} - {last}
        first.link.finish()
        assert it.dispatcher.live == [first]
        it.settle()


def test_the_first_run_of_a_shape_has_more_time():
    with world(max_batch_size=1) as it:
        warmed(it)
        it.submit(1, width=2)
        it.advance(5000)
        assert len(it.dispatcher.live) == 2
        it.advance(6000)
        assert len(it.dispatcher.live) == 1
        it.settle()


def test_a_suspected_worker_may_be_sent_home_and_keeps_up_with_what_changes():
    knobs = {"scheduling_policy": "round_robin", "cache_scope": "worker", "cache_size": 8}
    with world(max_batch_size=1, **knobs) as it:
        slots = warmed(it)
        for number in range(50, 54):
            it.submit(number)
        it.advance(1500)
        (other,) = it.dispatcher.live
        (hung,) = set(slots) - {other}
        it.dispatcher.configure(ServingConfig(workers=2, max_batch_size=1, **knobs))
        assert len(hung.cache) == 0
        it.leave(hung)
        assert not hung.idle.is_set()
        while hung.link.batches:
            hung.link.finish()
        assert hung.idle.is_set()
        it.settle()


# Clients that go


def test_what_nobody_waits_for_is_not_computed_and_makes_room():
    with world(max_batch_size=1, max_queue_size=3) as it:
        slot = it.join()
        for number in range(4):
            it.submit(number)
        assert isinstance(it.submit(9)[0], Overloaded)
        for number in (1, 3):
            it.abandon(number)
        assert it.dispatcher.waiting == 1
        late = it.submit(5)
        values = []
        while slot.link.batches:
            values.append(int(slot.link.batches[0][3][0]) // 100)
            slot.link.finish()
        assert values == [0, 2, 5]
        assert not isinstance(late[0], RequestError)
        assert it.dispatcher.stats.statuses == {503: 1, 499: 2}
        it.settle()


def test_what_has_begun_is_finished_and_kept():
    with world(max_batch_size=1, cache_size=8) as it:
        slot = it.join()
        it.submit(1)
        it.abandon(0)
        slot.link.finish()
        assert it.submit(1), "from the cache"
        it.settle()


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 1, 3)])
def test_a_request_in_flight_lives_as_long_as_anybody_waits_for_it(order):
    with world(max_batch_size=1, cache_size=8) as it:
        slot = it.join()
        it.submit(0)
        for _ in range(3):
            it.submit(7)
        for number in order[:2]:
            it.abandon(number)
        assert it.dispatcher.waiting == 1
        it.abandon(order[2])
        assert it.dispatcher.waiting == 0
        slot.link.finish()
        assert not slot.link.batches
        assert it.submit(7) == [], "nothing came of it: it is asked anew"
        it.settle()


def test_a_client_that_goes_while_its_request_is_looked_up_is_not_queued():
    with world(SlowBackend(), cache_size=8) as it:
        slot = it.join()
        it.submit(1)
        it.abandon(0)
        it.backend.answer()
        assert not slot.link.batches
        it.settle()


def test_the_parts_of_a_request_whose_client_has_gone_are_not_begun():
    with world(max_batch_size=2, split_batch_over=2) as it:
        slots = [it.join(), it.join()]
        it.submit(1)
        it.submit(2, rows=4)
        assert sum(len(slot.link.batches) for slot in slots) == 2
        it.abandon(1)
        assert it.dispatcher.waiting == 0
        it.settle()


def test_a_gone_clients_request_is_not_run_again_after_a_death():
    with world(max_batch_size=1) as it:
        slot = it.join()
        it.submit(1)
        it.abandon(0)
        slot.link.die()
        assert it.dispatcher.waiting == 0
        assert it.dispatcher.in_flight == 0
        it.settle()
