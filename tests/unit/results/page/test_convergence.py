"""How far a search had got by when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.results.page.convergence import best_throughput, progress, stages
from dlbench.tuner.front import hypervolume
from testbed import made

OUTCOMES = st.tuples(st.floats(1, 1e5), st.floats(0.1, 5000))


def searched(outcomes, cost_s=2.0, phase="screen", name="c01"):
    points = [made.verified(name, rate=rate, p99=p99) for rate, p99 in outcomes]
    return [p.model_copy(update={"phase": phase, "cost_s": cost_s}) for p in points]


@given(st.lists(OUTCOMES, min_size=1, max_size=12))
def test_what_was_found_stays_and_the_end_is_all_of_it(outcomes):
    points = searched(outcomes)
    best_rps = best_throughput(points)
    found = progress(points, best_rps, before_s=10.0)
    values = [reached.hypervolume for reached in found]
    assert values == sorted(values)
    whole = hypervolume([p.outcome for p in points], best_rps)
    assert found[-1] == (10.0 + 2.0 * len(points), pytest.approx(whole))


def test_what_verification_measures_is_not_the_search():
    search = searched([(100, 10)])
    lucky = searched([(1000, 1)], phase="verify")
    assert progress([*search, *lucky], 1000.0) == progress(search, 1000.0)


def test_what_may_not_stand_on_a_front_adds_nothing():
    invalid = made.verified(rate=1000, p99=1, verdict="invalid")
    invalid = invalid.model_copy(update={"phase": "screen"})
    assert progress([invalid], 1000.0)[-1].hypervolume == 0
    assert best_throughput([invalid]) == 0


def test_stages_begin_when_the_one_before_was_done():
    points = [
        *searched([(1, 1), (2, 1)], 3.0, "baseline", "naive"),
        *searched([(3, 1)], 4.0),
        *searched([(3, 1)], 4.0, "drift", "default"),
        *searched([(3, 1)], 5.0, "verify"),
    ]
    found = [("calibration", 0.0), ("baselines", 7.0), ("search", 13.0), ("verification", 21.0)]
    assert stages(points, 7.0) == found
    assert [name for name, _ in stages(points[:1])] == ["baselines"]
    assert stages([]) == []


def test_the_time_is_the_study_s_own_where_a_point_says_it():
    """Starts, calibration and an earlier sitting are in it; costs alone are not the wall's time."""
    points = [
        made.verified(rate=100 * (n + 1)).model_copy(
            update={"phase": "screen", "cost_s": 5.0, "spent_s": 30.0 + 20.0 * n}
        )
        for n in range(2)
    ]
    assert [reached.spent_s for reached in progress(points, 200.0, before_s=12.0)] == [30.0, 50.0]
