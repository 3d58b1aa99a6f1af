"""From repeats to reported numbers: pooling, choosing by one half, reporting the other."""

import json

import numpy as np
import pytest

from dlbench.tuner.study_config import StudyConfig
from dlbench.tuner.verify.pool import pool
from dlbench.tuner.verify.verification import Verified, verified
from testbed import made


def repeats_of(name, rate, p99_by_repeat, verdicts=(), requests=800, **figures):
    found = []
    for number, p99 in enumerate(p99_by_repeat, start=1):
        figures |= {"rate": rate, "p99": p99, "verdict": dict(verdicts).get(number, "ok")}
        rng = np.random.default_rng(number)
        latencies_ms = rng.exponential(p99 / 4.6, requests)  # p99 of an exponential: 4.6 means
        found.append((made.point(name, "verify", 0.7, number, **figures), latencies_ms))
    return found


def test_the_reported_half_is_not_the_one_that_chose():
    # Even repeats choose, odd ones are reported: luck in the choosing half must not be shown.
    lucky = repeats_of("c01", 100, [50, 5, 50, 5, 50, 5])
    steady = repeats_of("c02", 90, [20] * 6)
    result = verified({"c01@0.7": lucky, "c02@0.7": steady}, StudyConfig())
    picked = result.recommended
    assert picked is not None
    assert picked.configuration == "c01"
    assert picked.measurement.p99_ms == pytest.approx(50, rel=0.25)


@pytest.mark.parametrize("name", ["default", "c02"])
def test_what_another_row_surely_beats_is_not_recommended(name):
    """Chosen for the luck of its even repeats; the odd ones show the other to be better in both."""
    lucky = repeats_of("c01", 100, [90, 5, 90, 5, 90, 5])
    better = repeats_of(name, 110, [10] * 6)
    kept = {"c01@0.7": lucky, f"{name}@0.7": better}
    result = verified(kept, StudyConfig(recommend="min-p99"))
    assert [p.configuration for p in result.front] == [name]
    assert result.recommended.configuration == name


def test_a_point_that_mostly_saturates_in_the_reported_half_does_not_stand():
    fast = repeats_of("c01", 200, [10] * 6, verdicts={1: "saturated", 3: "saturated"})
    sound = repeats_of("c02", 100, [10] * 6)
    result = verified({"c01@0.7": fast, "c02@0.7": sound}, StudyConfig())
    assert [p.configuration for p in result.front] == ["c02"]


def test_repeats_that_the_client_spoiled_are_left_out():
    spoiled = repeats_of("c01", 100, [10] * 6, verdicts={3: "invalid"})
    point = verified({"c01@0.7": spoiled}, StudyConfig()).recommended
    assert point is not None
    assert point.measurement.requests == 2000


def test_nothing_holds():
    bad = repeats_of("c01", 100, [10] * 6, verdicts=dict.fromkeys(range(1, 7), "saturated"))
    result = verified({"c01@0.7": bad}, StudyConfig())
    assert result.recommended is None
    assert result.front == []
    assert result.baseline("c01") is not None


@pytest.mark.parametrize(("priorities", "chosen"), [({1: 1.0}, "c02"), ({8: 1.0}, "c01")])
def test_whose_requests_may_take_long_is_served_in_larger_batches(priorities, chosen):
    batched = repeats_of("c01", 200, [20] * 6, server_compute_ms=8.0, server_queue_ms=3.0)
    prompt = repeats_of("c02", 100, [10] * 6, server_compute_ms=1.0, server_queue_ms=9.0)
    repeats = {"c01@0.7": batched, "c02@0.7": prompt}
    found = verified(repeats, StudyConfig(recommend="weighted"), priorities=priorities)
    assert found.recommended.configuration == chosen


def test_a_default_that_does_more_than_its_probe_said_is_recommended():
    knee, beyond = repeats_of("default", 100, [15] * 6), repeats_of("default", 200, [10] * 6)
    beyond = [(p.model_copy(update={"share": 1.4}), own) for p, own in beyond]
    other = repeats_of("c01", 200, [40] * 6)
    repeats = {"default@1.4": beyond, "c01@0.7": other, "default@0.7": knee}
    result = verified(repeats, StudyConfig())
    assert result.recommended.name == "default@1.4"
    assert result.baseline("default").name == "default@0.7"


def test_slo_is_met_only_by_the_whole_interval():
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


def test_the_front_holds_no_point_that_another_beats():
    repeats = {
        f"c{n:02d}@0.7": repeats_of(f"c{n:02d}", t, [p] * 6)
        for n, (t, p) in enumerate([(100, 10), (200, 20), (150, 30), (300, 25), (50, 9)])
    }
    front = verified(repeats, StudyConfig()).front
    outcomes = [p.outcome for p in front]
    assert [o.throughput_rps for o in outcomes] == sorted(o.throughput_rps for o in outcomes)
    assert "c02" not in [p.configuration for p in front]


def test_one_saturated_repeat_makes_a_point_unsteady_and_stays_in_its_p99():
    disturbed = repeats_of("c01", 200, [10, 10, 900, 10, 10, 10], verdicts={3: "saturated"})
    point = verified({"c01@0.7": disturbed}, StudyConfig()).recommended
    assert point is not None
    assert point.measurement.verdict == "unsteady"
    assert "1 of 3 repeats" in point.measurement.reason
    assert point.measurement.p99_ms > 100


@pytest.fixture
def twin():
    return made.predictions(made.space())


@pytest.fixture
def study(twin):
    """A probe and curve of some configurations as predicted, and repeats at one load."""

    def make(rows, share=0.5, p99_by_repeat=(), **changes):
        points, repeats = [], {}
        for row in rows:
            config, name = twin.configs[row], f"c{row}"
            capacity = float(twin.capacity_rps[row])
            points += made.curve(twin, row)
            usual = [float(twin.p99_ms[row, made.SHARES.index(share)])] * 6
            own = repeats_of(name, share * capacity, p99_by_repeat or usual, **changes)
            own = [(p.model_copy(update={"config": config, "share": share}), s) for p, s in own]
            points += [p for p, _ in own]
            repeats[f"{name}@{share:g}"] = own
        return repeats, points

    return make


def test_luck_does_not_choose_where_there_are_predictions(twin, study):
    """Twice the batch, and by chance the shorter tail in the half that chooses."""
    small, large = (
        next(r for r, c in enumerate(twin.configs) if c.max_batch_size == size) for size in (4, 8)
    )
    usual = float(twin.p99_ms[large, 1])
    quick = study([large], p99_by_repeat=[usual, 0.6 * usual] * 3)
    steady = study([small])
    repeats, points = quick[0] | steady[0], quick[1] + steady[1]
    config = StudyConfig(recommend="min-p99")
    assert verified(repeats, config).recommended.configuration == f"c{large}"
    assert verified(repeats, config, twin, points).recommended.configuration == f"c{small}"


def test_what_stalled_once_in_the_choosing_half_is_not_smoothed_into_the_recommendation(
    twin, study
):
    small, large = (
        next(r for r, c in enumerate(twin.configs) if c.max_batch_size == size) for size in (4, 8)
    )
    usual = float(twin.p99_ms[large, 1])
    stalls = study([large], p99_by_repeat=[usual, usual, usual, 6 * usual, usual, usual])
    steady = study([small])
    repeats, points = stalls[0] | steady[0], stalls[1] + steady[1]
    found = verified(repeats, StudyConfig(recommend="knee"), twin, points)
    assert found.recommended.configuration == f"c{small}"


def test_the_measured_p99_is_reported_and_the_smoothed_one_is_beside_it(twin, study):
    repeats, points = study([0, 5])
    result = verified(repeats, StudyConfig(), twin, points)
    pick = result.recommended
    odd = pool([r for r in repeats[pick.name] if r[0].repeat % 2 == 1])
    assert pick.measurement == odd.measurement
    assert result.estimates[pick.name].p99_ms == pytest.approx(odd.measurement.p99_ms, rel=0.5)
    assert result.smoothed == ()


def test_an_interval_that_the_samples_cannot_tell_is_the_smoothed_one(twin, study):
    repeats, points = study([0, 5], requests=10, verdicts={3: "invalid"})
    measured = verified(repeats, StudyConfig()).points[0].measurement
    result = verified(repeats, StudyConfig(), twin, points)
    first, estimate = result.points[0], result.estimates[result.points[0].name]
    assert measured.p99_low_ms is None
    assert result.smoothed == tuple(p.name for p in result.points)
    assert first.measurement.p99_ms == measured.p99_ms
    assert first.measurement.p99_low_ms == min(measured.p99_ms, estimate.p99_low_ms)
    assert first.measurement.p99_high_ms == max(measured.p99_ms, estimate.p99_high_ms)


def test_a_result_comes_back_from_the_study_file_as_it_was(twin, study):
    repeats, points = study(range(0, 20, 2))
    result = verified(repeats, StudyConfig(slo_p99_ms=5.0), twin, points)
    assert result.insight.error.throughput.median == pytest.approx(0.0, abs=1e-9)
    assert Verified.of(json.loads(json.dumps(result.document))) == result
    assert Verified.of({}) == Verified((), "none")


def test_an_slo_without_a_pick_is_undecided_as_long_as_one_point_may_hold_it():
    slow = {"c01@0.7": repeats_of("c01", 200, [22] * 6, requests=400)}
    m = verified(slow, StudyConfig()).points[0].measurement
    between = (m.p99_low_ms + m.p99_ms) / 2
    assert verified(slow, StudyConfig(slo_p99_ms=between)).slo == "undecided"
    assert verified(slow, StudyConfig(slo_p99_ms=m.p99_low_ms / 2)).slo == "missed"


def test_what_only_seems_beaten_stays_on_the_front_and_what_surely_is_does_not():
    """The even repeats call c02 the quicker one, the odd ones c01."""
    slightly = {
        "c01@0.7": repeats_of("c01", 200, [20, 20, 20, 20, 20, 20]),
        "c02@0.7": repeats_of("c02", 199, [21, 19, 21, 19, 21, 19]),
    }
    assert len(verified(slightly, StudyConfig()).front) == 2
    surely = {**slightly, "c02@0.7": repeats_of("c02", 199, [90, 19, 90, 19, 90, 19])}
    assert [p.configuration for p in verified(surely, StudyConfig()).front] == ["c01"]


def test_weighted_goes_by_the_mean_service_and_waiting_times_of_all_repeats():
    def slowly(name, times):
        own = repeats_of(name, 100 if name == "c01" else 110, [10 if name == "c01" else 12] * 6)
        return [
            (p.model_copy(update={"measurement": p.measurement.model_copy(update=t)}), s)
            for (p, s), t in zip(own, times, strict=True)
        ]

    def took(service, waiting):
        return {"server_compute_ms": service, "server_queue_ms": waiting}

    # The first repeat of each half says the opposite of the others.
    first, second = [took(1, 1)] * 2 + [took(9, 9)] * 4, [took(9, 9)] * 2 + [took(2, 2)] * 4
    repeats = {"c01@0.7": slowly("c01", first), "c02@0.7": slowly("c02", second)}
    result = verified(repeats, StudyConfig(recommend="weighted"))
    assert result.recommended.configuration == "c02"
    assert result.recommended.measurement.server_compute_ms == pytest.approx(13 / 3)
