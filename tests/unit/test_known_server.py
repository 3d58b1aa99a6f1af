"""The benchmarks' server of known latency: its analytic quantiles against large samples."""

import json
import subprocess
import sys
from itertools import islice

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.generator import known_server
from benchmarks.generator.known_server import KNOWN, Known, Stall

SAMPLES = 400_000
MS = 1e6
SHARES = (0.1, 0.5, 0.9, 0.97, 0.99, 0.995)


def latencies_ms(known, seed):
    """What an ideal client would measure, arrivals spread evenly over whole periods of the stall."""
    delays = np.fromiter(islice(known_server.delays_ns(known.delay, seed), SAMPLES), np.int64)
    if known.stall is None:
        return delays / MS
    span_ns = 100 * int(known.stall.every_s * 1e9)
    arrivals = np.random.default_rng(seed + 1).integers(0, span_ns, SAMPLES)
    leaves = [known.stall.released_ns(int(due), 0) for due in arrivals + delays]
    return (np.array(leaves) - arrivals) / MS


@pytest.mark.parametrize("name", KNOWN)
def test_the_quantiles_are_those_of_a_large_sample(name):
    """The share of the samples below the quantile, within five standard errors of it."""
    known = KNOWN[name]
    samples = latencies_ms(known, seed=7)
    for share in SHARES:
        slack = 5 * np.sqrt(share * (1 - share) / SAMPLES)
        bound = known.quantile(share)
        assert np.mean(samples <= bound + 1e-4) >= share - slack, share
        assert np.mean(samples < bound - 1e-4) <= share + slack, share


def test_known_values():
    # P[T > t] = (5/t)^2 = 0.01; 5 % of the requests between 60 and 100 ms; e^(0.6 * 2.3263) * 20.
    assert KNOWN["pareto"].quantile(0.99) == pytest.approx(50)
    assert KNOWN["bimodal"].quantile(0.99) == pytest.approx(92)
    assert KNOWN["lognormal"].quantile(0.99) == pytest.approx(80.77, abs=0.01)
    # A tenth waits 0 to 1 s, so one in a hundred longer than 0.9 s.
    assert KNOWN["long stall"].quantile(0.99) == pytest.approx(902)


@given(st.floats(0, 0.8), st.floats(0.905, 0.999))
def test_a_stall_that_takes_time_to_drain_has_a_closed_form(busy, q):
    """Delay + stall - share of the period that is longer, stretched by the drain."""
    stall, delay_ms = Stall(every_s=10.0, for_s=1.0), 2.0
    known = Known("", known_server.constant(delay_ms), stall)
    wanted = delay_ms + 1000 * (stall.for_s - (1 - q) * stall.every_s * (1 - busy))
    assert known.quantile(q, busy) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("busy", [0.0, 0.3, 0.7])
def test_the_drain_is_that_of_a_queue(busy):
    """First come, first served: the queue behind a server that stands still, step by step."""
    stall, rate, periods = Stall(every_s=10.0, for_s=1.0), 500, 40
    arrivals = np.arange(rate * 10 * periods) / rate + 1e-7
    service = busy / rate
    waits, free_at = np.empty(len(arrivals)), 0.0
    for number, at in enumerate(arrivals):
        held = at + 10 - at % 10 if at % 10 >= 9 else at
        begins = max(held, free_at)
        free_at = begins + service
        waits[number] = begins - at
    for q in (0.95, 0.99, 0.995):
        wanted = Known("", known_server.constant(0.0), stall).quantile(q, busy)
        assert np.quantile(waits, q) * 1000 == pytest.approx(wanted, abs=6)


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_nothing_leaves_during_a_stall_and_nothing_early(due_ns, start_ns):
    stall = Stall(every_s=1.0, for_s=0.1)
    leaves_ns = stall.released_ns(start_ns + due_ns, start_ns)
    assert 0 <= leaves_ns - start_ns - due_ns <= 100_000_000
    into_period = (leaves_ns - start_ns) % 1_000_000_000
    assert into_period < 900_000_000


def test_delays_are_seeded():
    draws = [list(islice(known_server.delays_ns(KNOWN["pareto"].delay, n), 50)) for n in (1, 1, 2)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_a_drain_is_timed_burst_by_burst():
    timing = known_server.Timing.of([1_000_000], [100, 200, 300, 100, 200])
    assert timing.replies == 6
    assert timing.late_max_ms == 1
    assert timing.drained_rps == pytest.approx(5 / 500e-9)


def test_it_answers_as_a_v2_server_and_never_early():
    command = [sys.executable, known_server.__file__, "constant", "3"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        url = json.loads(process.stdout.readline())["url"]
        with httpx.Client(base_url=url) as client:
            assert client.get("/v2/models/null").json()["inputs"] == known_server.INPUTS
            replies = [client.post("/v2/models/null/infer", json={}) for _ in range(20)]
        process.stdin.close()
        timing = json.loads(process.stdout.readline())
    assert process.returncode == 0
    assert {reply.status_code for reply in replies} == {200}
    assert min(reply.elapsed.total_seconds() for reply in replies) >= 0.002
    assert timing["replies"] == 21
    assert 0 < timing["late_p50_ms"] <= timing["late_max_ms"]
