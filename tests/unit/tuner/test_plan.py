"""The plan: every step follows from the records alone."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.tuner.budget import (
    ENOUGH_ROUNDS,
    LEAST_ROUNDS,
    MOST_ROUNDS,
    PROBE_S,
    WINDOW_SHARE,
    spent_s,
)
from dlbench.tuner.plan import Plan
from dlbench.tuner.search.proposer import PROPOSERS
from dlbench.tuner.study_config import StudyConfig
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.predictions import Predictions
from dlbench.tuner.verify.drift import EVERY_S
from testbed import made

SHARES = made.SHARES
SMALL = {
    "max_queue_delay_ms": (0.0, 2.0),
    "scheduling_policy": ("shared_queue",),
    "cache_size": (0, 1024, 4096),
}


@pytest.fixture(scope="module")
def space():
    return made.space(repeats_inputs=True, restriction=SMALL)


@pytest.fixture(scope="module")
def twin(space):
    """Batches and workers: more throughput, more latency. The cache is worth something too."""
    configs = list(dict.fromkeys([space.naive, space.default, *space.configurations()]))
    batch = np.array([c.max_batch_size for c in configs], float)
    workers = np.array([c.workers for c in configs], float)
    cached = np.array([c.cache_size for c in configs], float)
    capacity = 300 * batch**0.5 * workers**0.7 * (1 + cached / 8192)
    p99 = 2 * batch**0.6 * workers**0.3 + np.array([c.max_queue_delay_ms for c in configs])
    return Predictions.of(space, configs, SHARES, capacity, p99[:, None] / (1 - np.array(SHARES)))


def make_plan(space, **config):
    return Plan(space, StudyConfig(**{"budget_s": 200, **config}), drivable_rps=40_000)


def carry_out(
    plan,
    points=(),
    *,
    stop_after=None,
    capacity=lambda config: 1000.0,
    cost_s=lambda step: step.duration_s + 0.5,
    verdict=lambda step: "ok",
):
    """Take the plan's steps on a machine of which every configuration has a curve; all points."""
    points = list(points)
    while (step := plan.next_step(points)) is not None:
        if stop_after is not None and len(points) >= stop_after:
            break
        able = capacity(step.config)
        rate = step.rate or able
        gone = step.rate is not None and rate > 0.98 * able
        points.append(
            made.point(
                step.configuration,
                step.phase,
                step.share,
                step.repeat,
                step.config,
                rate=min(rate, able),
                p99=5 / max(0.02, 1 - rate / able),
                cost_s=cost_s(step),
                duration_s=step.duration_s,
                offered_rps=step.rate,
                verdict="saturated" if gone else verdict(step),
            )
        )
        assert len(points) < 1000
    return points


def test_a_study_measures_baselines_then_searches_then_compares(space):
    points = carry_out(make_plan(space))
    phases = [p.phase for p in points]
    assert phases[:2] == ["probe", "baseline"]
    assert points[0].configuration == "default"
    assert phases.index("screen") > phases.index("baseline")
    first = phases.index("verify")
    assert set(phases[first:]) == {"verify"}
    assert set(phases[:first]) == {"probe", "baseline", "screen"}


def rounds_of(points):
    """Round -> the configurations that it measured, in order."""
    found = {}
    for p in points:
        if p.phase == "verify":
            found.setdefault(p.repeat, []).append(p.configuration)
    return found


def test_finalists_and_the_default_take_turns(space):
    rounds = rounds_of(carry_out(make_plan(space)))
    assert sorted(rounds) == list(range(1, len(rounds) + 1))
    assert LEAST_ROUNDS <= len(rounds) <= MOST_ROUNDS
    whole = [set(own) for own in list(rounds.values())[:-1]]
    assert all(own == whole[0] for own in whole)
    assert "default" in whole[0]
    assert len(whole[0]) > 1
    assert len({tuple(own) for own in rounds.values()}) > 1, "in another order each time"


def test_in_the_comparison_configurations_meet_at_the_same_rates(space):
    """They are alike here, so R(B) of all lies at the same place of the grid."""
    points = carry_out(make_plan(space, slo_p99_ms=20.0))
    first = [p for p in points if p.phase == "verify" and p.repeat == 3]
    rates = [
        {p.measurement.offered_rps for p in first if p.configuration == name}
        for name in {p.configuration for p in first}
    ]
    assert set.union(*rates) != set()
    assert max(map(max, rates)) / min(map(min, rates)) < 1.3


def test_windows_are_opened_near_the_bound(space):
    """At 1,000 requests/s and 5 ms, 20 ms are reached at 750."""
    points = carry_out(make_plan(space, slo_p99_ms=20.0))
    rates = [p.measurement.offered_rps for p in points if p.phase == "verify"]
    assert all(600 < rate < 900 for rate in rates)


@pytest.fixture(scope="module")
def whole(space, twin):
    """A twin's study from start to end, on a machine that is not quite what the twin thinks."""
    plan = dataclasses.replace(make_plan(space, budget_s=120), predictions=twin, before_s=18.0)
    return plan, carry_out(plan, **machine(twin))


def machine(twin, spoiled=0.1):
    """Off by some per cent, configuration by configuration; now and then the client is the limit."""

    def chance(*what):
        return np.random.default_rng(abs(hash(what)) % 2**32)

    def capacity(config):
        row = twin.rows[config]
        return twin.capacity_rps[row] * float(np.exp(0.1 * chance(row).normal()))

    def verdict(step):
        rare = chance(twin.rows[step.config], int((step.share or 0) * 100), step.repeat)
        return "invalid" if step.phase == "verify" and rare.random() < spoiled else "ok"

    return {"capacity": capacity, "verdict": verdict}


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_a_study_killed_at_any_point_goes_on_to_the_same_end(whole, data):
    plan, points = whole
    kept = data.draw(st.integers(0, len(points)))
    again = dataclasses.replace(plan, _searches=[])
    resumed = carry_out(again, points[:kept], stop_after=kept + 3, **machine(plan.predictions))
    assert resumed == points[: kept + 3]


@pytest.mark.parametrize("proposer", PROPOSERS)
def test_every_proposer_is_resumed_to_its_own_proposals(space, twin, proposer):
    plan = make_plan(space, budget_s=100, proposer=proposer, slo_p99_ms=20.0)
    plan = dataclasses.replace(plan, predictions=twin)
    points = carry_out(plan)
    again = dataclasses.replace(plan, _searches=[])
    assert carry_out(again, points[: len(points) // 2]) == points


def test_the_search_follows_the_predictions(whole):
    _, points = whole
    first = next(p for p in points if p.configuration == "c01")
    assert first.config.max_batch_size > 8
    assert first.config.cache_size > 0


def test_the_calibration_is_paid_from_the_budget(space):
    plan = make_plan(space, budget_s=250)
    tried = [
        len({p.configuration for p in carry_out(dataclasses.replace(plan, before_s=s))})
        for s in (0.0, 60.0)
    ]
    assert tried[0] > tried[1]


def test_what_the_comparison_finds_does_not_change_who_is_compared(whole):
    plan, points = whole
    begun = [p for p in points if p.phase != "verify"]
    slow = [
        p.model_copy(update={"measurement": p.measurement.model_copy(update={"p99_ms": 900.0})})
        for p in points[len(begun) :]
    ]
    assert plan.proposal([*begun, *slow]) == plan.proposal(begun)
    assert plan.candidates([*begun, *slow]) == plan.candidates(begun)


def test_a_client_that_spoils_everything_is_not_asked_forever(space):
    points = carry_out(make_plan(space), verdict=lambda step: "invalid")
    assert len(rounds_of(points)) <= MOST_ROUNDS


def test_rounds_end_when_everything_is_decided(space):
    """Exact windows, and one configuration far better than the default."""
    better = lambda config: 1000.0 if config == space.default else 3000.0  # noqa: E731
    plan = make_plan(space, configurations=1, budget_s=3000, slo_p99_ms=20.0)
    points = carry_out(plan, capacity=better)
    assert len(rounds_of(points)) == ENOUGH_ROUNDS


def test_a_configuration_that_surely_loses_is_left_early(space):
    """A tenth of the default's capacity: after its probe and a window nothing more is asked."""
    worse = lambda config: 1000.0 if config == space.default else 100.0  # noqa: E731
    points = carry_out(make_plan(space, slo_p99_ms=20.0), capacity=worse)
    plan = make_plan(space, slo_p99_ms=20.0)
    searched = {p.configuration for p in points if p.phase == "probe"} - set(plan.baselines)
    windows = [sum(p.configuration == c and p.phase == "screen" for p in points) for c in searched]
    assert max(windows) < plan.windows(points) or max(windows) <= 1


def test_the_reference_is_measured_again_every_ten_minutes(space):
    plan = make_plan(space, budget_s=4000)
    points = carry_out(plan, cost_s=lambda step: 30.0, stop_after=90)
    drifts = [(n, p) for n, p in enumerate(points) if p.phase == "drift"]
    assert len(drifts) >= 4
    for (_, probe), (_, load) in zip(drifts[::2], drifts[1::2], strict=False):
        assert probe.share is None
        assert probe.config == load.config == space.default
    gaps = np.diff([n for n, p in drifts if p.share]) * 30.0
    assert all(EVERY_S <= gap <= EVERY_S + 60 for gap in gaps)


def test_the_budget_is_kept(space):
    for budget in (60, 180):
        points = carry_out(make_plan(space, budget_s=budget))
        assert sum(p.cost_s for p in points) <= 1.1 * budget


def test_a_larger_budget_goes_on_searching(space):
    points = carry_out(make_plan(space, budget_s=100))
    more = carry_out(make_plan(space, budget_s=250), points)
    assert spent_s(more) > spent_s(points)
    assert more[: len(points)] == points


def test_the_number_of_configurations_is_kept(space):
    points = carry_out(make_plan(space, configurations=2, budget_s=400))
    assert {p.configuration for p in points} == {"naive", "default", "c01", "c02"}


def test_windows_have_enough_requests(space):
    plan = make_plan(space)
    steps = [plan.next_step(carry_out(plan, stop_after=n)) for n in range(2, 8)]
    assert all(s.rate * s.duration_s >= 459 for s in steps if s.rate)


def test_a_configuration_that_fails_its_probe_is_left(space):
    plan = make_plan(space)
    before = next(
        points
        for n in range(2, 20)
        if plan.next_step(points := carry_out(plan, stop_after=n)).configuration == "c01"
    )
    step = plan.next_step(before)
    assert step.phase == "probe"
    failed = made.point(
        step.configuration, "probe", None, 0, step.config, measurement=None, failure="died"
    )
    assert plan.next_step([*before, failed]).config != step.config


def test_bounds_are_the_one_that_was_asked_for_or_a_ladder(space, twin):
    assert make_plan(space, slo_p99_ms=7.0).bounds_ms([]) == (7.0,)
    found = dataclasses.replace(make_plan(space), predictions=twin).bounds_ms([])
    assert found[-1] == 1000.0
    least = float(twin.p99_ms[twin.rows[space.default]].min())
    assert found[0] < 4 * least


def test_probes_are_clamped_to_what_the_client_can_do(space):
    plan = make_plan(space)
    probe = made.point("default", "probe", None, rate=90_000)
    assert plan.capacity(probe) == 40_000


def test_a_slow_model_is_probed_for_longer(space):
    """Four batches of the default server, if they take no more than a share of the budget."""
    slow = Calibration(services=(ServiceTime(batch=1, seconds=0.3),), cores=2)
    batch_s = slow.service_s(8, 1, 2)
    plan = dataclasses.replace(make_plan(space), calibration=slow)
    assert plan.next_step([]).duration_s == 4 * batch_s
    short = dataclasses.replace(make_plan(space, budget_s=100), calibration=slow)
    assert short.next_step([]).duration_s == 100 * WINDOW_SHARE
    quick = Calibration(services=(ServiceTime(batch=1, seconds=0.001),), cores=2)
    assert dataclasses.replace(plan, calibration=quick).next_step([]).duration_s == PROBE_S
