"""Progress of a load that several processes share, and their samples put together."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dlbench.loadgen.analysis.samples import Samples
from dlbench.loadgen.locust.rounds import Report, Rounds, merged
from dlbench.loadgen.messages import Progress
from dlbench.loadgen.schedule.schedule import Share

times_ns = arrays(np.int64, st.integers(1, 50), elements=st.integers(0, 10**10))


def report(times=(), **changes):
    numbers = {
        "elapsed_s": 1.0,
        "requests": 10,
        "rate_rps": 5.0,
        "p50_ms": None,
        "p99_ms": None,
        "errors": 1,
        "lateness_p99_ms": 0.1,
        "in_flight": 2,
        "warming_up": False,
    }
    values = np.array(times, np.float64) / 1e6
    return Report(Progress(**{**numbers, **changes}), values, values)


def test_counts_and_rates_add_up():
    found = merged([report(), report(elapsed_s=1.2, warming_up=True)])
    assert (found.requests, found.rate_rps, found.errors, found.in_flight) == (20, 10.0, 2, 4)
    assert found.elapsed_s == 1.2
    assert found.warming_up
    assert found.p99_ms is None


@given(st.lists(times_ns, min_size=1, max_size=4))
def test_quantiles_are_those_of_all_times_together(parts):
    found = merged([report(part) for part in parts])
    together = np.concatenate(parts) / 1e6
    np.testing.assert_allclose(
        [found.p50_ms, found.p99_ms, found.lateness_p99_ms],
        np.quantile(together, [0.5, 0.99, 0.99], method="inverted_cdf"),
    )


def test_a_closed_loop_has_no_lateness():
    assert merged([report([1], lateness_p99_ms=None)]).lateness_p99_ms is None


def test_a_round_ends_when_everyone_has_spoken():
    rounds = Rounds(2)
    assert rounds.add("a", report()) is None
    assert rounds.add("b", report()).requests == 20
    assert rounds.add("b", report()) is None


def test_who_is_silent_does_not_silence_the_others():
    rounds = Rounds(2)
    rounds.add("a", report(requests=1))
    assert rounds.add("a", report(requests=2)).requests == 1
    assert rounds.add("b", report(requests=3)).requests == 5


def test_what_the_silent_have_done_still_counts():
    rounds = Rounds(2)
    rounds.add("a", report(requests=10, errors=1))
    assert rounds.add("b", report(requests=10, errors=2)).requests == 20
    rounds.add("a", report(requests=15, errors=1))
    found = rounds.add("a", report(requests=20))
    assert (found.requests, found.errors, found.rate_rps) == (25, 3, 5.0)


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=60),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_merged_samples_have_the_quantiles_of_all_requests(scheduled, of, random):
    """However a load was shared out, its record is the one that a single process would have."""
    scheduled = np.sort(np.array(scheduled, np.int64))
    latency = np.array([random.randrange(10**8) for _ in scheduled], np.int64)
    whole = samples(scheduled, latency)
    parts = []
    for index in range(of):
        numbers = Share(index, of).numbers(len(range(index, len(scheduled), of)))
        parts.append(samples(scheduled[numbers], latency[numbers]))
    found = Samples.merged(parts)
    assert np.array_equal(found.scheduled_ns, whole.scheduled_ns)
    assert np.array_equal(np.sort(found.latencies_ns), np.sort(whole.latencies_ns))
    assert found.requests == whole.requests


def samples(scheduled, latency):
    zeros = np.zeros(len(scheduled), np.int64)
    return Samples(
        "scheduled",
        scheduled,
        scheduled,
        scheduled + latency,
        zeros.astype(np.int16),
        zeros,
        zeros.astype(np.int8),
        ("ok",),
        (0, 2 * 10**9),
    )
