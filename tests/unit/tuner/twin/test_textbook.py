"""The queue that stands beside the twin: where it applies they agree, elsewhere it is said why not."""

import math

import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.scenario import Load
from dlbench.tuner.twin.textbook import left_out, textbook
from dlbench.tuner.twin.twin import predict

SERVICES = (ServiceTime(batch=1, seconds=0.002), ServiceTime(batch=8, seconds=0.004))
PLAIN = Calibration(services=SERVICES, service_cv=1.0, cores=64)
# Long enough that no batch is committed ahead.
SLOW = Calibration(services=[ServiceTime(batch=1, seconds=0.1)], service_cv=1.0, cores=64)
ONE_BY_ONE = {"max_batch_size": 1, "max_queue_size": 10_000}


def reasons(calibration=PLAIN, load=None, **knobs):
    config = ServingConfig(**{"workers": 2, **ONE_BY_ONE, **knobs})
    load = load or Load(rate_rps=700)
    return left_out(config, load, calibration, predict(config, load, calibration))


def test_one_worker_is_an_mm1_queue():
    found = textbook(ServingConfig(workers=1), Load(rate_rps=250), PLAIN)
    assert found.queue == "M/M/1"
    assert found.utilisation == pytest.approx(0.5)
    assert found.mean_ms == pytest.approx(4)
    assert found.p50_ms == pytest.approx(4 * math.log(2))
    assert found.p99_ms == pytest.approx(4 * math.log(100))
    assert found.in_flight == pytest.approx(1)


def test_without_a_steady_state_every_time_is_endless():
    found = textbook(ServingConfig(workers=2), Load(rate_rps=1000), PLAIN)
    assert found.utilisation == pytest.approx(1)
    assert {found.mean_ms, found.p50_ms, found.p99_ms, found.in_flight} == {math.inf}


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_twin_agrees_where_the_queue_applies(workers):
    config = ServingConfig(workers=workers, **ONE_BY_ONE)
    load = Load(rate_rps=6 * workers, requests=200_000)
    simulated, theory = predict(config, load, SLOW), textbook(config, load, SLOW)
    assert left_out(config, load, SLOW, simulated) == []
    for name in ("mean_ms", "p50_ms", "p99_ms", "utilisation"):
        assert getattr(simulated, name) == pytest.approx(getattr(theory, name), rel=0.05)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (lambda: reasons(max_batch_size=8), "batches of 1.2"),
        (lambda: reasons(max_queue_delay_ms=2.5), "2.5 ms that a batch waits"),
        (lambda: reasons(PLAIN.model_copy(update={"service_cv": 0.1})), "vary less (cv 0.1"),
        (lambda: reasons(PLAIN.model_copy(update={"service_cv": 2.0})), "vary more (cv 2"),
        (lambda: reasons(PLAIN.model_copy(update={"cores": 1})), "slow each other by 100%"),
        (lambda: reasons(PLAIN.model_copy(update={"front_s": 4e-4})), "0.4 ms in front and client"),
        (lambda: reasons(PLAIN.model_copy(update={"beside_ms": (0.0, 1.0)})), "0.5 ms in front"),
        (lambda: reasons(), "wait for one worker"),
        (lambda: reasons(SLOW, Load(rate_rps=9), scheduling_policy="random"), "wait for one worker"),
        (lambda: reasons(load=Load(rate_rps=700, arrivals="constant")), "constant arrivals"),
        (lambda: reasons(load=Load(rate_rps=700, distinct=5), cache_policy="lru", cache_size=5), "100% cache hits"),
        (lambda: reasons(load=Load(rate_rps=5000), max_queue_size=10), "80% refused"),
    ],
)  # fmt: skip
def test_what_it_leaves_out_is_named(found, text):
    assert [reason for reason in found() if text in reason]
