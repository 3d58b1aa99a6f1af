"""What every first level keeps to, the one that keeps nothing included; and who leaves first."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.cache.cache import CACHES, ENTRY_BYTES, SMALL_SHARE, Bounds
from dlbench.proxy.tensors import Tensor

KEEPING = sorted(set(CACHES) - {"none"})
ROOMY = 2**30
KEYS = st.integers(0, 9)
STEPS = st.lists(st.tuples(st.sampled_from(["get", "put"]), KEYS), max_size=80)
SIZED_STEPS = st.lists(
    st.tuples(st.sampled_from(["get", "put"]), KEYS, st.integers(0, 3000)), max_size=60
)

every_cache = pytest.mark.parametrize("policy", sorted(CACHES))
every_keeping_cache = pytest.mark.parametrize("policy", KEEPING)


def name(number):
    return bytes([number]) * 16


def answer(number, size=1):
    return (Tensor((size,), bytes([number]) * size), Tensor((), bytes([number])))


def listen(cache):
    """What the cache evicts, as a list that grows."""
    evicted = []
    cache.on_evicted = lambda key, outputs: evicted.append((key, outputs))
    return evicted


def full(policy, numbers, entries, **marks):
    """A cache into which these were put in turn."""
    cache = CACHES[policy](Bounds(entries, ROOMY))
    for number in numbers:
        cache.put(name(number), answer(number), 0, **marks)
    return cache


@every_cache
@settings(max_examples=60, deadline=None)
@given(SIZED_STEPS, st.integers(1, 6), st.integers(1, 12_000))
def test_both_bounds_hold_and_only_what_was_put_comes_back(policy, steps, entries, size_bytes):
    cache, put = CACHES[policy](Bounds(entries, size_bytes)), {}
    for step, number, size in steps:
        if step == "put":
            put[number] = answer(number, size)
            cache.put(name(number), put[number], 0)
        else:
            assert cache.get(name(number), 0) in (None, put.get(number))
        assert len(cache) <= entries
        assert cache.size_bytes <= size_bytes
    held = [n for n in range(10) if cache.get(name(n), 0) is not None]
    assert len(held) == len(cache)
    assert cache.size_bytes == sum(ENTRY_BYTES + len(put[n][0].data) + 1 for n in held)


@every_keeping_cache
def test_what_was_put_last_is_there_in_place_of_what_was(policy):
    cache = full(policy, [1, 2, 3], entries=2)
    assert cache.get(name(3), 0) == answer(3)
    cache.put(name(3), answer(4, size=7), 0)
    assert cache.get(name(3), 0) == answer(4, size=7)


@every_keeping_cache
def test_what_does_not_fit_is_not_kept_and_pushes_nothing_out(policy):
    cache = CACHES[policy](Bounds(9, ENTRY_BYTES + 100))
    cache.put(name(1), answer(1), 0)
    evicted = listen(cache)
    cache.put(name(2), answer(2, size=101), 0, dirty=True)
    assert cache.get(name(2), 0) is None
    assert cache.get(name(1), 0) == answer(1)
    assert evicted == [(name(2), answer(2, size=101))]


@every_cache
def test_it_is_empty_after_clear(policy):
    cache = full(policy, [1, 2, 3], entries=9)
    cache.clear(0)
    assert (len(cache), cache.size_bytes) == (0, 0)
    assert all(cache.get(name(n), 0) is None for n in range(4))


@every_keeping_cache
def test_a_result_is_good_until_its_time_is_over(policy):
    cache = CACHES[policy](Bounds(9, ROOMY, ttl_ns=10))
    cache.put(name(1), answer(1), 5)
    assert cache.get(name(1), 14) == answer(1)
    assert cache.get(name(1), 15) is None
    assert (len(cache), cache.size_bytes) == (0, 0)
    cache.put(name(1), answer(2), 20)
    assert cache.get(name(1), 29) == answer(2)


@every_keeping_cache
def test_being_asked_for_prolongs_nothing(policy):
    cache = CACHES[policy](Bounds(9, ROOMY, ttl_ns=10))
    cache.put(name(1), answer(1), 0)
    assert [cache.get(name(1), now) is not None for now in (3, 6, 9, 10)] == [1, 1, 1, 0]


@every_cache
@settings(max_examples=60, deadline=None)
@given(steps=STEPS, entries=st.integers(1, 6))
def test_every_dirty_result_is_evicted_once_and_no_clean_one(policy, steps, entries):
    """Even numbers are dirty. What was put again before it left counts once."""
    cache = CACHES[policy](Bounds(entries, ROOMY))
    evicted, fresh = listen(cache), 0
    for step, number in steps:
        if cache.get(name(number), 0) is None and step == "put":
            cache.put(name(number), answer(number), 0, dirty=number % 2 == 0)
            fresh += number % 2 == 0
    cache.clear(0)
    assert len(evicted) == fresh
    assert all(key[0] % 2 == 0 and outputs == answer(key[0]) for key, outputs in evicted)


@every_keeping_cache
def test_what_is_too_old_is_forgotten_in_silence(policy):
    cache = CACHES[policy](Bounds(1, ROOMY, ttl_ns=10))
    evicted = listen(cache)
    cache.put(name(1), answer(1), 0, dirty=True)
    cache.put(name(2), answer(2), 10, dirty=True)
    assert evicted == []
    cache.clear(19)
    assert evicted == [(name(2), answer(2))]


@every_keeping_cache
def test_an_entry_does_not_keep_the_batch_that_it_was_cut_from(policy):
    cache = CACHES[policy](Bounds(2, ROOMY))
    cache.put(name(1), (Tensor((1,), memoryview(bytearray(1000))[:1]),), 0)
    assert isinstance(cache.get(name(1), 0)[0].data, bytes)


class Oracle:
    """Who is kept, by a list that is searched: the plainest way to say what each policy means.

    `entries` holds numbers, the next to leave first.
    """

    def __init__(self, size):
        self.size, self.entries = size, []

    def get(self, number):
        found = number in self.entries
        if found:
            self.used(number)
        return found

    def put(self, number):
        if number in self.entries:
            self.entries.remove(number)
        elif len(self.entries) == self.size:
            self.entries.pop(0)
        self.entries.append(number)

    def used(self, number):
        """A hit."""


class FifoOracle(Oracle):
    """Nothing but the time of arrival counts."""


class LruOracle(Oracle):
    """A hit makes an entry the last to leave."""

    def used(self, number):
        self.entries.remove(number)
        self.entries.append(number)


class LfuOracle(Oracle):
    """The fewest hits leave first; of equal ones that which came to that number earliest."""

    def __init__(self, size):
        super().__init__(size)
        self.hits = {}

    def used(self, number):
        self.hits[number] += 1
        self.entries.remove(number)
        self.entries.append(number)
        self.entries.sort(key=self.hits.__getitem__)

    def put(self, number):
        super().put(number)
        self.hits[number] = 0
        self.entries.sort(key=self.hits.__getitem__)


class TwoLevelOracle(Oracle):
    """What was asked for again stays apart; the others leave as they came, or came back."""

    def __init__(self, size):
        super().__init__(size)
        self.recent = max(1, int(SMALL_SHARE * size))
        self.small, self.large = [], []

    @property
    def entries(self):
        return self.large + self.small

    @entries.setter
    def entries(self, value):
        """Both lists are set by themselves."""

    def used(self, number):
        (self.small if number in self.small else self.large).remove(number)
        self.small.append(number)
        if len(self.small) > self.recent:
            self.large.append(self.small.pop(0))

    def put(self, number):
        if number in self.entries:
            (self.small if number in self.small else self.large).remove(number)
        elif len(self.entries) == self.size:
            (self.large or self.small).pop(0)
        self.large.append(number)


def test_two_levels_keep_what_proved_its_worth_while_a_scan_passes():
    """An LRU of the same size has forgotten it by then."""
    kept = {}
    for policy in ("lru", "two_level"):
        cache = full(policy, [0], entries=20)
        cache.get(name(0), 0)
        for number in range(1, 100):
            cache.put(name(number), answer(number), 0)
        kept[policy] = cache.get(name(0), 0) is not None
    assert kept == {"lru": False, "two_level": True}


ORACLES = {"fifo": FifoOracle, "lru": LruOracle, "lfu": LfuOracle, "two_level": TwoLevelOracle}


def test_every_policy_has_its_oracle():
    assert sorted(ORACLES) == KEEPING


@pytest.mark.parametrize("size", [1, 2, 5, 25])
@every_keeping_cache
@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["get", "put"]), st.integers(0, 30)), max_size=150),
)
def test_what_leaves_is_what_the_policy_says(policy, size, steps):
    cache, oracle = CACHES[policy](Bounds(size, ROOMY)), ORACLES[policy](size)
    for step, number in steps:
        if step == "get":
            assert (cache.get(name(number), 0) is not None) == oracle.get(number)
        else:
            cache.put(name(number), answer(number), 0, dirty=True)
            oracle.put(number)
    evicted = listen(cache)
    cache.clear(0)
    assert [key for key, _ in evicted] == [name(number) for number in oracle.entries]
