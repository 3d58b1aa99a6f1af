"""The front, its hypervolume and the choices made on it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.tuner.front import (
    Outcome,
    curve_gains,
    front_indices,
    greedy_by_hypervolume,
    greedy_curves,
    hypervolume,
    in_reach,
    knee,
)

outcomes = st.lists(
    st.builds(Outcome, st.floats(1, 1e5), st.floats(0.1, 5000)), min_size=1, max_size=30
)


def beats(a, b):
    return a.throughput_rps >= b.throughput_rps and a.p99_ms <= b.p99_ms and a != b


@given(outcomes)
def test_front_is_exactly_what_nothing_dominates(points):
    front = {points[i] for i in front_indices(points)}
    undominated = {p for p in points if not any(beats(q, p) for q in points)}
    assert front == undominated


@given(outcomes)
def test_front_rises_in_both(points):
    front = [points[i] for i in front_indices(points)]
    assert front == sorted(front)
    assert [o.p99_ms for o in front] == sorted(o.p99_ms for o in front)


@given(outcomes, st.randoms())
def test_hypervolume_does_not_depend_on_order_or_dominated_points(points, rng):
    best = max(o.throughput_rps for o in points)
    whole = hypervolume(points, best)
    shuffled = list(points)
    rng.shuffle(shuffled)
    assert hypervolume(shuffled, best) == pytest.approx(whole)
    assert hypervolume([points[i] for i in front_indices(points)], best) == pytest.approx(whole)


@given(outcomes, st.builds(Outcome, st.floats(1, 1e5), st.floats(0.1, 5000)))
def test_another_point_never_takes_hypervolume_away(points, extra):
    assert hypervolume([*points, extra], 1e5) >= hypervolume(points, 1e5) - 1e-9


def test_hypervolume_closed_form():
    # Two steps of a staircase: 0.5 * ln(1000/10) below the slow point, and the fast one's rest.
    two = [Outcome(50, 1.0), Outcome(100, 10.0)]
    assert hypervolume(two, 100) == pytest.approx(0.5 * math.log(1000) + 0.5 * math.log(100))


def test_hypervolume_against_monte_carlo():
    import random

    rng = random.Random(0)
    points = [Outcome(rng.uniform(1, 100), rng.uniform(1, 900)) for _ in range(12)]
    height = math.log(1000)
    draws = [(rng.random() * 100, 1000 * math.exp(-rng.random() * height)) for _ in range(40_000)]
    inside = sum(any(o.throughput_rps >= x and o.p99_ms <= y for o in points) for x, y in draws)
    assert hypervolume(points, 100) == pytest.approx(inside / len(draws) * height, rel=0.03)


def test_points_slower_than_the_reference_are_worth_nothing():
    assert hypervolume([Outcome(100, 1000.0), Outcome(200, 5000.0)], 200) == 0


@given(outcomes)
def test_greedy_takes_different_points_and_its_first_is_the_knee(points):
    chosen = greedy_by_hypervolume(points, 5)
    assert len(chosen) == len(set(chosen)) == min(5, len(points))
    best = max(o.throughput_rps for o in points)
    values = [hypervolume([o], best) for o in points]
    assert values[chosen[0]] == pytest.approx(max(values)) == values[knee(points)]


def test_greedy_covers_the_front_before_what_lies_behind():
    points = [Outcome(100, 10), Outcome(99, 11), Outcome(50, 2), Outcome(49, 3)]
    assert set(greedy_by_hypervolume(points, 2)) == {0, 2}
    assert len(greedy_by_hypervolume(points, 4)) == 4


def some_curves(seed, count=15, loads=4):
    rng = np.random.default_rng(seed)
    throughput = np.cumsum(rng.uniform(1, 50, size=(count, loads)), axis=1)
    return throughput, np.exp(rng.uniform(-1, 8, size=(count, loads)))


@given(st.lists(st.builds(Outcome, st.floats(1, 300), st.floats(0.1, 5000))), st.integers(0, 99))
def test_a_curves_gain_is_the_hypervolume_with_it_less_that_without(points, seed):
    throughput, p99 = some_curves(seed)
    gains = curve_gains(points, throughput, p99, 250.0)
    before = hypervolume(points, 250.0)
    for gain, rates, tails in zip(gains, throughput, p99, strict=True):
        with_it = [*points, *map(Outcome, rates.tolist(), tails.tolist())]
        assert gain == pytest.approx(hypervolume(with_it, 250.0) - before, abs=1e-9)


@given(st.integers(0, 99))
def test_greedy_curves_take_what_joins_best_and_stop_when_nothing_adds(seed):
    throughput, p99 = some_curves(seed)
    chosen = greedy_curves(throughput, p99, 15)
    assert len(set(chosen)) == len(chosen)
    known, best = [], throughput.max()
    for row in chosen:
        gains = curve_gains(known, throughput, p99, best)
        assert gains[row] == gains.max() > 0
        known += map(Outcome, throughput[row].tolist(), p99[row].tolist())
    if len(chosen) < 15:
        assert curve_gains(known, throughput, p99, best).max() == 0


def test_where_all_are_beyond_the_reference_the_knee_still_weighs_both():
    slow = [Outcome(1, 1500), Outcome(2, 1501), Outcome(10, 1502)]
    assert knee(slow) == 2
    assert in_reach([1500, 1502], 1000) == pytest.approx(1500 * math.e)
    assert in_reach([900, 1502], 1000) == in_reach([], 1000) == 1000
