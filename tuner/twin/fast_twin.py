"""The twin, compiled: what the reference twin does, a thousand times as fast, for what is searched.

Requests are numbers, queues are linked lists in arrays, and time is whole nanoseconds. The comments
of `reference_twin` and of the proxy itself say why things are done; here they are only done alike.
All compiled functions are in this file, since numba keeps what it compiled by the file's date.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numba
import numpy as np

from dlbench.proxy.cache.cache import SMALL_SHARE
from dlbench.proxy.dispatch.core import PREFETCH_BELOW_NS
from dlbench.proxy.dispatch.job import SMOOTHING
from dlbench.proxy.knob import KNOBS
from dlbench.tuner.twin.scenario import NO_INPUTS, NS, SimulatedRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.twin.scenario import Inputs, Scenario

F = TypeVar("F", bound="Callable[..., Any]")

SHARED, ROUND_ROBIN, RANDOM, LEAST_OUTSTANDING, POWER_OF_TWO = range(5)
POLICIES = {
    "shared_queue": SHARED,
    "round_robin": ROUND_ROBIN,
    "random": RANDOM,
    "least_outstanding": LEAST_OUTSTANDING,
    "power_of_two_choices": POWER_OF_TWO,
}
LRU, LFU, FIFO, TWO_LEVEL = range(4)
CACHES = {"lru": LRU, "two_level": TWO_LEVEL, "lfu": LFU, "fifo": FIFO}
# Knobs that are simulated only at the value that leaves them out.
PLAIN = ("preferred_batch_sizes", "batching", "cache_ttl_s", "default_timeout_ms")
NEVER = np.iinfo(np.int64).max
NONE = -1
# Places in State.sums.
WAITING, ANSWERED, TURN, DRAWN, BATCHES, ROWS, BUSY_NS, HITS, JOINED, BUSY = range(10)
FREE, WAKES, ACTING = range(10, 13)


class Knobs(NamedTuple):
    """The configuration and the scenario's constants, as numbers."""

    workers: int
    max_batch: int
    delay_ns: int
    policy: int
    commits: bool
    max_queue: int
    users: int
    turn_ns: int
    way_ns: int


class Cached(NamedTuple):
    """A cache by input number: a circular list in the order of leaving, `distinct` being its end."""

    kind: int
    entries: int
    after: NDArray[np.int32]
    before: NDArray[np.int32]
    inside: NDArray[np.bool_]
    uses: NDArray[np.int32]
    last_of: NDArray[np.int32]  # with so many uses, the last in the order
    size: NDArray[np.int64]  # all entries, and those of two_level's small LRU


class Drawn(NamedTuple):
    """The scenario's arrays."""

    arrivals: NDArray[np.int64]
    keys: NDArray[np.int32]
    service_ns: NDArray[np.float64]
    factors: NDArray[np.float64]
    choices: NDArray[np.float64]
    wake_ns: NDArray[np.int64]
    in_ns: NDArray[np.int64]
    out_ns: NDArray[np.int64]
    hit_ns: NDArray[np.int64]


class State(NamedTuple):
    """Requests link to the next in `after`; a queue is a first, a last and a length."""

    after: NDArray[np.int32]
    since: NDArray[np.int64]
    done: NDArray[np.int64]
    answered: NDArray[np.int64]  # when, in that order
    follower: NDArray[np.int32]  # the last that joined, linked to the first
    leader: NDArray[np.int32]  # by input: who is computing it
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    length: NDArray[np.int64]
    batch: NDArray[np.int32]  # (worker, running or committed): its first request
    rows: NDArray[np.int64]
    took: NDArray[np.int64]
    ends: NDArray[np.int64]
    running: NDArray[np.int64]
    free: NDArray[np.int64]
    smoothed: NDArray[np.float64]
    outstanding: NDArray[np.int64]
    sums: NDArray[np.int64]


def knows(config: ServingConfig) -> bool:
    """Whether this twin simulates all that the configuration asks for."""
    plain = all(getattr(config, name) == KNOBS[name].default for name in PLAIN)
    per_worker = config.cache_scope == "worker" and config.cache_size
    return plain and config.scheduling_policy in POLICIES and not per_worker


def simulate(config: ServingConfig, scenario: Scenario, entries: int) -> SimulatedRun:
    """Run a scenario; `entries` is what the cache holds."""
    policy = POLICIES[config.scheduling_policy]
    delay_ns = int(config.max_queue_delay_ms * 1e-3 * NS)
    knobs = Knobs(
        config.workers, config.max_batch_size, delay_ns, policy, config.queue_order == "fifo",
        config.max_queue_size, scenario.users, scenario.turn_ns, scenario.way_ns,
    )  # fmt: skip
    count = len(scenario.arrivals_ns)
    inputs = scenario.inputs if entries else NO_INPUTS
    drawn = Drawn(
        scenario.arrivals_ns, inputs.keys, scenario.service_ns, scenario.factors,
        choices(2 * count if policy in (RANDOM, POWER_OF_TWO) else 1), *scenario.costs,
    )  # fmt: skip
    state = new_state(count, config.workers, inputs.distinct)
    cached = copied(warm_cache(CACHES.get(config.cache_policy, LRU), entries, inputs))
    run(knobs, drawn, state, cached)
    sums = state.sums
    kept = (BATCHES, ROWS, BUSY_NS, WAKES, HITS, JOINED)
    return SimulatedRun(state.done, *(int(sums[i]) for i in kept))


@lru_cache(4)
def choices(count: int) -> NDArray[np.float64]:
    """What `random.Random(0).random()` gives: seeded with a list NumPy's generator is Python's."""
    return np.random.RandomState([0]).random_sample(count)


def new_state(count: int, workers: int, distinct: int) -> State:
    """Nobody there, all workers idle."""
    return State(
        none(count), zeros(count), none(count).astype(np.int64), zeros(count), none(count), none(distinct),
        none(workers), none(workers), zeros(workers),
        none(workers, 2), zeros(workers, 2), zeros(workers, 2), np.full((workers, 2), NEVER),
        zeros(workers), zeros(workers), np.zeros(workers), zeros(workers), zeros(13),
    )  # fmt: skip


def new_cache(kind: int, entries: int, inputs: Inputs) -> Cached:
    """Empty."""
    distinct = inputs.distinct
    links = none(distinct + 1)
    links[distinct] = distinct
    most_uses = len(inputs.warm) + len(inputs.keys) + 3 if kind == LFU else 3
    return Cached(
        kind, entries, links, links.copy(), np.zeros(distinct, np.bool_),
        np.zeros(distinct + 1, np.int32), none(most_uses), zeros(2),
    )  # fmt: skip


@lru_cache(16)
def warm_cache(kind: int, entries: int, inputs: Inputs) -> Cached:
    """A cache that has seen the warm-up's inputs, to be copied."""
    cached = new_cache(kind, entries, inputs)
    warm(cached, inputs.warm)
    return cached


def copied(cached: Cached) -> Cached:
    """One that may be changed."""
    arrays: list[Any] = [array.copy() for array in cached[2:]]
    return Cached(cached.kind, cached.entries, *arrays)


def none(*shape: int) -> NDArray[np.int32]:
    """So many links to nowhere."""
    return np.full(shape, NONE, np.int32)


def zeros(*shape: int) -> NDArray[np.int64]:
    """So many numbers."""
    return np.zeros(shape, np.int64)


# Without reference counts, which would take 95 % of the time: nothing is allocated in here.
_compile: Any = partial(numba.njit, cache=True, nogil=True, _nrt=False)


def compiled(function: F) -> F:
    """Compiled at the first call, and kept on disk."""
    made: F = _compile(inline="never")(function)
    return made


def inlined(function: F) -> F:
    """The same, where a call would cost more than the work; not for what is called in many places."""
    made: F = _compile(inline="always")(function)
    return made


@compiled
def run(knobs: Knobs, drawn: Drawn, state: State, cached: Cached) -> None:
    """All requests, one event after the other: at equal times results, then delays, then arrivals."""
    count, number = len(drawn.arrivals), 0
    while True:
        free = state.sums[FREE]
        worker = soonest(state)
        result = max(state.ends[worker, 0], free)
        delay = max(next_delay(knobs, state), free) if knobs.delay_ns else NEVER
        arrival = next_arrival(knobs, drawn, state, number) if number < count else NEVER
        now = min(result, delay, arrival)
        if now == NEVER:
            return
        begin(drawn, state, now)
        if result <= delay and result <= arrival:
            on_result(knobs, drawn, state, cached, worker)
        elif delay <= arrival:
            pump_all(knobs, drawn, state, state.sums[FREE])
        else:
            arrive(knobs, drawn, state, cached, number)
            number += 1


@inlined
def next_arrival(knobs: Knobs, drawn: Drawn, state: State, number: int) -> int:
    """When the front can take a request: it came, its user had the last answer, and there is time."""
    earliest = drawn.arrivals[number]
    if number >= knobs.users:
        if number - knobs.users >= state.sums[ANSWERED]:
            return int(NEVER)
        earliest = state.answered[number - knobs.users] + knobs.turn_ns
    return int(max(earliest, state.sums[FREE]))


@inlined
def begin(drawn: Drawn, state: State, now: int) -> None:
    """Something happens: a front that is asleep has to be woken."""
    sums = state.sums
    sums[ACTING] = sums[BUSY]
    if now > sums[FREE]:
        sums[FREE] = now
        sums[WAKES] += 1
        spend(state, drawn.wake_ns)


@inlined
def spend(state: State, cost_ns: NDArray[np.int64]) -> int:
    """Take the front's time for something; returns when it is done."""
    sums = state.sums
    sums[FREE] += cost_ns[sums[ACTING]]
    return int(sums[FREE])


@inlined
def replied(state: State, now: int) -> None:
    """A user may ask again."""
    state.answered[state.sums[ANSWERED]] = now
    state.sums[ANSWERED] += 1


@inlined
def soonest(state: State) -> int:
    """The worker whose result comes next."""
    worker = 0
    for other in range(1, len(state.running)):
        if state.ends[other, 0] < state.ends[worker, 0]:
            worker = other
    return worker


@inlined
def queue_of(knobs: Knobs, worker: int) -> int:
    """The queue that a worker takes from."""
    return 0 if knobs.policy == SHARED else worker


@inlined
def next_delay(knobs: Knobs, state: State) -> int:
    """When a worker that has nothing to do may take a batch that is not full."""
    when = NEVER
    for worker in range(knobs.workers):
        queue = queue_of(knobs, worker)
        if not state.running[worker] and state.length[queue]:
            when = min(when, state.since[state.first[queue]] + knobs.delay_ns)
    return when


@inlined
def arrive(knobs: Knobs, drawn: Drawn, state: State, cached: Cached, number: int) -> None:
    """The front takes a request."""
    key = drawn.keys[number] if len(drawn.keys) else NONE
    if key != NONE:
        if look_up(cached, key):
            state.sums[HITS] += 1
            state.done[number] = spend(state, drawn.hit_ns)
            replied(state, state.done[number])
            return
        leader = state.leader[key]
        if leader != NONE:
            state.sums[JOINED] += 1
            last = state.follower[leader]
            state.after[number] = number if last == NONE else state.after[last]
            if last != NONE:
                state.after[last] = number
            state.follower[leader] = number
            spend(state, drawn.hit_ns)
            return
    state.since[number] = state.sums[FREE]
    now = spend(state, drawn.in_ns)
    if state.sums[WAITING] >= knobs.max_queue:
        replied(state, now)
        return
    if key != NONE:
        state.leader[key] = number
    enqueue(knobs, drawn, state, number, now)


@inlined
def enqueue(knobs: Knobs, drawn: Drawn, state: State, number: int, now: int) -> None:
    """Let it wait for whom the policy names."""
    queue = choose(knobs, drawn, state)
    if state.length[queue]:
        state.after[state.last[queue]] = number
    else:
        state.first[queue] = number
    state.last[queue] = number
    state.length[queue] += 1
    state.sums[WAITING] += 1
    state.outstanding[queue] += 1
    if knobs.policy == SHARED:
        pump_shared(knobs, drawn, state, now)
    else:
        pump(knobs, drawn, state, queue, now)


@inlined
def choose(knobs: Knobs, drawn: Drawn, state: State) -> int:
    """The queue for the next request."""
    sums = state.sums
    if knobs.policy == SHARED:
        return 0
    if knobs.policy == ROUND_ROBIN:
        sums[TURN] += 1
        return int((sums[TURN] - 1) % knobs.workers)
    if knobs.policy == LEAST_OUTSTANDING:
        return least(state.outstanding)
    one = int(drawn.choices[sums[DRAWN]] * knobs.workers)
    sums[DRAWN] += 1
    if knobs.policy == RANDOM:
        return one
    other = (one + 1 + int(drawn.choices[sums[DRAWN]] * (knobs.workers - 1))) % knobs.workers
    sums[DRAWN] += 1
    return one if state.outstanding[one] <= state.outstanding[other] else other


@inlined
def least(numbers: NDArray[np.int64]) -> int:
    """The place of the smallest, of equals the first."""
    place = 0
    for other in range(1, len(numbers)):
        if numbers[other] < numbers[place]:
            place = other
    return place


@inlined
def pump_shared(knobs: Knobs, drawn: Drawn, state: State, now: int) -> None:
    """Offer the shared queue to an idle worker, else to those that may take a second batch."""
    for worker in range(knobs.workers):
        if not state.running[worker]:
            pump(knobs, drawn, state, worker, now)
            return
    if state.length[0] >= knobs.max_batch:
        pump_all(knobs, drawn, state, now)


@inlined
def pump_all(knobs: Knobs, drawn: Drawn, state: State, now: int) -> None:
    """Offer every worker what is due."""
    for worker in range(knobs.workers):
        pump(knobs, drawn, state, worker, now)


@compiled
def pump(knobs: Knobs, drawn: Drawn, state: State, worker: int, now: int) -> None:
    """Give a worker what is due, up to one batch running and one committed."""
    queue = queue_of(knobs, worker)
    while state.length[queue]:
        full = state.length[queue] >= knobs.max_batch
        late = state.since[state.first[queue]] + knobs.delay_ns <= now
        if state.running[worker]:
            short = 0 < state.smoothed[worker] < PREFETCH_BELOW_NS
            if not (state.running[worker] == 1 and knobs.commits and short and full):
                return
        elif not (full or late):
            return
        send(knobs, drawn, state, worker, queue, now)


@inlined
def send(knobs: Knobs, drawn: Drawn, state: State, worker: int, queue: int, now: int) -> None:
    """Cut a batch, and know when its result will be here."""
    rows = min(state.length[queue], knobs.max_batch)
    slot = state.running[worker]
    state.batch[worker, slot] = state.first[queue]
    last = state.first[queue]
    for _ in range(rows - 1):
        last = state.after[last]
    state.first[queue] = state.after[last]
    state.length[queue] -= rows
    state.sums[WAITING] -= rows
    state.running[worker] += 1
    state.sums[BUSY] += slot == 0
    took = int(
        drawn.service_ns[state.sums[BUSY] - 1, rows - 1] * drawn.factors[state.sums[BATCHES]]
    )
    state.free[worker] = max(now + knobs.way_ns, state.free[worker]) + took
    state.rows[worker, slot] = rows
    state.took[worker, slot] = took
    state.ends[worker, slot] = state.free[worker] + knobs.way_ns
    state.sums[BATCHES] += 1
    state.sums[ROWS] += rows
    state.sums[BUSY_NS] += took


@inlined
def on_result(knobs: Knobs, drawn: Drawn, state: State, cached: Cached, worker: int) -> None:
    """A batch is done: the worker goes on, then its requests are answered."""
    now = state.sums[FREE]
    first, rows, took = state.batch[worker, 0], state.rows[worker, 0], state.took[worker, 0]
    state.batch[worker, 0], state.rows[worker, 0] = state.batch[worker, 1], state.rows[worker, 1]
    state.took[worker, 0], state.ends[worker, 0] = state.took[worker, 1], state.ends[worker, 1]
    state.ends[worker, 1] = NEVER
    state.running[worker] -= 1
    state.sums[BUSY] -= state.running[worker] == 0
    before = state.smoothed[worker] or took
    state.smoothed[worker] = before + SMOOTHING * (took - before)
    state.outstanding[queue_of(knobs, worker)] -= rows
    pump(knobs, drawn, state, worker, now)
    number = first
    for _ in range(rows):
        answer(drawn, state, cached, number)
        number = state.after[number]


@inlined
def answer(drawn: Drawn, state: State, cached: Cached, number: int) -> None:
    """Answer a request and all that joined it, and keep the result."""
    state.done[number] = spend(state, drawn.out_ns)
    replied(state, state.done[number])
    if not len(drawn.keys):
        return
    key = drawn.keys[number]
    keep(cached, key)
    state.leader[key] = NONE
    last = follower = state.follower[number]
    while last != NONE:
        follower = state.after[follower]
        state.done[follower] = spend(state, drawn.out_ns)
        replied(state, state.done[follower])
        last = NONE if follower == last else last


@compiled
def warm(cached: Cached, keys: NDArray[np.int32]) -> None:
    """Look up one input after the other, and keep those that are not there."""
    for key in keys:
        if not look_up(cached, key):
            keep(cached, key)


@compiled
def look_up(cached: Cached, key: int) -> bool:
    """Whether an input is cached; reading it is using it."""
    if not cached.inside[key]:
        return False
    if cached.kind == LRU:
        unlink(cached, key)
        append(cached, key)
    elif cached.kind == LFU:
        use_again(cached, key)
    elif cached.kind == TWO_LEVEL:
        promote(cached, key)
    return True


@compiled
def keep(cached: Cached, key: int) -> None:
    """Insert an input that is not there."""
    if not cached.entries:
        return
    if cached.size[0] == cached.entries:
        evict(cached)
    cached.size[0] += 1
    cached.inside[key] = True
    if cached.kind in (LFU, TWO_LEVEL):
        insert(cached, key, last_with(cached, 1))
        cached.uses[key] = 1
        cached.last_of[1] = key
    else:
        append(cached, key)


@inlined
def use_again(cached: Cached, key: int) -> None:
    """One use more: behind all that have as many by now."""
    uses = cached.uses[key]
    behind = last_with(cached, uses + 1)
    if behind == len(cached.inside):
        behind = last_with(cached, uses)
    if behind == key:
        behind = cached.before[key]
    forget_last(cached, key)
    unlink(cached, key)
    insert(cached, key, behind)
    cached.uses[key] = uses + 1
    cached.last_of[uses + 1] = key


@inlined
def promote(cached: Cached, key: int) -> None:
    """Into the small LRU, whose entries count as used twice and stand behind all of the FIFO.

    Its oldest falls back where there are too many: that stands next to the FIFO's youngest already.
    """
    if cached.uses[key] == 1:
        forget_last(cached, key)
        cached.uses[key] = 2
        cached.size[1] += 1
    unlink(cached, key)
    append(cached, key)
    if cached.size[1] > max(1, int(SMALL_SHARE * cached.entries)):
        oldest = cached.after[last_with(cached, 1)]
        cached.uses[oldest] = 1
        cached.last_of[1] = oldest
        cached.size[1] -= 1


@inlined
def last_with(cached: Cached, uses: int) -> int:
    """The last with so many uses, the list's end if there is none."""
    last = cached.last_of[uses]
    return len(cached.inside) if last == NONE else last


@inlined
def forget_last(cached: Cached, key: int) -> None:
    """It is not the last with its number of uses any more."""
    uses = cached.uses[key]
    if cached.last_of[uses] == key:
        before = cached.before[key]
        cached.last_of[uses] = before if cached.uses[before] == uses else NONE


@inlined
def evict(cached: Cached) -> None:
    """Forget the first."""
    key = cached.after[len(cached.inside)]
    if cached.kind in (LFU, TWO_LEVEL):
        forget_last(cached, key)
    if cached.kind == TWO_LEVEL and cached.uses[key] == 2:
        cached.size[1] -= 1
    unlink(cached, key)
    cached.inside[key] = False
    cached.size[0] -= 1


@inlined
def append(cached: Cached, key: int) -> None:
    """Make it the last."""
    insert(cached, key, cached.before[len(cached.inside)])


@inlined
def insert(cached: Cached, key: int, behind: int) -> None:
    """Put it behind another, or behind the list's end: before the first."""
    following = cached.after[behind]
    cached.after[behind], cached.before[following] = key, key
    cached.before[key], cached.after[key] = behind, following


@inlined
def unlink(cached: Cached, key: int) -> None:
    """Take it out of the list."""
    before, following = cached.before[key], cached.after[key]
    cached.after[before], cached.before[following] = following, before
