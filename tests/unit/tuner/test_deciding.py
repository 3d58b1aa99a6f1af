"""How much more measuring decides a bound."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dlbench.tuner.constraint import parse_memory, parse_slo, wilson
from dlbench.tuner.deciding import MOST_TIMES, times_to_decide
from dlbench.tuner.point import Resources


@given(st.floats(1, 100), st.floats(1.05, 3), st.floats(1.02, 2), st.booleans())
def test_so_much_measuring_narrows_the_interval_to_the_bound(build, p99, width, off, under):
    bound = p99 * off if under else p99 / off
    point = build.point(p99=p99, p99_low_ms=p99 / width, p99_high_ms=p99 * width)
    objective = parse_slo(f"p99<{bound:.9f}ms")
    assume(objective.standing(point) == "undecided")
    times = times_to_decide(objective, point)
    assume(times is not None)
    assert math.log(width) / math.sqrt(times) == pytest.approx(abs(math.log(off)), rel=1e-6)


@given(st.integers(500, 5000), st.integers(0, 3))
def test_so_many_requests_bring_the_error_rate_to_its_bound(build, requests, errors):
    objective = parse_slo("error_rate<0.1%")
    point = build.point(requests=requests, error_rate=errors / requests)
    assume(objective.standing(point) == "undecided")
    times = times_to_decide(objective, point)
    assume(times is not None)
    more = build.measurement(requests=round(times * requests), error_rate=errors / requests)
    nearest = min(abs(end - objective.bound) for end in wilson(more))
    assert nearest == pytest.approx(0, abs=1e-6)


def test_no_errors_in_two_thousand_requests_are_half_of_what_one_in_a_thousand_takes(build):
    point = build.point(requests=2000, error_rate=0.0)
    assert times_to_decide(parse_slo("error_rate<0.1%"), point) == pytest.approx(1.92, abs=0.01)


def test_no_budget_decides_a_value_that_is_the_bound_or_an_interval_that_is_not_there(build):
    bound = parse_slo("p99<20ms")
    known = {"p99_low_ms": 10.0, "p99_high_ms": 40.0}
    assert times_to_decide(bound, build.point(p99=20.0, **known)) is None
    assert times_to_decide(bound, build.point(p99=19.9, **known)) is None
    assert times_to_decide(bound, build.point(p99=10.0)) is None
    assert times_to_decide(bound, build.point(measurement=None, failure="no")) is None
    assert math.log(2) / math.log(20 / 19.9) > math.sqrt(MOST_TIMES)


def test_a_rate_is_decided_as_well_and_memory_is_what_it_is(build):
    wide = build.point(throughput=100, throughput_low_rps=80.0, throughput_high_rps=125.0)
    assert times_to_decide(parse_slo("throughput>90"), wide) == pytest.approx(4.49, abs=0.01)
    small = build.point(resources=Resources(server_rss_mb=100.0))
    assert parse_memory("200MB", "--max-memory", "server_rss_mb").standing(small) == "met"


def test_no_budget_decides_a_value_that_falls_among_failed_requests(build):
    lost = build.point(p99=math.inf, p99_low_ms=10.0, p99_high_ms=math.inf)
    assert parse_slo("p99<20ms").standing(lost) == "undecided"
    assert times_to_decide(parse_slo("p99<20ms"), lost) is None
