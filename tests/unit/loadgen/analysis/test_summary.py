"""From samples to figures, where some requests failed."""

import csv
import json
import math

import numpy as np
import pytest

from dlbench.cli.commands.load import _append
from dlbench.loadgen.analysis.samples import Samples
from dlbench.loadgen.analysis.summary import summarise
from dlbench.loadgen.measurement import Measurement
from dlbench.loadgen.messages import RunFacts
from dlbench.loadgen.profile import LoadProfile, RequestClass

MS = 1_000_000
FACTS = RunFacts(
    complete=True,
    started_at="2026-01-01T00:00:00Z",
    client_cpu=0.1,
    net_mbps=1.0,
    real_time=True,
    connections=1,
    exhausted=False,
    drain_s=0.0,
)


def run(failed=0, failed_ms=1000.0, requests=2000, seed=0, classes=1):
    """Exponential latencies of 20 ms in the mean at 100/s; `failed` of them end after `failed_ms`."""
    rng = np.random.default_rng(seed)
    begun = np.arange(requests) * 10 * MS
    took = (rng.exponential(20, requests) * MS).astype(np.int64)
    outcome = np.zeros(requests, np.int16)
    chosen = rng.choice(requests, failed, replace=False)
    outcome[chosen], took[chosen] = 1, int(failed_ms * MS)
    return Samples(
        latency_from="scheduled",
        scheduled_ns=begun,
        sent_ns=begun,
        done_ns=begun + took,
        outcome=outcome,
        connect_ns=np.zeros(requests, np.int64),
        request_class=(np.arange(requests) % classes).astype(np.int8),
        names=("ok", "timeout"),
        window_ns=(0, requests * 10 * MS),
    )


def measured(profile=LoadProfile(rate=100), **how):  # noqa: B008 - frozen
    return summarise(run(**how), FACTS, profile)


@pytest.mark.parametrize("failed_ms", [1000.3, 1.0])
def test_a_quantile_among_failed_requests_is_infinite_however_fast_they_failed(failed_ms):
    found = measured(failed=48, failed_ms=failed_ms)  # 2.4 %
    assert found.p99_ms == found.p99_high_ms == found.p999_ms == math.inf
    assert math.isfinite(found.p95_ms)
    assert found.longest_ms == pytest.approx(max(failed_ms, run(failed=48).latencies_ns.max() / MS))


def test_failures_push_the_lower_quantiles_up_as_well():
    # The p95 of all is the 97.3rd percentile of those that were answered.
    found, samples = measured(failed=48), run(failed=48)
    answered = np.sort(samples.latencies_ns) / MS
    assert found.p95_ms == answered[1900 - 1] > np.quantile(answered, 0.95)


def test_the_upper_end_of_an_interval_is_infinite_where_it_falls_among_failures():
    found = measured(failed=18)  # 0.9 %: the p99 is finite, what it could be is not
    assert math.isfinite(found.p99_ms)
    assert found.p99_low_ms < found.p99_ms < found.p99_high_ms == math.inf
    assert math.isfinite(found.p90_high_ms)


def test_where_nothing_failed_nothing_is_infinite():
    found = measured()
    assert found.p99_low_ms < found.p99_ms < found.p99_high_ms < math.inf


def test_where_everything_failed_everything_is_infinite():
    found = measured(failed=2000)
    assert found.p50_ms == found.p50_low_ms == found.p50_high_ms == math.inf
    assert found.mean_ms is None
    assert found.longest_ms == 1000


def test_classes_count_their_own_failures():
    profile = LoadProfile(rate=100, request_class={"a": RequestClass(), "b": RequestClass()})
    samples = run(failed=0, classes=2)
    samples.outcome[::40] = 1  # all of class a: 5 % of it
    found = summarise(samples, FACTS, profile).classes
    assert found["a"].p99_ms == found["a"].p99_high_ms == math.inf
    assert math.isfinite(found["b"].p99_ms)


def test_json_and_csv_give_infinity_back(tmp_path):
    found = measured(failed=48)
    text = found.model_dump_json()
    assert json.loads(text, parse_constant=pytest.fail)["p99_ms"] == "Infinity"
    assert Measurement.model_validate_json(text) == found
    _append(tmp_path / "a.csv", found)
    (row,) = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    assert float(row["p99_ms"]) == float(row["p99_high_ms"]) == math.inf
    assert float(row["longest_ms"]) == pytest.approx(1000)
    assert row["server_queue_ms"] == ""  # not measured
