"""What every scheduling policy keeps to, and what each one promises."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.policy import POLICIES, SHARED

CHOOSING = sorted(set(POLICIES) - {"shared_queue"})
LOADS = st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=9), min_size=1, max_size=30)


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=60, deadline=None)
@given(LOADS)
def test_the_choice_is_a_live_worker_however_many_there_are(name, loads):
    policy = POLICIES[name]()
    for outstanding in loads:
        before = list(outstanding)
        choice = policy.choose(outstanding)
        assert choice == SHARED if name == "shared_queue" else 0 <= choice < len(outstanding)
        assert outstanding == before


@pytest.mark.parametrize("name", CHOOSING)
def test_a_single_worker_gets_everything(name):
    policy = POLICIES[name]()
    assert [policy.choose([n]) for n in range(5)] == [0] * 5


@pytest.mark.parametrize("name", POLICIES)
def test_two_of_a_kind_choose_alike(name):
    one, other = POLICIES[name](), POLICIES[name]()
    assert [one.choose([3, 1, 2]) for _ in range(20)] == [
        other.choose([3, 1, 2]) for _ in range(20)
    ]


@pytest.mark.parametrize(("name", "spread"), [("round_robin", 0), ("random", 150)])
def test_shares_are_equal_whatever_the_load(name, spread):
    policy = POLICIES[name]()
    counts = Counter(policy.choose([9, 0, 5]) for _ in range(3000))
    assert set(counts) == {0, 1, 2}
    assert max(counts.values()) - min(counts.values()) <= spread


def test_round_robin_goes_around_in_order():
    policy = POLICIES["round_robin"]()
    assert [policy.choose([0, 0, 0]) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_the_least_outstanding_is_the_first_of_the_shortest():
    policy = POLICIES["least_outstanding"]()
    assert [policy.choose(x) for x in ([2, 1, 1], [0, 0], [5, 4, 3])] == [1, 0, 2]
