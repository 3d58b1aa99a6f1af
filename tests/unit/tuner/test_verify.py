"""From repeats to reported numbers: pooling, choosing by one half, reporting the other."""

import numpy as np
import pytest

from dlbench.tuner.config import StudyConfig
from dlbench.tuner.verify import pool, verified


@pytest.fixture
def repeats_of(build):
    def make(name, throughput, p99_by_repeat, verdicts=None, requests=800):
        found = []
        for number, p99 in enumerate(p99_by_repeat, start=1):
            verdict = (verdicts or {}).get(number, "ok")
            rng = np.random.default_rng(number)
            latencies = (
                rng.exponential(p99 / 4.6, requests) * 1e6
            )  # p99 of an exponential: 4.6 means
            point = build.point(
                name, "verify", 0.7, number, throughput=throughput, p99=p99, verdict=verdict
            )
            found.append((point, latencies.astype(np.int64)))
        return found

    return make


def test_quantiles_come_from_pooled_samples_not_from_a_mean_of_quantiles(build):
    quick, slow = np.full(900, 1_000_000), np.full(100, 100_000_000)
    points = [build.point(phase="verify", repeat=n) for n in (1, 3)]
    pooled = pool([(points[0], quick), (points[1], slow)]).measurement
    assert pooled.p50_ms == 1.0
    assert pooled.p99_ms == 100.0
    assert pooled.p90_ms == 1.0
    assert pooled.requests == 2000


def test_the_reported_half_is_not_the_one_that_chose(repeats_of):
    # Even repeats choose, odd ones are reported: luck in the choosing half must not be shown.
    lucky = repeats_of("c01", 100, [50, 5, 50, 5, 50, 5])
    steady = repeats_of("c02", 100, [20] * 6)
    result = verified({"c01@0.7": lucky, "c02@0.7": steady}, StudyConfig())
    picked = result.recommended
    assert picked is not None
    assert picked.configuration == "c01"
    assert picked.measurement.p99_ms == pytest.approx(50, rel=0.25)


def test_a_point_that_mostly_saturates_in_the_reported_half_does_not_stand(repeats_of):
    fast = repeats_of("c01", 200, [10] * 6, verdicts={1: "saturated", 3: "saturated"})
    sound = repeats_of("c02", 100, [10] * 6)
    result = verified({"c01@0.7": fast, "c02@0.7": sound}, StudyConfig())
    assert [p.configuration for p in result.front] == ["c02"]


def test_repeats_that_the_client_spoiled_are_left_out(repeats_of):
    spoiled = repeats_of("c01", 100, [10] * 6, verdicts={3: "invalid"})
    point = verified({"c01@0.7": spoiled}, StudyConfig()).recommended
    assert point is not None
    assert point.measurement.requests == 2000


def test_nothing_holds(repeats_of):
    bad = repeats_of("c01", 100, [10] * 6, verdicts=dict.fromkeys(range(1, 7), "saturated"))
    result = verified({"c01@0.7": bad}, StudyConfig())
    assert result.recommended is None
    assert result.front == []
    assert result.baseline("c01") is not None


def test_slo_is_met_only_by_the_whole_interval(repeats_of):
    fast = repeats_of("c01", 200, [19] * 6, requests=300)
    slow = repeats_of("c02", 100, [5] * 6)
    repeats = {"c01@0.7": fast, "c02@0.7": slow}
    assert verified(repeats, StudyConfig(slo_p99_ms=20.0)).recommended.configuration == "c02"
    assert verified(repeats, StudyConfig(slo_p99_ms=20.0)).slo == "met"
    assert verified(repeats, StudyConfig(slo_p99_ms=1.0)).slo == "missed"
    assert verified(repeats, StudyConfig(slo_p99_ms=1.0)).recommended is None
    only = verified({"c01@0.7": fast}, StudyConfig(slo_p99_ms=20.0))
    assert only.slo == "undecided"
    assert only.recommended is not None


def test_the_front_holds_no_point_that_another_beats(repeats_of):
    repeats = {
        f"c{n:02d}@0.7": repeats_of(f"c{n:02d}", t, [p] * 6)
        for n, (t, p) in enumerate([(100, 10), (200, 20), (150, 30), (300, 25), (50, 9)])
    }
    front = verified(repeats, StudyConfig()).front
    outcomes = [p.outcome for p in front]
    assert [o.throughput_rps for o in outcomes] == sorted(o.throughput_rps for o in outcomes)
    assert "c02" not in [p.configuration for p in front]


def test_one_saturated_repeat_makes_a_point_unsteady_and_stays_in_its_p99(repeats_of):
    disturbed = repeats_of("c01", 200, [10, 10, 900, 10, 10, 10], verdicts={3: "saturated"})
    point = verified({"c01@0.7": disturbed}, StudyConfig()).recommended
    assert point is not None
    assert point.measurement.verdict == "unsteady"
    assert "1 of 3 repeats" in point.measurement.reason
    assert point.measurement.p99_ms > 100


def test_repeats_give_an_interval_where_correlated_samples_cannot(build):
    # Two long stretches each: one sample says nothing new about its neighbour's p99.
    repeats = []
    for number, slow in ((1, 40), (3, 50), (5, 60)):
        latencies = np.concatenate([np.full(700, 5_000_000), np.full(100, slow * 1_000_000)])
        repeats.append((build.point("c01", "verify", 0.7, number), latencies))
    pooled = pool(repeats).measurement
    assert pooled.p99_low_ms is not None
    assert pooled.p99_low_ms < 40 < 60 < pooled.p99_high_ms
