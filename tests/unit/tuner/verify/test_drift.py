"""Whether the machine changed: the reference against itself, and the noise it is allowed."""

import math

import pytest

from dlbench.tuner.verify.drift import CAPACITY_LIMIT, P99_LIMIT, drift, reference, since_reference
from testbed import made


def first(p99=10.0, **changes):
    return [
        made.point("default", "probe", None, rate=1000),
        made.point("default", "baseline", 0.5, rate=500, p99=8),
        made.point("default", "baseline", 0.7, rate=700, p99=p99, **changes),
        made.point("c01", "screen", 0.7, rate=9000, p99=1),
    ]


def again(capacity=1000, p99=10.0, **changes):
    return [
        made.point("default", "drift", None, rate=capacity),
        made.point("default", "drift", 0.7, rate=700, p99=p99, **changes),
    ]


def test_nothing_is_known_before_the_reference_was_measured_twice():
    assert drift([]) is None
    assert drift(first()) is None
    assert drift([*first(), *again()[:1]]) is None


def test_a_machine_that_stays_the_same_does_not_drift():
    found = drift([*first(), *again(capacity=1050, p99=12)])
    assert found.capacity == pytest.approx(1.05)
    assert found.p99 == pytest.approx(1.2)
    assert not found.beyond_noise
    assert "105%" in str(found)
    assert "noise" not in str(found)


@pytest.mark.parametrize(("capacity", "p99"), [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_more_than_noise_is_said_for_either_direction(capacity, p99):
    """Two equal measurements differ by 1.96 times the root of two times the noise at most."""
    for beyond in (False, True):
        by = 1.01 if beyond else 0.99
        changed = again(
            1000 * math.exp(capacity * by * CAPACITY_LIMIT),
            10 * math.exp(p99 * by * P99_LIMIT),
        )
        found = drift([*first(), *changed])
        assert found.beyond_noise == beyond
        assert ("more than noise" in str(found)) == beyond


def test_the_latest_counts():
    points = [*first(), *again(capacity=400), *again(capacity=1000)]
    assert not drift(points).beyond_noise


def test_a_reference_that_no_longer_holds_has_drifted():
    found = drift([*first(), *again(verdict="saturated")])
    assert found.p99 is None
    assert found.beyond_noise
    assert "unknown" in str(found)


def test_the_reference_is_the_default_nearest_to_its_share():
    assert reference(first()).share == 0.7
    assert reference(first(verdict="saturated")).share == 0.5
    assert reference([made.point("naive", "baseline", 0.7)]) is None


def test_what_was_measured_since_is_counted_from_its_load():
    points = first()
    assert since_reference(points) == points[3:]
    drifted = [*points, *again()]
    assert since_reference(drifted[:-1]) == drifted[3:-1]
    assert since_reference(drifted) == []
