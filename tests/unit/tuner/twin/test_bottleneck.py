"""What is said to limit a configuration is what its simulation runs out of."""

import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.tuner.twin.bottleneck import bottleneck
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.twin import Load, Prediction, capacity_rps, predict


def machine(**changes):
    services = (ServiceTime(batch=1, seconds=0.001), ServiceTime(batch=8, seconds=0.004))
    return Calibration(services=services, **{"cores": 8, **changes})


def limit(calibration, load=None, **knobs):
    config = ServingConfig(**{"workers": 1, **knobs})
    load = load or Load(rate_rps=1.0)
    capacity = capacity_rps(config, calibration, load)
    near = load.model_copy(update={"rate_rps": 0.95 * capacity})
    return bottleneck(config, calibration, capacity, predict(config, near, calibration))


@pytest.mark.parametrize(
    ("calibration", "knobs", "part"),
    [
        (machine(), {"workers": 1}, "the workers"),
        (machine(), {"workers": 8}, "the workers"),
        (machine(cores=2), {"workers": 4}, "the cores"),
        (machine(front_s=0.002), {"workers": 4}, "the front"),
        (machine(client_rps=100.0), {"workers": 4}, "the load generator"),
        (machine(client_rps=1e6), {"workers": 4}, "the workers"),
    ],
)
def test_the_part_that_is_short(calibration, knobs, part):
    assert limit(calibration, **knobs).startswith(part)


def test_a_cache_moves_the_limit_from_the_workers_to_the_front():
    load = Load(rate_rps=1.0, distinct=10)
    calibration = machine(front_s=0.0001, hit_s=0.00005)
    assert limit(calibration, load).startswith("the workers")
    assert limit(calibration, load, cache_size=100).startswith("the front")


def test_what_is_idle_is_not_called_the_limit():
    """A burst of a batch at a time leaves its one worker idle in between."""
    config, idle = ServingConfig(workers=4), Prediction(*[0.0] * len(Prediction._fields))
    said = bottleneck(config, machine(), 100.0, idle._replace(utilisation=0.17))
    assert said == "no part alone: front 0%, workers 17% busy"
