"""The plan: every step follows from the records alone."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.tuner.budget import LOADS, MOST_REPEATS, PROBE_S, REPEATS, WINDOW_SHARE, spent_s
from dlbench.tuner.plan import Plan
from dlbench.tuner.search.proposal import Done
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
    """Take the plan's steps with invented measurements; returns every point."""
    points = list(points)
    while (step := plan.next_step(points)) is not None:
        if stop_after is not None and len(points) >= stop_after:
            break
        rate = step.rate or capacity(step.config)
        points.append(
            made.point(
                step.configuration,
                step.phase,
                step.share,
                step.repeat,
                step.config,
                rate=rate,
                p99=5 / (1.01 - (step.share or 0.9)),
                cost_s=cost_s(step),
                duration_s=step.duration_s,
                verdict=verdict(step),
            )
        )
        assert len(points) < 1000
    return points


def test_a_study_measures_baselines_then_searches_then_verifies(space):
    points = carry_out(make_plan(space))
    phases = [p.phase for p in points]
    assert phases[:2] == ["probe", "baseline"]
    assert points[0].configuration == "default"
    assert phases.index("screen") > phases.index("baseline")
    first = phases.index("verify")
    assert set(phases[first:]) == {"verify"}
    assert set(phases[:first]) == {"probe", "baseline", "screen"}


def test_every_candidate_is_repeated_and_both_baselines_are_among_them(space):
    points = [p for p in carry_out(make_plan(space)) if p.phase == "verify"]
    repeats = {}
    for p in points:
        repeats.setdefault(p.name, []).append(p.repeat)
    assert len(set(map(tuple, repeats.values()))) == 1
    (rounds,) = set(map(tuple, repeats.values()))
    assert rounds == tuple(range(1, len(rounds) + 1))
    assert REPEATS <= len(rounds) <= MOST_REPEATS
    assert {"naive", "default"} <= {p.configuration for p in points}


def test_repeats_are_interleaved(space):
    points = [p for p in carry_out(make_plan(space)) if p.phase == "verify"]
    assert [p.repeat for p in points] == sorted(p.repeat for p in points)
    orders = {tuple(p.name for p in points if p.repeat == r) for r in range(1, REPEATS + 1)}
    assert len(orders) > 1


@pytest.fixture(scope="module")
def whole(space, twin):
    """A twin's study from start to end, on a machine that is not quite what the twin thinks."""
    plan = dataclasses.replace(make_plan(space, budget_s=150), predictions=twin, before_s=18.0)
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
def test_a_study_killed_at_any_point_goes_on_to_the_same_end(whole, data):
    plan, points = whole
    kept = data.draw(st.integers(0, len(points)))
    again = dataclasses.replace(plan, _searches=[])
    resumed = carry_out(again, points[:kept], stop_after=kept + 3, **machine(plan.predictions))
    assert resumed == points[: kept + 3]


@pytest.mark.parametrize("proposer", PROPOSERS)
def test_every_proposer_is_resumed_to_its_own_proposals(space, twin, proposer):
    plan = make_plan(space, budget_s=150, proposer=proposer)
    plan = dataclasses.replace(plan, predictions=twin)
    points = carry_out(plan)
    for kept in (3, len(points) // 2):
        again = dataclasses.replace(plan, _searches=[])
        assert carry_out(again, points[:kept]) == points


def test_the_search_follows_the_predictions(whole):
    plan, points = whole
    first = next(p for p in points if p.configuration == "c01")
    assert first.config.max_batch_size > 8
    assert first.config.cache_size > 0
    assert plan.proposal(points).reason


def test_the_calibration_is_paid_from_the_budget(space, twin):
    plan = make_plan(space, budget_s=250)
    tried = [
        len({p.configuration for p in carry_out(dataclasses.replace(plan, before_s=s))})
        for s in (0.0, 60.0)
    ]
    assert tried[0] > tried[1]


def test_a_settled_search_ends_early_and_repeats_more(space, twin):
    plan = dataclasses.replace(make_plan(space, budget_s=2000), predictions=twin)
    exact = lambda config: twin.capacity_rps[twin.rows[config]]  # noqa: E731
    points = carry_out(plan, capacity=exact)
    assert isinstance(plan.proposal(points), Done)
    assert "hypervolume" in plan.proposal(points).reason
    assert max(p.repeat for p in points) == MOST_REPEATS
    assert sum(p.cost_s for p in points) < 1000


def test_what_verification_finds_does_not_start_the_search_again(space, twin):
    """A settled search would be unsettled by candidates that turn out ten times slower."""
    plan = dataclasses.replace(make_plan(space, budget_s=2000), predictions=twin)
    exact = lambda config: twin.capacity_rps[twin.rows[config]]  # noqa: E731
    points = carry_out(plan, capacity=exact)
    begun = [p for p in points if p.phase != "verify"]
    slow = [
        p.model_copy(update={"measurement": p.measurement.model_copy(update={"p99_ms": 900.0})})
        for p in points[len(begun) :]
    ]
    assert plan.proposal([*begun, *slow]) == plan.proposal(begun)
    assert plan.candidates([*begun, *slow]) == plan.candidates(begun)


def test_a_repeat_that_the_client_spoiled_is_measured_again(space):
    first_of = lambda step: step.configuration == "default" and step.repeat == 1  # noqa: E731
    points = carry_out(make_plan(space), verdict=lambda s: "invalid" if first_of(s) else "ok")
    own = [p.repeat for p in points if p.phase == "verify" and p.configuration == "default"]
    assert {1, 3, 5, 7} <= set(own)  # of the same half: the odd ones are reported


def test_a_client_that_spoils_everything_is_not_asked_forever(space):
    points = carry_out(make_plan(space), verdict=lambda step: "invalid")
    assert {p.repeat for p in points if p.phase == "verify"} <= set(range(1, MOST_REPEATS + 1))


def test_what_saturates_whenever_it_is_repeated_is_not_repeated_further(space):
    gone = lambda step: step.phase == "verify" and step.configuration == "default"  # noqa: E731
    points = carry_out(make_plan(space), verdict=lambda s: "saturated" if gone(s) else "ok")
    repeats = {p.repeat for p in points if p.phase == "verify" and p.configuration == "default"}
    assert repeats == {1, 2}


def test_a_bound_is_worth_more_repeats_than_a_front(space):
    most = [
        max(p.repeat for p in carry_out(make_plan(space, configurations=1, **bound)))
        for bound in ({}, {"slo_p99_ms": 50.0})
    ]
    assert MOST_REPEATS == most[0] < most[1]


def test_the_reference_is_measured_again_every_ten_minutes(space):
    plan = make_plan(space, budget_s=4000)
    points = carry_out(plan, cost_s=lambda step: 30.0, stop_after=90)
    drifts = [(n, p) for n, p in enumerate(points) if p.phase == "drift"]
    assert len(drifts) >= 6
    assert [p.share for _, p in drifts] == [None, 0.7] * (len(drifts) // 2)
    first = next(p for p in points if p.phase == "baseline" and p.name == "default@0.7")
    for (_, probe), (_, load) in zip(drifts[::2], drifts[1::2], strict=True):
        assert probe.config == load.config == space.default
        assert load.measurement.offered_rps == first.measurement.offered_rps
    gaps = np.diff([n for n, p in drifts if p.share]) * 30.0
    assert all(EVERY_S <= gap <= EVERY_S + 60 for gap in gaps)


def test_a_study_of_five_minutes_has_no_time_for_that(space):
    assert all(p.phase != "drift" for p in carry_out(make_plan(space, budget_s=300)))


def test_candidates_come_from_the_smoothed_front(space, twin):
    """A p99 that was a fluke makes a candidate of fewer points than by the raw values."""
    plan = dataclasses.replace(make_plan(space, budget_s=300), predictions=twin)
    exact = lambda config: twin.capacity_rps[twin.rows[config]]  # noqa: E731
    points = [p for p in carry_out(plan, capacity=exact) if p.phase != "verify"]
    raw = dataclasses.replace(plan, predictions=None)
    screened = [p for p in points if p.phase == "screen"]
    smooth, plain = (
        sum(p.name in names(by, with_luck(points, p)) for p in screened) for by in (plan, raw)
    )
    assert smooth < 0.7 * plain


def names(plan, points):
    return {c.name for c in plan.candidates(points)}


def with_luck(points, lucky):
    """The points, one of them with a p99 of 40 % of the truth."""
    low = {"p99_ms": 0.4 * lucky.measurement.p99_ms}
    changed = lucky.model_copy(update={"measurement": lucky.measurement.model_copy(update=low)})
    return [changed if p is lucky else p for p in points]


def test_the_budget_is_kept(space):
    for budget in (180, 300):
        points = carry_out(make_plan(space, budget_s=budget))
        assert sum(p.cost_s for p in points) <= 1.1 * budget


def test_a_larger_budget_goes_on_searching(space):
    points = carry_out(make_plan(space, budget_s=150))
    more = carry_out(make_plan(space, budget_s=400), points)
    assert spent_s(more) > spent_s(points)
    assert more[: len(points)] == points


def test_the_number_of_configurations_is_kept(space):
    points = carry_out(make_plan(space, configurations=2, budget_s=2000))
    assert {p.configuration for p in points} == {"naive", "default", "c01", "c02"}


def test_a_slow_model_gets_fewer_loads_and_a_remark(space):
    plan = make_plan(space)
    points = carry_out(plan, capacity=lambda config: 60.0, stop_after=2)
    assert len(plan.loads(points)) < len(LOADS)
    assert any("loads" in text for text in plan.remarks(points))


def test_screening_has_enough_requests(space):
    plan = make_plan(space)
    steps = [plan.next_step(carry_out(plan, stop_after=n)) for n in range(2, 8)]
    assert all(s.rate * s.duration_s >= 459 for s in steps if s.rate)


def test_a_curve_ends_where_it_saturates(space):
    plan = make_plan(space)
    points = carry_out(plan, stop_after=3)
    last = points[-1]
    saturated = last.measurement.model_copy(update={"verdict": "saturated"})
    points[-1] = last.model_copy(update={"measurement": saturated})
    assert plan.next_step(points).config != last.config


@pytest.mark.parametrize(
    ("limit", "tried"), [(0.4, (0.5, 0.3)), (0.6, (0.5, 0.9, 0.7)), (1.0, (0.5, 0.9))]
)
def test_below_a_load_that_saturates_comes_one_that_a_tight_budget_skipped(space, limit, tried):
    plan = make_plan(space, budget_s=60)
    points = carry_out(
        plan,
        stop_after=1 + len(tried),
        verdict=lambda s: "saturated" if (s.share or 0) > limit else "ok",
    )
    assert plan.loads(points) == (0.5, 0.9)
    assert tuple(p.share for p in points[1:]) == tried
    assert plan.next_step(points).configuration != points[-1].configuration


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
