"""What every scheduling policy keeps to, and what each one promises."""

import random
from collections import Counter
from copy import deepcopy
from heapq import heappop, heappush
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.dispatch.loads import Loads
from dlbench.proxy.dispatch.policy import BALANCE_FACTOR, POLICIES, SHARED, Member

CHOOSING = sorted(set(POLICIES) - {"shared_queue"})
NAMES = [f"worker-{number}" for number in range(64)]
# Per change of membership: who is alive, with which weights, and how many requests come then.
WEIGHTS = st.floats(0.1, 10)
LIVES = st.lists(
    st.tuples(st.dictionaries(st.sampled_from(NAMES[:9]), WEIGHTS, min_size=1), st.integers(1, 40)),
    min_size=1,
    max_size=6,
)


class Service:
    """A policy with its loads, kept the way the proxy keeps them."""

    def __init__(self, name, members):
        self.policy, self.loads = POLICIES[name](), Loads()
        self.join(members)

    def join(self, members):
        self.members = [m if isinstance(m, Member) else Member(m) for m in members]
        self.loads.resize([member.name for member in self.members])
        self.policy.join(self.members)

    def take(self, key=b"", rows=1):
        """Choose for a request that stays; the chosen index."""
        index = self.policy.choose(self.loads, key if self.policy.needs_key else b"")
        if index != SHARED:
            self.loads.began(index, 1, rows)
        return index

    def shares(self, keys):
        """How many requests each name gets, one at a time."""
        counts = Counter()
        for key in keys:
            index = self.take(key)
            counts[self.members[index].name] += 1
            self.loads.ended(index, 1, 1)
        return counts


def keys(count):
    return [b"key-%d" % number for number in range(count)]


def sequence(name, members, count):
    service = Service(name, members)
    return [service.take(key) for key in keys(count)]


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=60, deadline=None)
@given(LIVES, st.randoms(use_true_random=False))
def test_every_request_goes_to_one_live_worker_whoever_comes_and_goes(name, lives, chance):
    service = Service(name, [Member(*pair) for pair in lives[0][0].items()])
    for alive, requests in lives:
        service.join([Member(*pair) for pair in alive.items()])
        for number in range(requests):
            index = service.take(chance.randbytes(8), rows=1 + number % 3)
            assert index == SHARED if name == "shared_queue" else 0 <= index < len(alive)
            if index != SHARED and number % 2:
                service.loads.took(index, 1, chance.randrange(1, 10**9))


@pytest.mark.parametrize("name", POLICIES)
def test_it_looks_and_touches_nothing(name):
    service = Service(name, NAMES[:5])
    for key in keys(50):
        service.take(key)
    before = [deepcopy(getattr(service.loads, slot)) for slot in Loads.__slots__]
    members = list(service.members)
    for key in keys(50):
        service.policy.choose(service.loads, key)
    service.policy.join(service.members)
    assert [getattr(service.loads, slot) for slot in Loads.__slots__] == before
    assert service.members == members


@pytest.mark.parametrize("name", CHOOSING)
def test_who_left_gets_nothing_and_who_came_back_gets_some(name):
    service = Service(name, NAMES[:4])
    assert sum(service.take(key) == 2 for key in keys(400)) > 0
    service.join([NAMES[0], NAMES[1], NAMES[3]])
    assert NAMES[2] not in service.shares(keys(400))
    service.join(NAMES[:4])
    assert sum(service.take(key) == 2 for key in keys(400)) > 0


@pytest.mark.parametrize("name", CHOOSING)
def test_a_single_worker_gets_everything(name):
    assert sequence(name, NAMES[:1], 30) == [0] * 30


@pytest.mark.parametrize("name", POLICIES)
def test_two_of_a_kind_choose_alike(name):
    assert sequence(name, NAMES[:5], 300) == sequence(name, NAMES[:5], 300)


@pytest.mark.parametrize("name", POLICIES)
def test_only_a_policy_that_hashes_asks_for_a_key(name):
    assert POLICIES[name]().needs_key == (name == "consistent_hash")


def test_round_robin_goes_around_in_order_and_on_when_one_left():
    service = Service("round_robin", NAMES[:3])
    assert [service.take() for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    service.join(NAMES[:2])
    assert [service.take() for _ in range(3)] == [1, 0, 1]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=9))
def test_weights_are_kept_exactly_over_whole_cycles_and_nearly_all_the_time(weights):
    members = [Member(*pair) for pair in zip(NAMES, weights, strict=False)]
    cycle = sum(weights)
    counts = [0] * len(weights)
    for slot, index in enumerate(sequence("weighted_round_robin", members, 3 * cycle), start=1):
        counts[index] += 1
        lags = [slot * w / cycle - n for w, n in zip(weights, counts, strict=True)]
        assert max(map(abs, lags)) <= 1 + 1e-9
        assert slot % cycle or max(map(abs, lags)) < 1e-9


@pytest.mark.parametrize("count", [2, 3, 7])
def test_equal_weights_go_around(count):
    found = sequence("weighted_round_robin", [Member(n, 0.3) for n in NAMES[:count]], 30 * count)
    assert found == list(range(count)) * 30


def test_a_heavy_worker_leaves_room_for_each_light_one():
    found = sequence("weighted_round_robin", [Member("a", 5), Member("b"), Member("c")], 14)
    assert found == [0, 1, 0, 0, 2, 0, 0] * 2
    heavy = [Member("heavy", 32), *map(Member, NAMES[:32])]
    found = sequence("weighted_round_robin", heavy, 640)
    assert all((one == 0) != (other == 0) for one, other in pairwise(found))


def test_weights_without_a_common_measure_are_kept():
    members = [Member("a", 2**0.5), Member("b", 3.14159), Member("c", 0.1)]
    counts = Counter(sequence("weighted_round_robin", members, 10_000))
    total = sum(member.weight for member in members)
    for index, member in enumerate(members):
        assert abs(counts[index] - 10_000 * member.weight / total) <= 1


@pytest.mark.parametrize("name", ["random", "power_of_two_choices"])
def test_chance_is_fair(name):
    shares = Service(name, NAMES[:8]).shares(keys(8000))
    chi_square = sum((shares[n] - 1000) ** 2 / 1000 for n in NAMES[:8])
    # 7 degrees of freedom: more than 24.3 once in a thousand seeds. The choice of two prefers the
    # first of equals, but both orders are equally likely.
    assert chi_square < 24.3


def test_two_choices_balance_far_better_than_one():
    """Balls in bins: the fullest is sqrt(m ln n / n) over the mean with one choice, log log n with two."""
    over = {}
    for name in ("random", "power_of_two_choices"):
        counts = Counter(sequence(name, NAMES, 64 * 100))
        over[name] = max(counts.values()) - 100
    assert over["random"] > 15
    assert over["power_of_two_choices"] <= 4


def test_two_choices_are_two_workers():
    service = Service("power_of_two_choices", NAMES[:2])
    assert abs(sum(1 if service.take() else -1 for _ in range(1000))) <= 1


def test_the_least_outstanding_is_the_first_of_the_shortest():
    service = Service("least_outstanding", NAMES[:3])
    assert [service.take() for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    service.loads.ended(1, 1, 1)
    service.loads.ended(2, 1, 1)
    assert [service.take() for _ in range(3)] == [1, 2, 1]


def closed_loop(service, row_ns, requests, users):
    """So many users, each with one request: how many each worker answered, and the mean latency."""
    now, answered, latencies, ends = 0, Counter(), [], []
    free = [0] * len(row_ns)

    def send():
        index = service.take()
        free[index] = max(free[index], now) + row_ns[index]
        heappush(ends, (free[index], index, now))

    for _ in range(users):
        send()
    while len(latencies) < requests:
        now, index, since = heappop(ends)
        service.loads.ended(index, 1, 1)
        service.loads.took(index, 1, row_ns[index])
        answered[index] += 1
        latencies.append(now - since)
        send()
    return answered, sum(latencies) / len(latencies)


@pytest.mark.parametrize("users", [8, 32, 100])
def test_a_worker_four_times_faster_gets_four_times_the_requests(users):
    service = Service("shortest_response_time", NAMES[:2])
    answered, _ = closed_loop(service, [4_000_000, 1_000_000], 5000, users)
    assert answered[1] / answered[0] == pytest.approx(4, rel=0.1)


def open_loop(service, row_ns, requests, mean_gap_ns):
    """Poisson arrivals: the mean latency."""
    chance, now, total, ends = random.Random(3), 0, 0, []
    free = [0] * len(row_ns)
    for _ in range(requests):
        now += chance.expovariate(1 / mean_gap_ns)
        while ends and ends[0][0] <= now:
            _, index = heappop(ends)
            service.loads.ended(index, 1, 1)
            service.loads.took(index, 1, row_ns[index])
        index = service.take()
        free[index] = max(free[index], now) + row_ns[index]
        heappush(ends, (free[index], index))
        total += free[index] - now
    return total / requests


def test_knowing_the_speed_answers_earlier_than_counting_requests():
    speeds = [8_000_000, 8_000_000, 1_000_000]
    mean = {
        name: open_loop(Service(name, NAMES[:3]), speeds, 5000, mean_gap_ns=1_250_000)
        for name in ("shortest_response_time", "least_outstanding", "round_robin")
    }
    assert mean["shortest_response_time"] < 0.8 * mean["least_outstanding"]
    assert mean["least_outstanding"] < 0.5 * mean["round_robin"]


def test_a_worker_that_was_slow_once_is_not_shunned():
    service = Service("shortest_response_time", NAMES[:2])
    service.loads.took(0, 1, 1_000_000)
    service.loads.took(1, 1, 900_000_000)  # it had just started
    answered, _ = closed_loop(service, [1_000_000, 1_000_000], 5000, users=1)
    assert answered[1] > 1


def test_the_same_key_finds_the_same_worker():
    service = Service("consistent_hash", NAMES[:8])
    first = {key: service.shares([key]) for key in keys(500)}
    assert all(service.shares([key] * 3) == Counter(3 * list(first[key])) for key in keys(500))


@pytest.mark.parametrize("count", [2, 8, 64])
def test_few_keys_move_with_a_worker_and_come_back_with_it(count):
    def owners(members):
        service.join(members)
        return [next(iter(service.shares([key]))) for key in keys(3000)]

    service = Service("consistent_hash", NAMES[:count])
    before, without, after = (owners(m) for m in (NAMES[:count], NAMES[1:count], NAMES[:count]))
    moved = [old for old, new in zip(before, without, strict=True) if old != new]
    assert set(moved) == {NAMES[0]}
    assert len(moved) / 3000 < 1.35 / count
    assert after == before


def test_keys_are_shared_by_weight():
    members = [Member("a", 20), Member("b", 10), Member("c", 10)]
    shares = Service("consistent_hash", members).shares(keys(4000))
    assert shares["a"] == pytest.approx(2000, rel=0.15)
    assert shares["b"] == pytest.approx(1000, rel=0.2)


@pytest.mark.parametrize("weights", [[1] * 64, [1, 2, 5, 8], [0.25, 10]])
def test_a_hot_key_sinks_nobody(weights):
    members = [Member(*pair) for pair in zip(NAMES, weights, strict=False)]
    service = Service("consistent_hash", members)
    chance = random.Random(5)
    running = []
    for number in range(3000):
        key = b"hot" if number % 10 else b"key-%d" % number
        index = service.take(key)
        running.append(index)
        share = weights[index] / sum(weights)
        assert service.loads.outstanding[index] < BALANCE_FACTOR * len(running) * share + 1
        if len(running) > 640:
            index = running.pop(chance.randrange(640))
            service.loads.ended(index, 1, 1)
