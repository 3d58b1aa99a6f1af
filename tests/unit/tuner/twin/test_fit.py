import numpy as np
import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.fit import ObservedLoad, beside_ms, fitted
from dlbench.tuner.twin.scenario import NS, Load, scenario
from dlbench.tuner.twin.twin import others_in, predict, simulate

CONFIG = ServingConfig(workers=1, max_batch_size=16)
USERS = 32
TRUTH = Calibration(
    services=[ServiceTime(batch=b, seconds=1e-4 * (1 + b)) for b in (1, 16)],
    cores=4, front_s=3e-5, wake_s=5e-5, way_s=2e-5, turn_s=5e-5, client_s=1e-5, client_open_s=4e-5,
)  # fmt: skip
UNKNOWN = TRUTH.model_copy(
    update={"front_s": 0.0, "wake_s": 0.0, "client_s": 0.0, "client_open_s": 0.0}
)


def seen(rate_rps, users, client_s):
    """What a proxy of these costs would show."""
    load = Load(rate_rps=rate_rps)
    run = simulate(CONFIG, scenario(CONFIG, load, TRUTH, users), TRUTH)
    span_s = run.done_ns.max() / NS
    front_s = others_in(run, TRUTH, client_s).front * span_s / load.requests
    return ObservedLoad(load.requests / span_s, front_s, client_s)


def test_the_price_of_a_request_and_of_a_wake_up_are_told_apart():
    found = fitted(UNKNOWN, CONFIG, USERS, seen(1.0, USERS, 1e-5), seen(500.0, 0, 4e-5))
    assert found.front_s == pytest.approx(TRUTH.front_s, rel=0.05)
    assert found.wake_s == pytest.approx(TRUTH.wake_s, rel=0.05)
    assert (found.client_s, found.client_open_s) == (1e-5, 4e-5)


def test_a_front_that_costs_no_more_when_it_is_woken_has_no_price_for_it():
    found = fitted(
        UNKNOWN, CONFIG, USERS, ObservedLoad(5000.0, 4e-5, 0.0), ObservedLoad(500.0, 3e-5, 0.0)
    )
    assert found.wake_s == 0
    assert found.front_s == pytest.approx(4e-5, rel=0.01)


def test_what_latencies_have_beyond_the_twins_comes_to_every_prediction():
    rng = np.random.default_rng(1)
    load = Load(rate_rps=500.0)
    drawn = scenario(CONFIG, load, TRUTH)
    own_ms = (simulate(CONFIG, drawn, TRUTH).done_ns - drawn.arrivals_ns) / NS * 1e3
    beside = beside_ms(TRUTH, CONFIG, 500.0, own_ms + rng.exponential(5.0, len(own_ms)))
    assert list(beside) == sorted(beside)
    expected = predict(CONFIG, load, TRUTH.model_copy(update={"beside_ms": beside}))
    assert expected.p50_ms == pytest.approx(np.quantile(own_ms + 5 * np.log(2), 0.5), rel=0.1)
    assert expected.p99_ms == pytest.approx(5 * np.log(100), rel=0.15)


def test_latencies_shorter_than_expected_take_nothing_away():
    assert set(beside_ms(TRUTH, CONFIG, 500.0, np.full(1000, 1e-3))) == {0.0}
