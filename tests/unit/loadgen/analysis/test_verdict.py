from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.analysis.evidence import Evidence
from dlbench.loadgen.analysis.samples import Samples
from dlbench.loadgen.analysis.verdict import judge
from dlbench.loadgen.messages import RunFacts
from dlbench.loadgen.profile import LoadProfile

FINE = Evidence(
    is_open=True,
    steady_rate=True,
    requests=10_000,
    successes=10_000,
    errors={},
    window_s=10.0,
    completed=10_000,
    replies_s=10.0,
    in_flight_start=2,
    in_flight_end=3,
    p50_ms=2.0,
    p99_ms=10.0,
    p99_from_sent_ms=9.9,
    lateness_p99_ms=0.1,
    client_cpu=0.3,
    real_time=False,
    connections=16,
    connections_asked=0,
    exhausted=False,
    silence_s=0.02,
    silence_at_s=4.0,
    expected_in_flight=2.0,
    medians_ms=(2.0, 2.1, 2.0, 1.9, 2.0, 2.1, 2.0, 1.9, 2.0, 2.0),
)
BUSY = {"exhausted": True, "connections": 8, "lateness_p99_ms": 8.0}
PILED = {"in_flight_end": 4000, "least_in_flight": 3000, "completed": 6000}

RISING = tuple(float(x) for x in np.linspace(2, 9, 10))

CASES = [
    ({}, "ok", ""),
    ({"requests": 0, "successes": 0}, "invalid", "no request began"),
    (
        {"successes": 0, "errors": {"connect": 9, "timeout": 1}},
        "invalid",
        r"all .* failed \(9 connect, 1 timeout\)",
    ),
    ({"lateness_p99_ms": 0.45, "p99_ms": 0.5, "p99_from_sent_ms": 0.3}, "ok", ""),
    ({"lateness_p99_ms": 3.0}, "ok", ""),
    ({"lateness_p99_ms": 3.5}, "invalid", "lateness p99 3.5 ms against a latency p99 of 10 ms"),
    ({"p99_from_sent_ms": 8.9}, "invalid", "sent late.*CAP_SYS_NICE"),
    ({"p99_from_sent_ms": 8.9, "real_time": True}, "invalid", "of its core used$"),
    ({"p99_from_sent_ms": 9.1}, "ok", ""),
    # Of connections that were asked for, waiting is the server's doing; being late is still ours.
    ({**BUSY, "connections_asked": 8}, "invalid", "sent late"),
    ({**BUSY, "connections_asked": 8, "lateness_p99_ms": 0.1}, "ok", ""),
    (
        {**BUSY, "connections_asked": 8, "lateness_p99_ms": 0.1, "client_cpu": 0.99},
        "invalid",
        "99% of its core",
    ),
    (
        {**BUSY, **PILED, "connections_asked": 8, "lateness_p99_ms": 0.1},
        "saturated",
        "raise --connections to see whether 8 are the limit",
    ),
    (BUSY, "invalid", "ulimit -n"),
    ({**BUSY, **PILED, "p99_ms": 4000.0}, "saturated", "completed 600/s of the 1,000/s"),
    ({"client_cpu": 0.99, "lateness_p99_ms": 0.3}, "invalid", "99% of its core"),
    ({"client_cpu": 0.99}, "ok", ""),
    ({"client_cpu": 0.99, "is_open": False}, "invalid", "99% of its core"),
    (PILED, "saturated", "4,000 in flight at the end"),
    ({"errors": {"status_503": 800}, "successes": 9200}, "saturated", "800 status_503"),
    ({"errors": {"status_503": 80}, "successes": 9920}, "ok", ""),
    (
        {"medians_ms": RISING, "in_flight": RISING},
        "saturated",
        "kept rising, from a median of 2 ms to 9 ms, with 2 requests in flight at first and 9",
    ),
    # Either alone is no pile: a server that slows down, or longer queues that cost nothing.
    ({"medians_ms": RISING, "in_flight": (3.0,) * 10}, "unsteady", "drifted"),
    ({"in_flight": RISING}, "ok", ""),
    ({"medians_ms": RISING, "in_flight": RISING, "steady_rate": False}, "ok", ""),
    # Latency that grows by a third of the time that passes is a pile, however it is looked at.
    (
        {"medians_ms": RISING, "in_flight": (3.0,) * 10, "slope": 0.32},
        "saturated",
        "does not keep up: .* from a median of 2 ms to 9 ms",
    ),
    ({"slope": 0.32}, "ok", ""),
    # Of few requests the last ones may be many by chance: neither a pile nor surely none.
    ({"in_flight_end": 4000, "least_in_flight": 0}, "ok", ""),
    (
        {"requests": 14, "window_s": 2.5, "in_flight_end": 9},
        "unsteady",
        "too few requests to tell whether the server keeps up: 14 in 2.5 s.* 36 s would be enough",
    ),
    ({"requests": 1, "medians_ms": (2.0,), "least_in_flight": 1}, "ok", ""),
    ({"fills": True}, "unsteady", "first replies came when the measurement .* --warmup"),
    (
        {"is_open": False, "little": (12.8, 16.0), "p50_ms": 4000.0, "p99_ms": 4100.0},
        "unsteady",
        r"12\.8 requests in flight, but there were 16 .* 10 s is too short for replies of 4 s; "
        "measure for 80 s",
    ),
    ({"is_open": False, "little": (15.2, 16.0)}, "ok", ""),
    ({"is_open": False, "errors": {"closed": 800}}, "unsteady", "8.0% of the requests failed"),
    ({"silence_s": 1.0}, "unsteady", "no reply came for 1 s, 4.0 s into"),
    ({"silence_s": 1.0, "completed": 100}, "ok", ""),
    ({"silence_s": 1.0, "p50_ms": 300.0}, "ok", ""),
    ({"medians_ms": (2.0,) * 5 + (2.8,) * 5}, "unsteady", r"drifted by \+40%"),
    ({"medians_ms": (2.0,) * 5 + (2.2,) * 5}, "ok", ""),
    ({"medians_ms": ()}, "ok", ""),
    ({"medians_ms": (2.0,) * 5 + (2.8,) * 5, "steady_rate": False}, "ok", ""),
    ({"silence_s": 1.0, "steady_rate": False}, "ok", ""),
    (
        {"warmup_s": 1.2, "warmup_ms": 9, "settled_ms": 3},
        "unsteady",
        "it needs 2 s more warm-up",
    ),
    ({"warmup_s": 1.2, "warmup_ms": 3.5, "settled_ms": 3}, "ok", ""),
    ({"warmup_s": 1.2, "warmup_ms": 9, "settled_ms": 3, "steady_rate": False}, "ok", ""),
]


@pytest.mark.parametrize(("changes", "verdict", "reason"), CASES)
def test_rules(changes, verdict, reason):
    import re

    found = judge(replace(FINE, **changes))
    assert found[0] == verdict
    assert re.search(reason, found[1])
    assert bool(found[1]) == (verdict != "ok")
    assert "\n" not in found[1]


def simulate(rate, capacity_rps, duration_s=10.0, seed=0, outage=None, late_ns=0, cold=(0, 1)):
    """A single-server queue with fixed service time, driven by a Poisson schedule."""
    rng = np.random.default_rng(seed)
    scheduled = np.sort(rng.uniform(0, duration_s, rng.poisson(rate * duration_s)))
    return served(scheduled, capacity_rps, duration_s, outage, late_ns, cold)


def served(scheduled, capacity_rps, duration_s=10.0, outage=None, late_ns=0, cold=(0, 1)):
    """`cold`: until when (in seconds) how many times the service time is taken."""
    free, done = 0.0, []
    for at in scheduled:
        start = max(at, free)
        if outage and outage[0] <= start < outage[1]:
            start = outage[1]
        free = start + (cold[1] if start < cold[0] else 1) / capacity_rps
        done.append(free)
    ns = (scheduled * 1e9).astype(np.int64)
    ended = (np.array(done) * 1e9).astype(np.int64) + late_ns
    return made(ns, ns + late_ns, ended, (10**9, int(duration_s * 1e9)))


def made(scheduled_ns, sent_ns, done_ns, window_ns):
    nothing = np.zeros_like(scheduled_ns)
    return Samples(
        latency_from="scheduled",
        scheduled_ns=scheduled_ns,
        sent_ns=sent_ns,
        done_ns=done_ns,
        outcome=nothing.astype(np.int16),
        connect_ns=nothing,
        request_class=nothing.astype(np.int8),
        names=("ok",),
        window_ns=window_ns,
    )


STEADY = LoadProfile(rate=1)


def judged(samples, profile=STEADY, cpu=0.2):
    facts = RunFacts(
        complete=True,
        started_at="",
        client_cpu=cpu,
        real_time=False,
        net_mbps=1,
        connections=10,
        exhausted=False,
        drain_s=0,
    )
    return judge(Evidence.of(samples, facts, profile))


def verdict_of(samples, profile=STEADY):
    return judged(samples, profile)[0]


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.8])
def test_a_queue_below_its_capacity_is_ok(share):
    """A chance peak at the start may look like a warm-up, but in one run of twenty at most."""
    found = [verdict_of(simulate(1000 * share, 1000, seed=seed)) for seed in range(40)]
    assert found.count("ok") >= 38
    assert set(found) <= {"ok", "unsteady"}


@given(st.integers(0, 10_000), st.sampled_from([1.15, 1.5, 3.0]))
def test_a_queue_above_its_capacity_is_saturated(seed, share):
    assert verdict_of(simulate(1000 * share, 1000, seed=seed)) == "saturated"


@given(st.integers(0, 10_000))
def test_a_stall_is_unsteady(seed):
    assert verdict_of(simulate(300, 1000, seed=seed, outage=(5.0, 6.0))) == "unsteady"


def test_a_late_client_is_invalid():
    assert verdict_of(simulate(300, 1000, late_ns=20_000_000)) == "invalid"


def test_slow_but_steady_replies_are_not_a_pile():
    """One second of latency at 20/s has 20 in flight: that is Little's law, not saturation."""
    samples = simulate(20, 10_000)
    done = samples.done_ns + 10**9
    slow = made(samples.scheduled_ns, samples.sent_ns, done, (0, samples.window_ns[1]))
    assert verdict_of(slow) == "ok"


@pytest.mark.parametrize("until_s", [1.6, 2.5])
def test_a_warmup_that_reaches_into_the_window_is_named(until_s):
    found = [judged(simulate(300, 1000, seed=seed, cold=(until_s, 2.5))) for seed in range(20)]
    assert sum(v == "unsteady" and "--warmup" in reason for v, reason in found) >= 18
    assert verdict_of(simulate(300, 1000, cold=(0.8, 2.5))) == "ok"


PATTERNS = {
    "ramp": lambda rng: 10 * np.sqrt(rng.uniform(0, 1, 3000)),
    "spike": lambda rng: np.append(rng.uniform(0, 10, 1500), rng.uniform(5, 6, 700)),
    "diurnal": lambda rng: 5 + 2.5 * rng.standard_normal(3000).clip(-1.9, 1.9),
    "steps": lambda rng: np.append(rng.uniform(0, 5, 500), rng.uniform(5, 10, 3500)),
}


@pytest.mark.parametrize("pattern", PATTERNS)
@given(st.integers(0, 10_000))
def test_what_the_load_does_itself_is_not_the_servers_fault(pattern, seed):
    scheduled = np.sort(PATTERNS[pattern](np.random.default_rng(seed)))
    profile = LoadProfile(rate=100, rate_to=500, pattern=pattern)
    assert verdict_of(served(scheduled, 1000), profile) == "ok"


def test_a_trace_is_no_steady_load():
    scheduled = np.sort(PATTERNS["spike"](np.random.default_rng(0)))
    assert verdict_of(served(scheduled, 1000), LoadProfile(trace="arrivals.csv")) == "ok"


@given(st.integers(0, 10_000))
def test_a_slow_pile_is_saturated_before_the_server_falls_behind(seed):
    """Four per cent too much: nothing is missing yet, but more and more is under way."""
    rng = np.random.default_rng(seed)
    scheduled = np.sort(rng.uniform(0, 10, 10_400))
    assert verdict_of(served(scheduled, 1000)) == "saturated"


def arrivals(rng, rate, over_s):
    return np.sort(rng.uniform(0, over_s, rng.poisson(rate * over_s)))


def queued(scheduled, services, beside_s=0.0):
    """When a single server is done, first come first served; `beside_s` is spent outside its queue."""
    free, done = 0.0, []
    for at, service in zip(scheduled, services, strict=True):
        free = max(at, free) + service
        done.append(free + beside_s)
    return np.array(done)


def measured(scheduled, done, warmup_s, duration_s):
    times = [(np.asarray(at) * 1e9).astype(np.int64) for at in (scheduled, done)]
    window = (int(warmup_s * 1e9), int((warmup_s + duration_s) * 1e9))
    return made(times[0], times[0], times[1], window)


# Rate, latency, warm-up, duration: replies longer than the warm-up, than the window, than both.
KEEPING_UP = [
    (4, 4, 0.5, 10),
    (4, 4, 0.5, 5),
    (4, 8, 0.5, 5),
    (4, 30, 1, 10),
    (50, 4, 2, 10),
    (20, 1, 0, 10),
    (1, 5, 1, 20),
    (1000, 2, 0.5, 10),
]


@pytest.mark.parametrize(("rate", "latency_s", "warmup_s", "duration_s"), KEEPING_UP)
@pytest.mark.parametrize("seed", range(5))
def test_a_slow_server_that_keeps_up_has_the_throughput_that_is_offered(
    rate, latency_s, warmup_s, duration_s, seed
):
    rng = np.random.default_rng(seed)
    evenly = (np.arange(int(rate * (warmup_s + duration_s))) + rng.random()) / rate
    took = latency_s * rng.uniform(1, 1.02, len(evenly))
    run = measured(evenly, evenly + took, warmup_s, duration_s)
    assert verdict_of(run) == "ok"
    assert run.throughput_rps == pytest.approx(rate, rel=0.05, abs=2 / run.replies_s)


@pytest.mark.parametrize("seed", range(5))
def test_a_server_with_quick_and_slow_replies_that_keeps_up_is_ok(seed):
    """Half of the replies take 10 ms, half 5 s, and the warm-up is half a second."""
    rng = np.random.default_rng(seed)
    scheduled = arrivals(rng, 100, 10.5)
    run = measured(scheduled, scheduled + rng.choice([0.01, 5.0], len(scheduled)), 0.5, 10)
    assert verdict_of(run) == "ok"
    assert run.throughput_rps == pytest.approx(run.requests / run.window_s, rel=0.15)


# Rate, capacity, warm-up, duration, seconds that each reply takes beside the queue.
OVERLOADED = [
    (15, 11.4, 0.5, 10, 0),
    (15, 11.4, 2, 30, 0),
    (15, 11.4, 0.5, 10, 4),
    (4, 2, 0.5, 10, 4),
    (4, 3, 1, 20, 0),
    (100, 90, 1, 10, 4),
    (1, 0.5, 1, 20, 0),
]


@pytest.mark.parametrize(("rate", "capacity", "warmup_s", "duration_s", "beside_s"), OVERLOADED)
@pytest.mark.parametrize("seed", range(5))
def test_a_slow_server_that_does_not_keep_up_is_saturated_and_its_throughput_is_right(
    rate, capacity, warmup_s, duration_s, beside_s, seed
):
    rng = np.random.default_rng(seed)
    over_s = warmup_s + duration_s
    scheduled = (np.arange(int(rate * over_s)) + rng.uniform(0, 0.9, int(rate * over_s))) / rate
    done = queued(scheduled, np.full(len(scheduled), 1 / capacity), beside_s)
    run = measured(scheduled, done, warmup_s, duration_s)
    verdict, reason = judged(run)
    assert verdict == "saturated", reason
    assert run.throughput_rps == pytest.approx(capacity, rel=0.1)
    assert f"{run.throughput_rps:.3g}/s of the" in reason


def share_of(verdict, rate, load, warmup_s, duration_s, runs=100):
    """Of runs with random arrivals and services (M/M/1) at this share of the capacity."""
    rng, found = np.random.default_rng(0), []
    for _ in range(runs):
        scheduled = arrivals(rng, rate, warmup_s + duration_s)
        services = rng.exponential(load / rate, len(scheduled))
        found.append(
            verdict_of(measured(scheduled, queued(scheduled, services), warmup_s, duration_s))
        )
    return found.count(verdict) / runs


def test_random_arrivals_and_services_hide_an_overload_in_few_runs():
    assert share_of("ok", 15, 15 / 11.4, 1, 10) <= 0.08
    assert share_of("ok", 4, 2, 0.5, 5) <= 0.08


def test_of_a_few_requests_a_chance_peak_is_seldom_saturation():
    assert share_of("saturated", 5.6, 0.7, 0.5, 2.5) <= 0.12
    assert share_of("saturated", 4, 0.7, 0.5, 10) <= 0.08


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_a_short_run_with_enough_requests_is_told(load):
    assert share_of("ok", 100, load, 0.5, 2.5) >= 0.85


def test_a_window_with_few_rounds_of_a_closed_loop_is_too_short():
    """16 users, each reply 4 s: two rounds in ten seconds are 3.2/s, and the truth is 4."""
    sent = np.repeat([0.0, 4.0, 8.0], 16)
    short = replace(measured(sent, sent + 4, 1, 10), latency_from="sent")
    verdict, reason = judged(short, LoadProfile(users=16))
    assert verdict == "unsteady"
    assert "measure for 80 s" in reason
    sent = np.repeat(np.arange(21) * 4.0, 16)
    long = replace(measured(sent, sent + 4, 1, 80), latency_from="sent")
    assert verdict_of(long, LoadProfile(users=16)) == "ok"
    assert long.throughput_rps == pytest.approx(4, rel=0.06)
