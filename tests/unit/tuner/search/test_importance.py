"""Which knobs mattered: main effects on the whole grid."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.config import ServingConfig
from dlbench.tuner.search.correction import Correction
from dlbench.tuner.search.importance import importances, main_effects
from dlbench.tuner.space import Space
from dlbench.tuner.twin.predictions import Predictions
from testbed import made

SHARES = made.SHARES
VALUES = {
    "max_batch_size": (1, 2, 8),
    "max_queue_delay_ms": (0.0, 1.0, 5.0),
    "workers": (1, 2),
    "cache_size": (0, 256, 4096),
}


@pytest.fixture(scope="module")
def space():
    return Space(VALUES, made.DEFAULT, 8)


def predicted(space, capacity, p99=lambda _: 1.0):
    configs = tuple(space.configurations())
    tails = np.array([[p99(c)] * len(SHARES) for c in configs])
    return Predictions.of(space, configs, SHARES, np.array([capacity(c) for c in configs]), tails)


def effects(space, capacity, p99=lambda _: 1.0):
    return importances(Correction.of([], predicted(space, capacity, p99)))


def test_what_multiplies_capacity_has_all_of_it_between_them(space):
    found = effects(space, lambda c: 100.0 * c.workers**2 * (1 + c.cache_size / 256)).capacity
    assert set(found) == set(VALUES)
    assert found["workers"] + found["cache_size"] == pytest.approx(1.0)
    assert found["max_batch_size"] == pytest.approx(0.0, abs=1e-12)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_knob_is_not_credited_with_what_makes_it_matter(space):
    """There is no delay without batches; what batches are worth is not the delay's doing."""
    found = effects(space, lambda c: 100.0 if c.max_batch_size > 1 else 10.0).capacity
    assert found["max_batch_size"] == pytest.approx(1.0)
    assert found["max_queue_delay_ms"] == pytest.approx(0.0, abs=1e-12)


def test_knobs_that_only_matter_together_leave_something_over(space):
    found = effects(space, lambda c: math.exp((c.workers - 1.5) * (c.cache_size > 0))).capacity
    assert sum(found.values()) < 0.9


def test_capacity_and_p99_are_judged_apart(space):
    found = effects(space, lambda c: 10.0 * c.workers, lambda c: 1.0 + c.max_queue_delay_ms)
    assert next(iter(found.capacity)) == "workers"
    assert next(iter(found.p99)) == "max_queue_delay_ms"


def test_where_nothing_differs_nothing_mattered(space):
    assert effects(space, lambda c: 100.0 + 0.01 * c.workers) == ({}, {})


@given(st.integers(0, 10_000))
def test_main_effects_are_those_of_the_whole_grid(space, seed):
    """Every choice of values, the ones that come to the same configuration counted apart."""
    rng = np.random.default_rng(seed)
    worth = {config: rng.normal() for config in space.configurations()}
    grid = [dict(zip(VALUES, c, strict=True)) for c in itertools.product(*VALUES.values())]
    values = np.array([worth[space.configuration(choice)] for choice in grid])
    configs = list(worth)
    columns = {k: np.array([getattr(c, k) for c in configs], object) for k in VALUES}
    found = main_effects(columns, np.array([worth[c] for c in configs]))
    for knob, own in VALUES.items():
        means = [values[[choice[knob] == value for choice in grid]].mean() for value in own]
        assert found[knob] == pytest.approx(np.var(means) / np.var(values))


def test_measurements_correct_what_mattered(space):
    """The twin says the workers; what was measured says the cache."""
    twin = predicted(space, lambda c: 100.0 * c.workers)
    before = importances(Correction.of([], twin)).capacity
    points = [
        made.point(f"c{n}", "probe", None, config=config, rate=100.0 * c)
        for n, config in enumerate(twin.configs)
        for c in [1.0 + 3.0 * (config.cache_size > 0)]
    ]
    after = importances(Correction.of(points, twin)).capacity
    assert before["workers"] == pytest.approx(1.0)
    assert after["workers"] < 0.3
    assert after["cache_size"] > after["workers"]


def test_a_single_configuration_has_no_knobs():
    space = Space({"workers": (2,)}, ServingConfig(workers=2), 8)
    assert effects(space, lambda _: 1.0) == ({}, {})
