"""Little's law: what agrees is left alone, what is off by half is found."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.analysis.samples import Samples
from dlbench.tuner.targets.littles_law import Held, flow, in_window, violation

MS = 1_000_000
S = 1000 * MS


def samples(sent_ns, done_ns, window_ns, latency_from="scheduled"):
    sent, done = np.array(sent_ns, np.int64), np.array(done_ns, np.int64)
    zero = np.zeros(len(sent), np.int64)
    names = ("ok", "timeout")
    return Samples(
        latency_from, sent, sent, done, zero.astype(np.int16), zero, zero.astype(np.int8), names,
        window_ns,
    )  # fmt: skip


def closed(users, latency_ms, stated_ms=None, seconds=2):
    """A closed loop; `stated_ms` is what its client says of each latency."""
    starts = np.arange(0, seconds * 1000 * MS, latency_ms * MS)
    sent = np.sort(np.tile(starts, users))
    done = sent + int((stated_ms or latency_ms) * MS)
    return samples(sent, done, (int(0.2 * S), seconds * S), "sent")


def opened(rate, latency_ms, seconds=2):
    sent = np.arange(0, seconds * S, S // rate)
    return samples(sent, sent + int(latency_ms * MS), (int(0.2 * S), seconds * S))


def held(run, server_ms, hits=0, front_cpu_s=0.1):
    return Held(len(run.sent_ns) * server_ms / 1000, front_cpu_s, hits)


def verdict(run, users, kept, *, calm=True):
    return violation(flow(run, users, kept, calm=calm))


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 900)), min_size=1, max_size=60),
    st.data(),
)
def test_the_number_in_flight_is_the_one_that_is_counted(requests, data):
    """Integrated, against looking at every instant."""
    start = data.draw(st.integers(0, 4000))
    end = data.draw(st.integers(start + 1, 6000))
    sent = [began for began, _ in requests]
    done = [began + lasted for began, lasted in requests]
    looks = np.arange(start, end)
    counted = sum(((looks >= a) & (looks < b)).sum() for a, b in zip(sent, done, strict=True))
    run = samples(sent, done, (start, end))
    assert in_window(run) == pytest.approx(counted / (end - start))


def test_rate_times_latency_is_the_number_in_flight():
    run = opened(200, 10)
    found = flow(run, 0, held(run, 8), calm=True)
    assert found.client == pytest.approx(200 * 0.010, rel=0.02)
    assert found.server == pytest.approx(200 * 0.008, rel=0.02)
    assert found.completed_rps == pytest.approx(200, rel=0.02)


@pytest.mark.parametrize("users", [1, 8, 300])
def test_a_closed_loop_has_its_users_in_flight(users):
    run = closed(users, 20)
    assert verdict(run, users, held(run, 15)) == ""


@pytest.mark.parametrize("users", [1, 8, 300])
@pytest.mark.parametrize(("factor", "said"), [(1.5, "wrong"), (1 / 1.5, "wrong")])
def test_a_closed_loop_whose_latencies_are_off_by_half_is_found(users, factor, said):
    """Even where the server's own gauge sees next to nothing, as with cache hits."""
    run = closed(users, 20, 20 * factor)
    assert said in verdict(run, users, held(run, 0.1, hits=10))


def test_latencies_shorter_than_the_server_s_are_found():
    run = opened(200, 20 / 1.5)
    assert "too short" in verdict(run, 0, held(run, 18))
    assert "too short" in verdict(run, 0, held(run, 18), calm=False)


def test_latencies_that_nothing_explains_are_found():
    run = opened(200, 20 * 1.5)
    assert "too long" in verdict(run, 0, held(run, 18))


@pytest.mark.parametrize(
    ("kept", "calm"),
    [({"hits": 5}, True), ({"front_cpu_s": 1.5}, True), ({}, False)],
)
def test_a_front_that_may_let_requests_wait_explains_them(kept, calm):
    run = opened(200, 30)
    assert verdict(run, 0, held(run, 5, **kept), calm=calm) == ""


@pytest.mark.parametrize("outside_ms", [0.1, 0.8, 2.0])
def test_what_a_busy_machine_adds_is_no_contradiction(outside_ms):
    for server_ms in (0.1, 1, 10, 100):
        run = opened(100, server_ms + outside_ms)
        assert verdict(run, 0, held(run, server_ms)) == ""


def test_with_failures_nothing_is_said():
    run = opened(200, 10)
    outcome = run.outcome.copy()
    outcome[::50] = 1
    assert verdict(replace(run, outcome=outcome), 0, held(run, 100)) == ""
