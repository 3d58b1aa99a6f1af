"""What is learnt of a real twin's sweep, from measurements that agree with it and that do not."""

import numpy as np
import pytest

from dlbench.tuner.search.insight import insight
from dlbench.tuner.space import Space
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.predictions import Predictions
from dlbench.tuner.twin.scenario import Load
from dlbench.tuner.twin.twin import SHARES, sweep
from testbed import made

SERVICES = (ServiceTime(batch=1, seconds=0.001), ServiceTime(batch=8, seconds=0.002))
CALIBRATION = Calibration(services=SERVICES, cores=4)
VALUES = {"max_batch_size": (1, 4, 8), "max_queue_delay_ms": (0.0, 2.0), "workers": (1, 2, 4)}


@pytest.fixture(scope="module")
def twin():
    space = Space(VALUES, made.DEFAULT, 4)
    configs = list(space.configurations())
    curves = sweep(configs, CALIBRATION, load=Load(rate_rps=1.0, requests=1000))
    p99 = np.array([[p.p99_ms for p in curve.predictions] for curve in curves])
    capacity = np.array([curve.capacity_rps for curve in curves])
    return Predictions.of(space, configs, SHARES, capacity, p99)


def measured(twin, factor):
    """Every configuration as predicted, but for a factor on its capacity."""
    rows = enumerate(map(factor, twin.configs))
    return [point for row, off in rows for point in made.curve(twin, row, off)]


def test_a_twin_that_is_right_is_off_by_nothing(twin):
    found = insight(measured(twin, lambda _: 1.0), twin)
    assert found.error.throughput.p90 == pytest.approx(0.0, abs=1e-9)
    assert found.error.p99.p90 == pytest.approx(0.0, abs=1e-9)
    assert (found.spread, found.wrong) == (pytest.approx(0.0, abs=1e-9), False)
    assert {"workers", "max_batch_size"} == set(list(found.importances.capacity)[:2])
    assert sum(found.importances.capacity.values()) <= 1 + 1e-9


def test_a_twin_that_mistakes_configurations_is_wrong(twin):
    found = insight(measured(twin, lambda c: 2.0 if c.workers > 1 else 0.8), twin)
    assert found.wrong
    assert found.spread > 0.2
    assert found.error.throughput.p90 == pytest.approx(1.0)


def test_a_common_factor_is_an_error_and_not_wrong(twin):
    found = insight(measured(twin, lambda _: 1.5), twin)
    assert found.error.throughput.median == pytest.approx(0.5)
    assert not found.wrong


def test_before_anything_is_measured_only_the_twin_speaks(twin):
    found = insight([], twin)
    assert found.error is found.spread is None
    assert found.importances.capacity
