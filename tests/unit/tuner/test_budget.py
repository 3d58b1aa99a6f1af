"""What measurements cost, and what a budget can pay for."""

import math

from hypothesis import given
from hypothesis import strategies as st

from dlbench.tuner import budget
from dlbench.tuner.budget import FEWEST_WINDOWS, PROBE_S, SWITCH_S, WARMUP_S, WINDOWS
from testbed import made

rates = st.floats(0.1, 1e6)


@given(rate=rates)
def test_a_window_has_enough_requests_and_time(rate):
    assert budget.open_s(rate) * rate >= budget.SCREEN_REQUESTS * (1 - 1e-12)
    assert budget.open_s(rate) >= budget.SCREEN_S
    assert budget.open_s(rate, budget.COMPARE_S) >= budget.COMPARE_S


@given(capacity=rates, within_s=st.floats(10, 10_000))
def test_windows_are_as_many_as_the_budget_pays_for(capacity, within_s):
    count = budget.affordable_windows(capacity, 5, within_s)
    assert FEWEST_WINDOWS <= count <= WINDOWS
    assert all(5 * budget.curve_s(capacity, n) > within_s for n in range(count + 1, WINDOWS + 1))
    assert count == FEWEST_WINDOWS or 5 * budget.curve_s(capacity, count) <= within_s


@given(left_s=st.floats(0, 10_000), turn_s=st.floats(0.5, 100), share=st.floats(0.3, 1))
def test_finalists_leave_time_for_enough_rounds_or_there_is_one_or_none(left_s, turn_s, share):
    count = budget.affordable_finalists(left_s, turn_s, share * turn_s)
    assert 0 <= count <= budget.MOST_FINALISTS
    assert count <= 1 or (count + 1) * budget.WORTHWHILE_ROUNDS * turn_s <= left_s
    assert count or 2 * budget.LEAST_ROUNDS * share * turn_s > left_s


def test_one_configuration_alone_is_not_changed_for_another():
    """So there is time to measure the default again where there is none for two."""
    window_s = 3.0 + WARMUP_S + budget.BESIDE_S
    assert budget.round_s(1, 1, 3.0, 60.0) == window_s
    assert budget.round_s(2, 1, 3.0, 60.0) == 2 * (60.0 + window_s)


def test_a_client_without_a_known_limit_is_measured_as_short_as_can_be():
    assert budget.open_s(math.inf) == budget.SCREEN_S


def test_a_switch_costs_what_it_did():
    assert budget.switch_s([]) == SWITCH_S
    beside = [0.5, 4.0, 0.6]
    probe = {"phase": "probe", "share": None, "duration_s": PROBE_S}
    points = [made.point(cost_s=PROBE_S + WARMUP_S + s, **probe) for s in beside]
    failed = made.point(phase="probe", share=None, measurement=None, cost_s=60.0)
    loaded = made.point(phase="screen", cost_s=30.0)
    assert abs(budget.switch_s([*points, failed, loaded]) - 0.6) < 1e-9


def test_a_small_budget_has_a_small_calibration():
    found = [budget.services_s(seconds) for seconds in (10, 100, 1000)]
    assert found == [budget.LEAST_SERVICES_S, 4.0, budget.SERVICES_S]
