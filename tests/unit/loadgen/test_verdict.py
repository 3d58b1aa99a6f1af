from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.evidence import Evidence
from dlbench.loadgen.messages import Facts
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.samples import Samples
from dlbench.loadgen.verdict import judge

FINE = Evidence(
    is_open=True,
    requests=10_000,
    successes=10_000,
    errors={},
    window_s=10.0,
    completed=10_000,
    in_flight_start=2,
    in_flight_end=3,
    p10_ms=1.0,
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
    medians_ms=(2.0, 2.1, 2.0, 1.9, 2.0, 2.1, 2.0, 1.9, 2.0, 2.0),
)
BUSY = {"exhausted": True, "connections": 8, "lateness_p99_ms": 8.0}
PILED = {"in_flight_end": 4000, "completed": 6000}

CASES = [
    ({}, "ok", ""),
    ({"requests": 0, "successes": 0}, "invalid", "no request began"),
    (
        {"successes": 0, "errors": {"connect": 9, "timeout": 1}},
        "invalid",
        r"every one .* failed \(9 connect, 1 timeout\)",
    ),
    ({"lateness_p99_ms": 0.45, "p99_ms": 0.5, "p99_from_sent_ms": 0.3}, "ok", ""),
    ({"lateness_p99_ms": 3.0}, "ok", ""),
    ({"lateness_p99_ms": 3.5}, "invalid", "lateness p99 3.5 ms against a latency p99 of 10 ms"),
    ({"p99_from_sent_ms": 8.9}, "invalid", "sent late.*CAP_SYS_NICE"),
    ({"p99_from_sent_ms": 8.9, "real_time": True}, "invalid", "of its core used$"),
    ({"p99_from_sent_ms": 9.1}, "ok", ""),
    ({**BUSY, "connections_asked": 8}, "invalid", "raise --connections"),
    (BUSY, "invalid", "ulimit -n"),
    ({**BUSY, **PILED, "p99_ms": 4000.0}, "saturated", "completed 600/s of the 1,000/s"),
    ({"client_cpu": 0.99, "lateness_p99_ms": 0.3}, "invalid", "99% of its core"),
    ({"client_cpu": 0.99}, "ok", ""),
    ({"client_cpu": 0.99, "is_open": False}, "invalid", "99% of its core"),
    (PILED, "saturated", "4,000 in flight at the end"),
    ({"errors": {"status_503": 800}, "successes": 9200}, "saturated", "800 status_503"),
    ({"errors": {"status_503": 80}, "successes": 9920}, "ok", ""),
    ({"medians_ms": tuple(np.linspace(2, 9, 10))}, "saturated", "kept rising, from 2 to 9 ms"),
    ({"is_open": False, "errors": {"closed": 800}}, "unsteady", "8.0% of the requests failed"),
    ({"silence_s": 1.0}, "unsteady", "no reply came for 1 s, 4.0 s into"),
    ({"silence_s": 1.0, "completed": 100}, "ok", ""),
    ({"silence_s": 1.0, "p50_ms": 300.0}, "ok", ""),
    ({"medians_ms": (2.0,) * 5 + (2.8,) * 5}, "unsteady", r"drifted by \+40%"),
    ({"medians_ms": (2.0,) * 5 + (2.2,) * 5}, "ok", ""),
    ({"medians_ms": ()}, "ok", ""),
]


@pytest.mark.parametrize(("changes", "verdict", "reason"), CASES)
def test_rules(changes, verdict, reason):
    import re

    found = judge(replace(FINE, **changes))
    assert found[0] == verdict
    assert re.search(reason, found[1])
    assert bool(found[1]) == (verdict != "ok")
    assert "\n" not in found[1]


def simulate(rate, capacity_rps, duration_s=10.0, seed=0, outage=None, late_ns=0):
    """A single-server queue with fixed service time, driven by a Poisson schedule."""
    rng = np.random.default_rng(seed)
    scheduled = np.sort(rng.uniform(0, duration_s, rng.poisson(rate * duration_s)))
    free, done = 0.0, []
    for at in scheduled:
        start = max(at, free)
        if outage and outage[0] <= start < outage[1]:
            start = outage[1]
        free = start + 1 / capacity_rps
        done.append(free)
    ns = (scheduled * 1e9).astype(np.int64)
    ended = (np.array(done) * 1e9).astype(np.int64) + late_ns
    outcome = np.zeros(len(ns), np.int16)
    window = (10**9, int(duration_s * 1e9))
    return Samples("scheduled", ns, ns + late_ns, ended, outcome, ("ok",), window)


def verdict_of(samples, cpu=0.2):
    facts = Facts(
        complete=True,
        started_at="",
        client_cpu=cpu,
        real_time=False,
        net_mbps=1,
        connections=10,
        exhausted=False,
        drain_s=0,
    )
    return judge(Evidence.of(samples, facts, LoadProfile(rate=1)))[0]


@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.4, 0.6]))
def test_a_queue_below_its_capacity_is_ok(seed, share):
    assert verdict_of(simulate(1000 * share, 1000, seed=seed)) == "ok"


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
    slow = Samples(
        "scheduled",
        samples.scheduled_ns,
        samples.sent_ns,
        samples.done_ns + 10**9,
        samples.outcome,
        samples.names,
        (0, samples.window_ns[1]),
    )
    assert verdict_of(slow) == "ok"
