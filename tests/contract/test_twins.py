"""Both twins do the same with the same scenario, and what queueing theory says where it applies."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.proxy.config import ServingConfig
from dlbench.tuner.twin import fast_twin, reference_twin
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.queueing import MG1, MMc, littles_law, mm1, mm1_quantile_s
from dlbench.tuner.twin.scenario import NS, Load, cache_entries, scenario

# Long enough that no batch is committed ahead, which a queue of the textbook does not know.
SERVICE_S = 0.1


def calibration(service_s=1e-3, cv=0.3):
    """Two cores on which batching pays and the second worker costs a fifth."""
    services = [
        ServiceTime(batch=batch, busy=busy, seconds=service_s * (1 + 0.1 * batch) * (1 + 0.2 * (busy - 1)))
        for batch in (1, 4, 16)
        for busy in (1, 2)
    ]  # fmt: skip
    return Calibration(
        services=services, cores=2, service_cv=cv, front_s=2e-5, wake_s=3e-5, hit_s=1e-5,
        way_s=5e-5, turn_s=2e-5,
    )  # fmt: skip


def both(config, load, calibrated, users=0):
    drawn = scenario(config, load, calibrated, users)
    entries = cache_entries(config, calibrated)
    return fast_twin.simulate(config, drawn, entries), reference_twin.simulate(config, drawn)


def assert_same(fast, reference):
    assert np.array_equal(fast.done_ns, reference.done_ns)
    assert fast[1:] == reference[1:]


CONFIGS = st.builds(
    ServingConfig,
    workers=st.integers(1, 5),
    max_batch_size=st.integers(1, 9),
    max_queue_delay_ms=st.sampled_from((0.0, 0.5, 5.0)),
    scheduling_policy=st.sampled_from(sorted(fast_twin.POLICIES)),
    queue_order=st.sampled_from(("fifo", "edf")),
    cache_size=st.sampled_from((0, 1, 7, 50)),
    cache_policy=st.sampled_from(("none", *sorted(fast_twin.CACHES))),
    max_queue_size=st.sampled_from((1, 5, 4096)),
)


# Short and long services: with and without batches that are committed ahead.
@given(
    CONFIGS,
    st.sampled_from((1e-4, 1e-3, 1e-2)),
    st.sampled_from((0.0, 0.3, 1.0)),
    st.floats(0.1, 2.0),
    st.sampled_from((0, 1, 7)),
    st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_they_agree_to_the_nanosecond(config, service_s, cv, utilisation, users, seed):
    assert fast_twin.knows(config)
    calibrated = calibration(service_s, cv)
    rate = utilisation * config.workers / calibrated.service_s(1)
    load = Load(rate_rps=rate, requests=200, distinct=100, zipf=0.9, seed=seed)
    assert_same(*both(config, load, calibrated, users))


def test_every_searched_choice_is_known_to_the_fast_one():
    for field, values in (("scheduling_policy", fast_twin.POLICIES), ("cache_policy", fast_twin.CACHES)):  # fmt: skip
        assert all(fast_twin.knows(ServingConfig(**{field: value})) for value in values)


def test_arrivals_at_the_same_moment_are_taken_in_the_same_order():
    config = ServingConfig(workers=3, max_batch_size=2, scheduling_policy="least_outstanding")
    load = Load(rate_rps=1e9, requests=100, arrivals="constant")
    calibrated = calibration(cv=0.0).model_copy(
        update={"front_s": 0.0, "wake_s": 0.0, "way_s": 0.0}
    )
    assert_same(*both(config, load, calibrated))


def test_what_is_drawn_is_the_same_for_every_configuration():
    load, calibrated = Load(rate_rps=10.0, distinct=5), calibration()
    one, other = (
        scenario(ServingConfig(workers=n, max_batch_size=n), load, calibrated) for n in (1, 2)
    )
    assert np.array_equal(one.arrivals_ns, other.arrivals_ns)
    assert np.array_equal(one.factors, other.factors)
    assert one.inputs is other.inputs


TWINS = {
    "fast": (lambda config, drawn: fast_twin.simulate(config, drawn, 0), 4_000_000, 0.01),
    "reference": (reference_twin.simulate, 40_000, 0.1),
}


@pytest.fixture(params=TWINS)
def sojourns(request):
    """(workers, utilisation, cv) -> seconds from arrival to answer, with a queue of the textbook."""
    simulate, count, tolerance = TWINS[request.param]

    def run(workers, utilisation, cv):
        calibrated = Calibration(
            services=[ServiceTime(batch=1, seconds=SERVICE_S)], cores=workers, service_cv=cv
        )
        config = ServingConfig(workers=workers, max_batch_size=1, max_queue_size=1_000_000)
        load = Load(rate_rps=utilisation * workers / SERVICE_S, requests=count, seed=11)
        drawn = scenario(config, load, calibrated)
        done = simulate(config, drawn).done_ns
        settled = slice(count // 20, None)
        return (done - drawn.arrivals_ns)[settled] / NS, load.rate_rps, tolerance

    return run


@pytest.mark.parametrize("utilisation", [0.3, 0.5, 0.7])
def test_one_worker_is_an_mm1_queue(sojourns, utilisation):
    found, rate, tolerance = sojourns(1, utilisation, 1.0)
    queue = mm1(rate, SERVICE_S)
    assert found.mean() == pytest.approx(queue.mean_wait_s() + SERVICE_S, rel=tolerance)
    p99 = mm1_quantile_s(rate, SERVICE_S, 0.99)
    assert np.percentile(found, 99) == pytest.approx(p99, rel=2 * tolerance)


@pytest.mark.parametrize(("workers", "utilisation"), [(2, 0.7), (4, 0.7), (16, 0.9)])
def test_workers_with_a_shared_queue_are_an_mmc_queue(sojourns, workers, utilisation):
    found, rate, tolerance = sojourns(workers, utilisation, 1.0)
    queue = MMc(workers, rate, SERVICE_S)
    assert found.mean() == pytest.approx(queue.mean_wait_s() + SERVICE_S, rel=tolerance)
    assert np.mean(found > 3 * SERVICE_S) == pytest.approx(
        queue.sojourn_tail(3 * SERVICE_S), rel=3 * tolerance
    )


@pytest.mark.parametrize("cv", [0.0, 0.5, 1.5])
def test_other_service_times_are_an_mg1_queue(sojourns, cv):
    found, rate, tolerance = sojourns(1, 0.6, cv)
    queue = MG1(rate, SERVICE_S, cv)
    assert found.mean() == pytest.approx(queue.mean_sojourn_s(), rel=tolerance)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("policy", ["shared_queue", "random"])
def test_what_is_in_the_system_obeys_littles_law(twin, policy):
    config = ServingConfig(workers=2, max_batch_size=4, scheduling_policy=policy)
    load = Load(rate_rps=1000.0, requests=20_000)
    drawn = scenario(config, load, calibration())
    done = TWINS[twin][0](config, drawn).done_ns
    # Counted at every moment that something changes, and not derived from the latencies.
    moments = np.concatenate([drawn.arrivals_ns, done])
    changes = np.repeat((1, -1), load.requests)[np.argsort(moments, kind="stable")]
    moments.sort()
    span_s = (moments[-1] - moments[0]) / NS
    in_flight = (np.cumsum(changes)[:-1] * np.diff(moments)).sum() / (moments[-1] - moments[0])
    latency_s = (done - drawn.arrivals_ns).mean() / NS
    assert littles_law(load.requests / span_s, latency_s, in_flight) == pytest.approx(1)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("scheduling_policy", "consistent_hash"),
        ("scheduling_policy", "shortest_response_time"),
        ("batching", "adaptive"),
        ("preferred_batch_sizes", (2, 3)),
        ("default_timeout_ms", 1.0),
        ("cache_ttl_s", 0.1),
    ],
)
def test_what_only_the_reference_knows_it_answers_for(knob, value):
    config = ServingConfig(workers=2, max_batch_size=4, cache_size=20, max_queue_delay_ms=2.0)
    special = config.model_copy(update={knob: value})
    assert fast_twin.knows(config)
    assert not fast_twin.knows(special)
    load = Load(rate_rps=2000.0, requests=500, distinct=100, zipf=0.9)
    drawn = scenario(config, load, calibration())
    plain, found = (reference_twin.simulate(c, drawn).done_ns for c in (config, special))
    assert not np.array_equal(plain, found)
    served = found >= 0
    assert (found[served] > drawn.arrivals_ns[served]).all()
    assert served.all() or knob == "default_timeout_ms"


def test_whoever_is_not_served_by_its_deadline_is_refused():
    config = ServingConfig(workers=1, max_batch_size=1, default_timeout_ms=5.0)
    calibrated = Calibration(services=[ServiceTime(batch=1, seconds=1e-3)])
    drawn = scenario(config, Load(rate_rps=2000.0, requests=2000), calibrated)
    latency = (reference_twin.simulate(config, drawn).done_ns - drawn.arrivals_ns) / NS
    served = latency[latency >= 0]
    # It is refused while it waits: a batch committed ahead may be a service time over.
    assert 4e-3 < served.max() <= 7e-3
    assert len(served) == pytest.approx(1000, rel=0.02)


def test_a_worker_committed_ahead_does_not_idle_between_batches():
    config = ServingConfig(workers=1, max_batch_size=1)
    way_s = 1e-3
    for service_s, gap_s in ((2e-3, 0.0), (6e-3, 2 * way_s)):
        calibrated = Calibration(services=[ServiceTime(batch=1, seconds=service_s)], way_s=way_s)
        load = Load(rate_rps=1.0, requests=200)
        for run in both(config, load, calibrated, users=10):
            gaps_s = np.diff(run.done_ns[50:150]) / NS
            assert gaps_s == pytest.approx(service_s + gap_s)


def test_choices_are_those_of_the_policys_own_generator():
    import random

    own = random.Random(0)
    assert fast_twin.choices(100).tolist() == [own.random() for _ in range(100)]


def test_the_cases_above_meet_batches_ahead_refusals_hits_and_joins():
    seen = set()
    for size, users in itertools.product((5, 4096), (0, 7)):
        config = ServingConfig(workers=2, max_batch_size=4, cache_size=7, max_queue_size=size)
        load = Load(rate_rps=20_000.0, requests=300, distinct=100, zipf=0.9)
        run, _ = both(config, load, calibration(), users)
        seen |= {name for name, share in (("hit", run.hits), ("join", run.joined), ("refused", (run.done_ns < 0).sum())) if share}  # fmt: skip
    assert seen == {"hit", "join", "refused"}
