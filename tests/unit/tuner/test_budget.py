"""What measurements cost, and what a budget can pay for."""

import math

from hypothesis import given
from hypothesis import strategies as st

from dlbench.tuner import budget
from dlbench.tuner.budget import FEWER_LOADS, PROBE_S, SWITCH_S, WARMUP_S, Candidate
from testbed import made

rates = st.floats(0.1, 1e6)


@given(rate=rates)
def test_a_screening_has_enough_requests_and_time(rate):
    assert budget.screen_s(rate) * rate >= budget.SCREEN_REQUESTS * (1 - 1e-12)
    assert budget.screen_s(rate) >= budget.SCREEN_S


@given(rate=rates)
def test_the_repeats_that_are_reported_pool_enough_requests(rate):
    odd = len(range(1, budget.REPEATS + 1, 2))
    assert odd == budget.REPORTED_REPEATS
    assert odd * Candidate("c01", None, 0.7, rate).repeat_s * rate >= budget.POOLED_REQUESTS * 0.999


@given(capacity=rates, budget_s=st.floats(10, 10_000))
def test_loads_are_as_many_as_the_budget_pays_for(capacity, budget_s):
    loads = budget.affordable_loads(capacity, 5, budget_s)
    more = FEWER_LOADS[: FEWER_LOADS.index(loads)]
    assert all(5 * budget.curve_s(capacity, other) > budget_s for other in more)
    assert loads == FEWER_LOADS[-1] or 5 * budget.curve_s(capacity, loads) <= budget_s


def test_a_client_without_a_known_limit_is_measured_as_short_as_can_be():
    assert budget.screen_s(math.inf) == budget.SCREEN_S


def test_a_switch_costs_what_it_did():
    assert budget.switch_s([]) == SWITCH_S
    beside = [0.5, 4.0, 0.6]
    probe = {"phase": "probe", "share": None, "duration_s": PROBE_S}
    points = [made.point(cost_s=PROBE_S + WARMUP_S + s, **probe) for s in beside]
    failed = made.point(phase="probe", share=None, measurement=None, cost_s=60.0)
    loaded = made.point(phase="screen", cost_s=30.0)
    assert abs(budget.switch_s([*points, failed, loaded]) - 0.6) < 1e-9


def test_points_of_one_configuration_share_its_start():
    twice = [Candidate("c01", None, share, 1000.0) for share in (0.5, 0.9)]
    apart = [twice[0], twice[1]._replace(configuration="c02")]
    assert math.isclose(budget.round_s(apart) - budget.round_s(twice), SWITCH_S)


def test_one_configuration_alone_is_not_changed_for_another():
    """So there is time to verify the default where there is none for two."""
    alone = [Candidate("default", None, 0.5, 10.0)]
    measured_s = budget.REPEAT_S + WARMUP_S
    assert budget.least_verify_s(alone, 60.0) == budget.LEAST_REPEATS * measured_s
    both = [*alone, Candidate("naive", None, 0.5, 10.0)]
    assert budget.least_verify_s(both, 60.0) == budget.LEAST_REPEATS * 2 * (60.0 + measured_s)


def test_a_small_budget_has_a_small_calibration():
    found = [budget.services_s(seconds) for seconds in (10, 100, 1000)]
    assert found == [budget.LEAST_SERVICES_S, 4.0, budget.SERVICES_S]
