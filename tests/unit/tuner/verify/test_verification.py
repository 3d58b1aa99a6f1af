"""From a study's points to the table of bounds, and the recommendation that follows from it."""

import json

import numpy as np
import pytest

from dlbench.tuner.study_config import StudyConfig
from dlbench.tuner.verify.verification import Verified, verified
from testbed import made

LOW_MS = 5.0
BOUNDS = (15.0, 20.0, 25.0)
CAPACITIES = {"default": 1000.0, "c01": 1400.0}


def p99_ms(rate, capacity):
    return LOW_MS / max(0.02, 1 - rate / capacity)


@pytest.fixture
def study():
    """The points of a comparison, and their samples by name."""

    def make(capacities=CAPACITIES, rounds=6, noise=0.1, changes=None, **figures):
        points, repeats = [], {}
        rng = np.random.default_rng(0)
        for name, capacity in capacities.items():
            config = made.DEFAULT.model_copy(
                update={"max_batch_size": 8 if name == "default" else 16}
            )
            points.append(made.point(name, "probe", None, config=config, rate=capacity))
            for number in range(1, rounds + 1):
                for share in (0.6, 0.8):
                    rate = share * capacity
                    p99 = p99_ms(rate, capacity) * float(np.exp(noise * rng.normal()))
                    own = {**figures, **(changes or {}).get(name, {})}
                    point = made.point(
                        name, "verify", share, number, config,
                        **{"rate": rate, "p99": p99, "requests": 2000, **own},
                    )  # fmt: skip
                    samples = rng.exponential(p99 / 4.6, 800)
                    points.append(point)
                    repeats.setdefault(point.name, []).append((point, samples))
        return repeats, points

    return make


def of(study, config=None, bounds=BOUNDS, priorities=None, **made):
    repeats, points = study(**made)
    about = {} if priorities is None else {"priorities": priorities}
    return verified(repeats, config or StudyConfig(), bounds, None, points, **about)


def test_each_bound_has_the_configuration_that_takes_most(study):
    result = of(study)
    assert [row.p99_ms for row in result.bounds] == [*BOUNDS]
    assert {row.configuration for row in result.bounds} == {"c01"}
    truth = [1400 * (1 - LOW_MS / b) for b in BOUNDS]
    for row, rate in zip(result.bounds, truth, strict=True):
        assert row.low_rps < rate < row.high_rps


def test_the_recommendation_follows_from_the_table(study):
    """One table, one set of numbers."""
    result = of(study)
    assert result.answer in result.bounds
    assert result.proved
    assert result.recommended.configuration == result.answer.configuration


@pytest.mark.parametrize("bound", [15.0, 20.0])
def test_with_a_bound_it_is_the_highest_rate_within_it(study, bound):
    result = of(study, StudyConfig(slo_p99_ms=bound), (bound,))
    assert result.answer.p99_ms == bound
    assert result.slo == "met"
    assert result.recommended.measurement.p99_ms <= bound


def test_the_default_is_recommended_where_nothing_is_surely_as_good(study):
    result = of(study, capacities={"default": 1000.0, "c01": 900.0})
    assert result.answer.is_default
    assert {row.configuration for row in result.bounds} == {"default"}
    assert result.recommended.configuration == "default"


def test_a_bound_that_nobody_keeps_to_is_missed(study):
    result = of(study, StudyConfig(slo_p99_ms=1.0), (1.0,))
    assert result.slo == "missed"
    assert result.answer is not None, "there is always something to run"
    assert result.answer.p99_ms > LOW_MS


def test_what_misses_another_bound_is_out(study):
    config = StudyConfig(slo=("error_rate<0.01%",))
    result = of(study, config, changes={"c01": {"error_rate": 0.0009, "requests": 1_000_000}})
    assert {row.configuration for row in result.bounds} == {"default"}


def test_without_a_comparison_the_best_so_far_is_not_proved(study):
    _, points = study(rounds=3)
    searched = [
        p.model_copy(update={"phase": "screen", "repeat": 0}) if p.phase == "verify" else p
        for p in points
    ]
    result = verified({}, StudyConfig(), BOUNDS, None, searched)
    assert result.answer is not None
    assert not result.compared
    assert not result.proved
    assert not result.answer.decided


def test_nothing_that_was_measured_is_nothing_to_recommend():
    failed = made.point("default", "probe", None, measurement=None, failure="died")
    result = verified({}, StudyConfig(), BOUNDS, None, [failed])
    assert result.answer is None
    assert result.recommended is None
    assert result.bounds == ()


@pytest.mark.parametrize(("priorities", "chosen"), [({1: 1.0}, "default"), ({8: 1.0}, "c01")])
def test_whose_requests_may_take_long_is_served_in_larger_batches(study, priorities, chosen):
    times = {
        "c01": {"server_compute_ms": 8.0, "server_queue_ms": 3.0},
        "default": {"server_compute_ms": 1.0, "server_queue_ms": 9.0},
    }
    result = of(study, StudyConfig(recommend="weighted"), priorities=priorities, changes=times)
    assert result.answer.configuration == chosen


def test_the_front_holds_no_point_that_another_beats(study):
    front = [p.outcome for p in of(study).front]
    assert front
    assert [o.throughput_rps for o in front] == sorted(o.throughput_rps for o in front)
    assert [o.p99_ms for o in front] == sorted(o.p99_ms for o in front)


def test_repeats_are_pooled(study):
    result = of(study)
    assert len(result.points) == 4
    assert all(p.measurement.requests == 6 * 2000 for p in result.points)
    assert result.baseline("default").share == 0.6


def test_a_result_comes_back_from_the_study_file_as_it_was(study):
    result = of(study, StudyConfig(slo_p99_ms=20.0), (20.0,))
    kept = json.loads(json.dumps(result.document))
    assert Verified.of(kept) == result


def test_a_study_without_a_result_has_an_empty_one():
    assert Verified.of({}).answer is None


def test_without_a_bound_a_rate_that_nobody_knows_rules_nothing_out(study):
    """At 6 ms nothing was measured: the one that takes twice as much is recommended all the same."""
    result = of(study, bounds=(6.0, 20.0, 25.0), capacities={"default": 1000.0, "c01": 2000.0})
    assert result.answer.configuration == "c01"
    assert result.answer.p99_ms in (20.0, 25.0)
