"""What is counted, against plain lists of everything that happened."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.telemetry.stats import (
    BUCKETS,
    EXACT_ROWS,
    Histogram,
    ModelStats,
    lower_bound_ns,
    quantile,
)

TIMES = st.integers(0, 1 << 45)


@given(TIMES)
def test_a_time_is_counted_in_the_bucket_whose_bounds_hold_it(ns):
    histogram = Histogram()
    histogram.add(ns)
    bucket = histogram.counts.index(1)
    assert sum(histogram.counts) == 1
    assert lower_bound_ns(bucket) <= ns
    assert bucket == BUCKETS or ns < lower_bound_ns(bucket + 1)


def test_the_buckets_follow_each_other_and_none_is_wider_than_a_quarter_of_its_bound():
    bounds = [lower_bound_ns(bucket) for bucket in range(BUCKETS + 1)]
    for low, high in pairwise(bounds):
        assert low < high
        assert high - low <= max(1, low / 4)


@given(st.lists(TIMES, max_size=30), st.lists(TIMES, min_size=1, max_size=60), st.floats(0.01, 1))
def test_a_quantile_of_the_last_window_lies_in_the_bucket_of_the_exact_one(before, window, q):
    histogram = Histogram()
    for ns in before:
        histogram.add(ns)
    since = histogram.snapshot()
    for ns in window:
        histogram.add(ns)
    exact = sorted(window)[max(0, math.ceil(q * len(window)) - 1)]
    found = quantile(q, histogram.counts, since)
    held = Histogram()
    held.add(exact)
    bucket = held.counts.index(1)
    assert lower_bound_ns(bucket) <= found
    assert found <= lower_bound_ns(min(bucket + 1, BUCKETS))


def test_a_window_without_requests_has_no_quantile():
    stats = ModelStats()
    assert stats.latency_quantile(0.99) is None
    stats.succeeded(5_000_000)
    since = stats.latency.snapshot()
    assert stats.latency_quantile(0.99, since) is None
    assert stats.latency_quantile(0.99) == pytest.approx(5_000_000, rel=0.25)


def test_a_batch_counts_its_time_once_per_request_in_the_statistics_and_once_in_the_batch_table():
    stats = ModelStats(wall_s=lambda: 1_700_000_000.25)
    for _ in range(3):
        stats.received()
    stats.batch_sent(4, [100, 200, 300])
    stats.batch_done(3, 4, input_ns=10, compute_ns=1000, output_ns=1)
    for latency in (1200, 1300, 1400):
        stats.succeeded(latency)
    assert stats.triton("mlp", "1") == {
        "name": "mlp",
        "version": "1",
        "last_inference": 1_700_000_000_250,
        "inference_count": 4,
        "execution_count": 1,
        "inference_stats": {
            "success": {"count": 3, "ns": 3900},
            "fail": {"count": 0, "ns": 0},
            "queue": {"count": 3, "ns": 600},
            "compute_input": {"count": 3, "ns": 30},
            "compute_infer": {"count": 3, "ns": 3000},
            "compute_output": {"count": 3, "ns": 3},
            "cache_hit": {"count": 0, "ns": 0},
            "cache_miss": {"count": 0, "ns": 0},
        },
        "batch_stats": [
            {
                "batch_size": 4,
                "compute_input": {"count": 1, "ns": 10},
                "compute_infer": {"count": 1, "ns": 1000},
                "compute_output": {"count": 1, "ns": 1},
            }
        ],
    }


def test_cache_hits_are_successes_and_no_inferences():
    stats = ModelStats(wall_s=lambda: 7.0)
    stats.received()
    stats.cache_hit(900)
    stats.succeeded(1500)
    entry = stats.triton("mlp", "1")
    assert (entry["inference_count"], entry["execution_count"]) == (0, 0)
    assert entry["last_inference"] == 7000
    assert entry["inference_stats"]["success"] == {"count": 1, "ns": 1500}
    assert entry["inference_stats"]["cache_hit"] == {"count": 1, "ns": 900}
    assert entry["inference_stats"]["queue"] == {"count": 1, "ns": 0}
    assert entry["inference_stats"]["compute_infer"] == {"count": 0, "ns": 0}


# Each kind of request, in the calls that the dispatcher makes for it.
LIVES = {
    "hit": lambda s: (s.cache_hit(5), s.succeeded(9)),
    "joined": lambda s: (s.joined(), s.succeeded(70)),
    "alone": lambda s: (
        s.cache_miss(5),
        s.batch_sent(2, [20]),
        s.batch_done(1, 2, 1, 40, 1),
        s.succeeded(80),
    ),
    "lost": lambda s: (s.cache_miss(5), s.batch_sent(2, [20]), s.failed(90, 500)),
    "late": lambda s: (s.cache_miss(5), s.failed(60, 504)),
    "full": lambda s: (s.cache_miss(5), s.refused(503)),
}


@given(st.lists(st.sampled_from(list(LIVES)), max_size=40))
def test_the_sums_fit_whatever_happens(lives):
    stats = ModelStats()
    for life in lives:
        stats.received()
        LIVES[life](stats)
    entry = stats.triton("mlp", "1")["inference_stats"]
    assert stats.requests == stats.successes + stats.errors == len(lives)
    assert (
        entry["success"]["count"] == entry["compute_infer"]["count"] + entry["cache_hit"]["count"]
    )
    assert entry["cache_hit"]["count"] == lives.count("hit") + lives.count("joined")
    assert stats.statuses.get(503, 0) == lives.count("full")
    assert stats.counters()["errors"] == sum(lives.count(x) for x in ("lost", "late", "full"))
    assert stats.counters()["rows"] == 2 * (lives.count("alone") + lives.count("lost"))


def test_the_batch_table_stays_bounded_whatever_sizes_come():
    stats = ModelStats()
    for rows in range(1, 3 * EXACT_ROWS):
        stats.batch_done(1, rows, 0, 1, 0)
    assert len(stats.batch_table) == EXACT_ROWS + 2
    assert stats.batch_table[2 * EXACT_ROWS][0] == EXACT_ROWS
    assert stats.inferences == sum(range(1, 3 * EXACT_ROWS))


def test_the_entry_has_the_fields_of_the_published_message_and_no_others():
    service = pytest.importorskip("tritonclient.grpc.service_pb2")
    json_format = pytest.importorskip("google.protobuf.json_format")
    stats = ModelStats()
    for life in LIVES.values():
        life(stats)
    entry = stats.triton("mlp", "1")
    message = json_format.ParseDict(entry, service.ModelStatistics())
    assert message.inference_stats.cache_miss.count == stats.cache_misses
    assert message.batch_stats[0].compute_infer.ns == 40
    assert message.last_inference > 1_600_000_000_000
