import math

import numpy as np
import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.queueing import MMc, mm1_quantile_s
from dlbench.tuner.twin.twin import Load, capacity_rps, curve, infeasible, predict, sweep

SLOW = Calibration(services=[ServiceTime(batch=1, seconds=0.1)], cores=4, service_cv=1.0)
# A batch costs 1 ms and 0.1 ms a row: batching pays up to ninefold.
BATCHED = Calibration(
    services=[ServiceTime(batch=b, seconds=1e-3 + 1e-4 * b) for b in (1, 8, 64)],
    cores=4,
    service_cv=0.2,
)


def test_a_prediction_is_the_queue_it_describes():
    found = predict(
        ServingConfig(workers=1, max_batch_size=1), Load(rate_rps=5.0, requests=500_000), SLOW
    )
    assert found.throughput_rps == pytest.approx(5.0, rel=0.01)
    assert found.p99_ms == pytest.approx(1e3 * mm1_quantile_s(5.0, 0.1, 0.99), rel=0.05)
    assert found.p50_ms == pytest.approx(1e3 * mm1_quantile_s(5.0, 0.1, 0.5), rel=0.05)
    assert found.utilisation == pytest.approx(0.5, rel=0.02)
    assert (found.mean_batch, found.hit_ratio, found.rejected_share) == (1, 0, 0)


def test_beyond_its_capacity_a_server_gives_its_capacity_and_refuses_the_rest():
    config = ServingConfig(workers=2, max_batch_size=1, max_queue_size=50)
    found = predict(config, Load(rate_rps=40.0, requests=20_000), SLOW)
    assert found.throughput_rps == pytest.approx(20.0, rel=0.03)
    assert found.rejected_share == pytest.approx(0.5, rel=0.05)
    assert found.utilisation == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (1, 8), (3, 64)])
def test_capacity_is_that_of_full_batches_on_all_workers(workers, batch):
    config = ServingConfig(workers=workers, max_batch_size=batch)
    expected = workers * batch / BATCHED.service_s(batch)
    assert capacity_rps(config, BATCHED) == pytest.approx(expected, rel=0.03)


def test_few_users_cannot_fill_a_batch():
    config = ServingConfig(workers=1, max_batch_size=64)
    assert capacity_rps(config, BATCHED, users=1) == pytest.approx(
        1 / BATCHED.service_s(1), rel=0.03
    )


def test_the_front_and_the_client_bound_what_workers_can_do():
    config = ServingConfig(workers=3, max_batch_size=64)
    assert capacity_rps(config, BATCHED) > 20_000
    slow_front = BATCHED.model_copy(update={"front_s": 1e-4})
    assert capacity_rps(config, slow_front) == pytest.approx(10_000, rel=0.02)
    slow_client = BATCHED.model_copy(update={"client_rps": 5_000.0})
    assert capacity_rps(config, slow_client) == 4_000


def test_a_front_and_a_client_on_the_same_cores_slow_the_workers_down():
    config = ServingConfig(workers=1, max_batch_size=1)
    alone = Calibration(services=[ServiceTime(batch=1, seconds=1e-3)], cores=1)
    shared = alone.model_copy(update={"front_s": 1e-4, "client_s": 1e-4})
    assert capacity_rps(config, alone) == pytest.approx(1000, rel=0.01)
    # A request needs 1.2 ms of the only core.
    assert capacity_rps(config, shared) == pytest.approx(1000 / 1.2, rel=0.03)


def test_a_queue_of_one_place_has_a_capacity_too():
    config = ServingConfig(workers=2, max_batch_size=8, max_queue_size=1)
    assert capacity_rps(config, BATCHED) == pytest.approx(1 / BATCHED.service_s(1), rel=0.03)


def test_hits_and_joined_requests_need_no_worker():
    load = Load(rate_rps=1000.0, distinct=50, zipf=1.0)
    config = ServingConfig(workers=1, max_batch_size=1, cache_size=50)
    calibration = BATCHED.model_copy(update={"hit_s": 1e-5})
    found = predict(config, load, calibration)
    assert found.hit_ratio == 1
    assert found.p99_ms == pytest.approx(0.01, rel=0.2)
    assert found.throughput_rps == pytest.approx(1000.0, rel=0.01)
    assert capacity_rps(config, calibration, load) == pytest.approx(1e5, rel=0.01)


def test_a_small_cache_hits_as_often_as_theory_says_of_a_uniform_load():
    load = Load(rate_rps=10.0, distinct=1000, zipf=0.0, requests=100_000)
    config = ServingConfig(workers=1, cache_size=250)
    assert predict(config, load, BATCHED).hit_ratio == pytest.approx(0.25, rel=0.02)


def test_a_delay_trades_latency_at_a_low_load_for_larger_batches():
    load = Load(rate_rps=500.0)
    at_once, delayed = (
        predict(ServingConfig(workers=1, max_batch_size=8, max_queue_delay_ms=d), load, BATCHED)
        for d in (0.0, 5.0)
    )
    assert delayed.mean_batch > at_once.mean_batch
    assert delayed.p50_ms > at_once.p50_ms + 2


def test_latency_rises_along_a_curve_whose_loads_are_shares_of_the_capacity():
    config = ServingConfig(workers=2, max_batch_size=8)
    found = curve(config, BATCHED)
    capacity = capacity_rps(config, BATCHED)
    rates = [point.throughput_rps / capacity for point in found]
    assert rates == pytest.approx([0.3, 0.5, 0.7, 0.9], rel=0.02)
    assert np.all(np.diff([point.p99_ms for point in found]) > 0)


def test_a_sweep_on_threads_is_what_each_curve_alone_is():
    configs = [
        ServingConfig(workers=workers, max_batch_size=batch, scheduling_policy=policy)
        for workers in (1, 3)
        for batch in (1, 8)
        for policy in ("shared_queue", "random", "consistent_hash")
    ]
    load = Load(rate_rps=1.0, requests=400)
    found = sweep(configs, BATCHED, shares=(0.5,), load=load, threads=2)
    assert [c.predictions for c in found] == [curve(c, BATCHED, (0.5,), load) for c in configs]
    assert [c.capacity_rps for c in found] == [capacity_rps(c, BATCHED, load) for c in configs]


def test_the_shared_queue_waits_less_than_a_random_choice():
    load = Load(rate_rps=28.0, requests=50_000)
    shared, chosen = (
        predict(
            ServingConfig(workers=4, max_batch_size=1, scheduling_policy=policy), load, SLOW
        ).p99_ms
        for policy in ("shared_queue", "random")
    )
    assert chosen > 1.5 * shared
    assert shared > 1e3 * MMc(4, 28.0, 0.1).mean_wait_s()


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"workers": 8}, ""),
        ({"workers": 5, "intra_op_threads": 2}, "10 threads on 4 cores"),
        ({"workers": 8, "cache_size": 1}, "needs 800 MB of 800 MB"),
        ({"workers": 7, "cache_size": 1_000_000}, "needs 956 MB of 800 MB"),
    ],
)
def test_what_does_not_fit_the_machine_says_why(knobs, reason):
    calibration = BATCHED.model_copy(update={"worker_rss_mb": 100.0, "memory_mb": 800.0})
    found = infeasible(ServingConfig(**knobs), calibration)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(("most_mb", "fits"), [(350, 3), (2000, 7), (math.inf, 7)])
def test_a_bound_on_memory_is_a_smaller_machine(most_mb, fits):
    calibration = BATCHED.model_copy(update={"worker_rss_mb": 100.0, "memory_mb": 750.0})
    found = [
        n
        for n in range(1, 9)
        if not infeasible(ServingConfig(workers=n), calibration.within(most_mb))
    ]
    assert found == list(range(1, fits + 1))


def test_memory_that_was_not_measured_rules_nothing_out():
    assert infeasible(ServingConfig(workers=8, cache_size=10_000_000), BATCHED) == ""
