"""The plan: every step follows from the records alone."""

import pytest

from dlbench.tuner.config import StudyConfig
from dlbench.tuner.plan import LOADS, REPEATS, Plan, searching_s
from dlbench.tuner.space import build_space


@pytest.fixture
def space(build):
    return build_space(build.DEFAULT, 2, repeats_inputs=True, batchable=True)


def make_plan(space, **config):
    return Plan(space, StudyConfig(**{"budget_s": 200, **config}), client_rps=50_000)


def carry_out(build, plan, points=(), *, stop_after=None, capacity=lambda config: 1000.0):
    """Take the plan's steps with invented measurements; returns every point."""
    points = list(points)
    while (step := plan.next_step(points)) is not None:
        if stop_after is not None and len(points) >= stop_after:
            break
        rate = step.rate or capacity(step.config)
        points.append(
            build.point(
                step.configuration,
                step.phase,
                step.share,
                step.repeat,
                step.config,
                throughput=rate,
                p99=5 / (1.01 - (step.share or 0.9)),
                cost_s=step.duration_s + 0.5,
            )
        )
        assert len(points) < 1000
    return points


def test_a_study_measures_baselines_then_searches_then_verifies(build, space):
    points = carry_out(build, make_plan(space))
    phases = [p.phase for p in points]
    assert phases[:2] == ["probe", "probe"]
    assert phases.index("screen") > phases.index("baseline")
    first = phases.index("verify")
    assert set(phases[first:]) == {"verify"}
    assert set(phases[:first]) == {"probe", "baseline", "screen"}


def test_every_candidate_is_repeated_and_both_baselines_are_among_them(build, space):
    points = [p for p in carry_out(build, make_plan(space)) if p.phase == "verify"]
    repeats = {}
    for p in points:
        repeats.setdefault(p.name, []).append(p.repeat)
    assert all(sorted(r) == list(range(1, REPEATS + 1)) for r in repeats.values())
    assert {"naive", "default"} <= {p.configuration for p in points}


def test_repeats_are_interleaved(build, space):
    points = [p for p in carry_out(build, make_plan(space)) if p.phase == "verify"]
    assert [p.repeat for p in points] == sorted(p.repeat for p in points)
    orders = {tuple(p.name for p in points if p.repeat == r) for r in range(1, REPEATS + 1)}
    assert len(orders) > 1


@pytest.mark.parametrize("stop_after", [0, 1, 2, 7, 13, 20, 40])
def test_a_killed_study_goes_on_as_if_nothing_had_happened(build, space, stop_after):
    plan = make_plan(space)
    whole = carry_out(build, plan)
    part = carry_out(build, plan, stop_after=stop_after)
    assert carry_out(build, plan, part) == whole


def test_the_budget_is_kept(build, space):
    for budget in (180, 300):
        points = carry_out(build, make_plan(space, budget_s=budget))
        assert sum(p.cost_s for p in points) <= 1.1 * budget


def test_a_larger_budget_goes_on_searching(build, space):
    points = carry_out(build, make_plan(space, budget_s=150))
    more = carry_out(build, make_plan(space, budget_s=400), points)
    assert searching_s(more) > searching_s(points)
    assert more[: len(points)] == points


def test_the_number_of_configurations_is_kept(build, space):
    points = carry_out(build, make_plan(space, configurations=2, budget_s=2000))
    assert {p.configuration for p in points} == {"naive", "default", "c01", "c02"}


def test_a_slow_model_gets_fewer_loads_and_a_remark(build, space):
    plan = make_plan(space)
    points = carry_out(build, plan, capacity=lambda config: 60.0, stop_after=2)
    assert len(plan.loads(points)) < len(LOADS)
    assert any("loads" in text for text in plan.remarks(points))


def test_screening_has_enough_requests(build, space):
    plan = make_plan(space)
    steps = [plan.next_step(carry_out(build, plan, stop_after=n)) for n in range(2, 8)]
    assert all(s.rate * s.duration_s >= 459 for s in steps if s.rate)


def test_a_curve_ends_where_it_saturates(build, space):
    plan = make_plan(space)
    points = carry_out(build, plan, stop_after=3)
    last = points[-1]
    saturated = last.measurement.model_copy(update={"verdict": "saturated"})
    points[-1] = last.model_copy(update={"measurement": saturated})
    assert plan.next_step(points).config != last.config


def test_a_configuration_that_fails_its_probe_is_left(build, space):
    plan = make_plan(space)
    before = next(
        points
        for n in range(2, 20)
        if plan.next_step(points := carry_out(build, plan, stop_after=n)).configuration == "c01"
    )
    step = plan.next_step(before)
    assert step.phase == "probe"
    failed = build.point(
        step.configuration, "probe", None, 0, step.config, measurement=None, failure="died"
    )
    assert plan.next_step([*before, failed]).config != step.config


def test_probes_are_clamped_to_what_the_client_can_do(build, space):
    plan = make_plan(space)
    probe = build.point("default", "probe", None, throughput=90_000)
    assert plan.capacity(probe) == 0.8 * 50_000
