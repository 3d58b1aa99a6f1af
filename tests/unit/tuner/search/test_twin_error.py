"""How far predictions were off."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.tuner.search.twin_error import twin_error
from dlbench.tuner.space import build_space
from dlbench.tuner.twin.predictions import Predictions

SHARES = (0.3, 0.5, 0.7, 0.9)


@pytest.fixture(scope="module")
def twin(build):
    space = build_space(build.DEFAULT, 2, repeats_inputs=False, batchable=True)
    configs = tuple(space.configurations())
    batch = np.array([c.max_batch_size for c in configs], float)
    p99 = 2 * np.sqrt(batch)[:, None] / (1 - np.array(SHARES))
    return Predictions.of(space, configs, SHARES, 100 * np.sqrt(batch), p99)


def curve(build, twin, row, capacity=1.0, tail=1.0, phase="screen", repeat=0):
    """A configuration that is off its prediction by these factors, at the rates predicted for."""
    config, name, known = twin.configs[row], f"c{row}", float(twin.capacity_rps[row])
    probed = build.point(name, "probe", None, config=config, throughput=known * capacity)
    loads = [
        build.point(
            *(name, phase, share, repeat, config),
            throughput=share * known,
            p99=float(twin.p99_ms[row, i]) * tail,
        )
        for i, share in enumerate(SHARES)
    ]
    return [probed, *loads]


@given(st.floats(0.2, 5), st.floats(0.2, 5))
def test_as_much_too_high_as_too_low_is_the_same_error(build, twin, capacity, tail):
    points = curve(build, twin, 0, capacity, tail) + curve(build, twin, 5, 1 / capacity, 1 / tail)
    error = twin_error(points, twin)
    assert error.throughput.median == pytest.approx(math.expm1(abs(math.log(capacity))), abs=1e-9)
    assert error.p99.p90 == pytest.approx(math.expm1(abs(math.log(tail))), abs=1e-9)
    assert (error.throughput.compared, error.p99.compared) == (2, 8)


def test_median_and_ninetieth_percentile_are_over_configurations(build, twin):
    points = [p for row in range(11) for p in curve(build, twin, row, 1 + row / 10)]
    error = twin_error(points, twin)
    assert error.throughput.median == pytest.approx(0.5)
    assert error.throughput.p90 == pytest.approx(0.9)
    assert error.p99.median == pytest.approx(0.0, abs=1e-9)


def test_repeats_of_a_point_count_once_at_their_middle(build, twin):
    points = curve(build, twin, 0)
    for repeat, tail in ((1, 2.0), (2, 0.5)):
        points += curve(build, twin, 0, tail=tail, phase="verify", repeat=repeat)[1:]
    error = twin_error(points, twin)
    assert (error.throughput.compared, error.p99.compared) == (1, 4)
    assert error.p99.p90 == pytest.approx(0.0, abs=1e-9)


def test_where_nothing_can_be_compared_nothing_is_said(build, twin):
    probe, *loads = curve(build, twin, 0)
    stranger = build.DEFAULT.model_copy(update={"max_batch_size": 7})
    failed = build.point(measurement=None, failure="no")
    for points in ([], [probe], loads, [failed], [build.point("x", config=stranger)]):
        assert twin_error(points, twin) is None
