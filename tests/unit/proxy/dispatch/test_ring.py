"""Whose key it is, and how few keys move."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.dispatch.ring import NEAR, HashRing

KEYS = [b"key-%d" % number for number in range(4000)]
NAMES = [f"worker-{number}" for number in range(17)]


def owners(members, unit=1.0):
    ring = HashRing(members, unit)
    return [members[ring.near(key)[0]][0] for key in KEYS]


def equal(names):
    return [(name, 1.0) for name in names]


@pytest.mark.parametrize("count", [2, 3, 8, 16])
def test_only_the_keys_of_a_worker_that_left_move(count):
    before = owners(equal(NAMES[:count]))
    after = owners(equal(NAMES[1:count]))
    moved = [old for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {NAMES[0]}
    assert NAMES[0] not in after
    assert len(moved) / len(KEYS) < 1 / count * 1.35


@pytest.mark.parametrize("count", [1, 2, 3, 8, 16])
def test_a_new_worker_takes_its_share_and_nothing_else_moves(count):
    before = owners(equal(NAMES[:count]))
    after = owners(equal(NAMES[: count + 1]))
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {NAMES[count]}
    assert 0.65 / (count + 1) < len(moved) / len(KEYS) < 1.35 / (count + 1)


def test_nothing_moves_between_others_when_a_heavy_worker_comes():
    before = owners([("a", 1), ("b", 2)])
    after = owners([("a", 1), ("b", 2), ("c", 9)])
    assert {new for old, new in zip(before, after, strict=True) if old != new} == {"c"}


def test_the_order_of_members_does_not_matter():
    assert owners(equal(NAMES)) == owners(equal(NAMES[::-1]))


def test_keys_are_shared_by_weight():
    counts = Counter(owners([("a", 1.0), ("b", 2.0), ("c", 5.0)]))
    shares = {name: count / len(KEYS) for name, count in counts.items()}
    assert shares == pytest.approx({"a": 1 / 8, "b": 2 / 8, "c": 5 / 8}, rel=0.3)


def test_only_the_ratio_of_weights_to_the_unit_matters():
    assert owners([("a", 100.0), ("b", 300.0)], unit=100.0) == owners([("a", 1.0), ("b", 3.0)])


def test_the_lightest_worker_still_owns_a_point():
    assert set(HashRing([("a", 1e-9), ("b", 1.0)]).owners) == {0, 1}


def test_places_are_the_same_in_every_process():
    ring = HashRing(equal(NAMES[:4]))
    assert [ring.near(key)[0] for key in KEYS[:12]] == [0, 2, 3, 3, 0, 1, 3, 3, 1, 2, 2, 1]


@settings(deadline=None)
@given(st.binary(max_size=64), st.integers(1, 17))
def test_the_ring_closes_for_every_key(key, count):
    near = HashRing(equal(NAMES[:count])).near(key)
    assert len(near) == NEAR
    assert set(near) <= set(range(count))


def test_next_to_a_key_are_the_owners_it_would_move_to():
    names = NAMES[:8]
    ring = HashRing(equal(names))
    for key in KEYS[:200]:
        near = [names[index] for index in ring.near(key)]
        following = next((name for name in near if name != near[0]), None)
        if following is not None:
            rest = [name for name in names if name != near[0]]
            assert rest[HashRing(equal(rest)).near(key)[0]] == following
