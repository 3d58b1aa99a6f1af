"""How far predictions were off."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.tuner.search.twin_error import twin_error
from testbed import made


@pytest.fixture(scope="module")
def twin():
    return made.predictions(made.space())


@given(st.floats(0.2, 5), st.floats(0.2, 5))
def test_as_much_too_high_as_too_low_is_the_same_error(twin, capacity, tail):
    points = made.curve(twin, 0, capacity, tail) + made.curve(twin, 5, 1 / capacity, 1 / tail)
    error = twin_error(points, twin)
    assert error.throughput.median == pytest.approx(math.expm1(abs(math.log(capacity))), abs=1e-9)
    assert error.p99.p90 == pytest.approx(math.expm1(abs(math.log(tail))), abs=1e-9)
    assert (error.throughput.compared, error.p99.compared) == (2, 8)


def test_median_and_ninetieth_percentile_are_over_configurations(twin):
    points = [p for row in range(11) for p in made.curve(twin, row, 1 + row / 10)]
    error = twin_error(points, twin)
    assert error.throughput.median == pytest.approx(0.5)
    assert error.throughput.p90 == pytest.approx(0.9)
    assert error.p99.median == pytest.approx(0.0, abs=1e-9)


def test_repeats_of_a_point_count_once_at_their_middle(twin):
    points = made.curve(twin, 0)
    for repeat, tail in ((1, 2.0), (2, 0.5)):
        points += made.curve(twin, 0, tail=tail, phase="verify", repeat=repeat)[1:]
    error = twin_error(points, twin)
    assert (error.throughput.compared, error.p99.compared) == (1, 4)
    assert error.p99.p90 == pytest.approx(0.0, abs=1e-9)


def test_where_nothing_can_be_compared_nothing_is_said(twin):
    probe, *loads = made.curve(twin, 0)
    stranger = made.DEFAULT.model_copy(update={"max_batch_size": 7})
    failed = made.point(measurement=None, failure="no")
    for points in ([], [probe], loads, [failed], [made.point("x", config=stranger)]):
        assert twin_error(points, twin) is None
