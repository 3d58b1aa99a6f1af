"""Two results of a load against each other, and what is called a regression."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.analysis.differences import Runs
from dlbench.loadgen.analysis.statistics import UNDETERMINED
from dlbench.loadgen.profile import LoadProfile
from dlbench.results.compare.comparison import ERROR_RATE, Change, loads, more_errors, rerun
from dlbench.results.compare.regression import judge, verdict
from testbed import made

INTERVALS = st.tuples(st.floats(0.1, 10), st.floats(1, 5)).map(lambda p: (p[0], p[0] * p[1]))


def queue(seed, slower=1.0, n=6000):
    """A server at a load of 0.6, as Runs: waiting times depend on each other as real ones do."""
    rng = np.random.default_rng(seed)
    service, gaps = rng.exponential(size=n), rng.exponential(1 / 0.6, size=n)
    walk = np.cumsum(np.append(0, service[:-1] - gaps[1:]))
    latencies = walk - np.minimum.accumulate(walk) + service
    return Runs([slower * latencies], [rng.normal(1000, 5, size=10)])


def judged(first, second, **options):
    return judge(loads(made.load(), made.load(), (first, second)), **options)


def of(judgement):
    return {change.figure: word for change, word in judgement.judged}


def test_a_server_that_is_half_as_slow_again_is_a_regression():
    found = [judged(queue(seed), queue(1000 + seed, 1.5)) for seed in range(20)]
    assert [one.outcome for one in found] == ["regression"] * 20
    assert all(of(one)["throughput_rps"] == "no regression" for one in found)
    assert "p50_ms" in found[0].reason


def test_one_that_is_faster_is_better_and_no_regression():
    found = [judged(queue(seed), queue(1000 + seed, 1 / 1.5)) for seed in range(20)]
    assert all(one.outcome != "regression" for one in found)
    assert sum(of(one)["p50_ms"] == "better" for one in found) >= 18


def test_equal_servers_are_a_regression_once_in_twenty_times_at_most():
    found = [judged(queue(seed), queue(1000 + seed), tolerance=0.0) for seed in range(60)]
    assert sum(one.outcome == "regression" for one in found) <= 3
    found = [judged(queue(seed), queue(1000 + seed), tolerance=0.05) for seed in range(60)]
    assert sum(one.outcome == "regression" for one in found) <= 1


def test_what_is_worse_within_the_tolerance_is_none():
    slower = made.load(p99=10.4, sure=0.001), made.load(p99=10, sure=0.001)
    assert judge(loads(*slower[::-1])).outcome == "no regression"
    assert judge(loads(*slower[::-1]), tolerance=0.01).outcome == "regression"


def test_less_throughput_is_worse_and_more_is_better():
    less = judge(loads(made.load(rate=100), made.load(rate=50)))
    assert less.outcome == "regression"
    assert less.reason == "throughput_rps 2 times lower [1.83 to 2.18 times lower]"
    assert of(judge(loads(made.load(rate=50), made.load(rate=100))))["throughput_rps"] == "better"


def test_nothing_is_traded_at_one_rate():
    """Both sides are asked the same: more of it done is no reason to take three times as long."""
    sides = {"rate": 100, "p99": 10, "sure": 0.002}, {"rate": 120, "p99": 30, "sure": 0.002}
    for compared in (
        loads(*(made.load(**side) for side in sides)),
        rerun(*({"c01": made.verified(**side)} for side in sides), []),
    ):
        found = of(judge(compared))
        assert (found["throughput_rps"], found["p99_ms"]) == ("better", "regression")


def test_without_an_interval_it_cannot_be_told():
    found = judge(loads(made.load(), made.load(p99=100, p99_low_ms=None, p50_ms=2.5)))
    assert of(found)["p99_ms"] == "cannot tell"
    assert (found.outcome, "p99_ms" in found.reason) == ("cannot tell", True)


def test_that_a_rare_figure_cannot_be_told_does_not_count():
    found = judge(loads(*(made.load(sure=0.01, p999_ms=20) for _ in "ab")))
    assert (of(found)["p999_ms"], found.outcome) == ("cannot tell", "no regression")


def test_more_errors_are_a_regression_beyond_one_in_a_thousand():
    assert (
        judge(loads(made.load(), made.load(error_rate=0.01))).reason == "error_rate 0.00% to 1.00%"
    )
    assert of(judge(loads(made.load(), made.load(error_rate=0.0005))))[ERROR_RATE] != "regression"
    assert of(judge(loads(made.load(error_rate=0.01), made.load())))[ERROR_RATE] == "better"


@given(*[st.floats(0, 1)] * 2, *[st.integers(1, 100_000)] * 2)
def test_the_difference_of_error_rates_lies_in_its_interval(a, b, n, m):
    one, two = (made.measurement(error_rate=r, requests=k) for r, k in ((a, n), (b, m)))
    low, high = more_errors(one, two)
    assert low - 1e-9 <= b - a <= high + 1e-9
    assert more_errors(two, one) == pytest.approx((-high, -low))


def test_newcombe_s_example():
    """56 of 70 against 48 of 80: his table II, method 10, gives 0.0524 to 0.3339."""
    one = made.measurement(error_rate=48 / 80, requests=80)
    two = made.measurement(error_rate=56 / 70, requests=70)
    assert more_errors(one, two) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@given(INTERVALS, st.floats(0, 0.5))
def test_every_interval_has_one_verdict_and_more_tolerance_never_makes_it_worse(interval, more):
    for figure in ("throughput_rps", "p99_ms"):
        change = Change(figure, 1.0, 1.0, interval)
        words = [verdict(change, 0.05), verdict(change, 0.05 + more)]
        order = ["regression", "cannot tell", "no regression", "better"]
        assert order.index(words[0]) <= order.index(words[1])
    assert verdict(Change("p99_ms", 1, 1, UNDETERMINED)) == "cannot tell"


def test_what_saturates_or_cannot_be_compared_is_said():
    saturated = made.load(verdict="saturated", reason="90 of 100 completed")
    assert judge(loads(made.load(), saturated)).outcome == "regression"
    assert judge(loads(saturated, saturated)).outcome != "regression"
    invalid = judge(loads(made.load(), made.load(p99=100, verdict="invalid", reason="late")))
    assert (invalid.outcome, invalid.reason) == ("cannot tell", "B is invalid: late")
    assert set(invalid.verdicts) == {"cannot tell"}
    other = judge(loads(made.load(), made.load(p99=100, profile=LoadProfile(rate=200))))
    assert other.reason == "they were measured under different loads"
    spoken = {"protocol": "tfserving", "encoding": "json", "template": '{"x": $x}'}
    foreign = made.load(profile=LoadProfile(rate=100, **spoken)).model_copy(
        update={"protocol": "tfserving"}
    )
    judged = judge(loads(made.load(), foreign))
    assert judged.compared.senseless == ""
    assert {change.ratio for change in judged.compared.changes} <= {1.0, None}
    (note,) = judged.compared.notes
    assert note.startswith("they differ in the server: ")
    assert "protocol v2 and tfserving" in note
    longer = loads(made.load(), made.load(profile=LoadProfile(rate=100, seed=3, duration_s=5)))
    assert longer.senseless == ""


def test_what_else_differs_is_said_first():
    there = made.MACHINE.model_copy(
        update={"cpu": "Xeon", "load_average": (9, 9, 9), "versions": {"numpy": "2.5"}}
    )
    found = loads(made.load(), made.load(machine=there, model="other"))
    assert found.notes == (
        "they differ in the server: model mlp and other",
        "they differ in the machine: cpu AMD EPYC and Xeon",
        "they differ in the versions: numpy 2.4.6 and 2.5, dlbench 0.1.0 and none",
    )


def test_a_study_s_points_against_newer_ones():
    before = {p.name: p for p in (made.verified("c01"), made.verified("default"))}
    now = {"c01@0.5": made.verified("c01", p99=30), "default@0.5": made.verified("default")}
    found = judge(rerun(before, now, ["another machine"]))
    assert found.outcome == "regression"
    assert found.reason.startswith("c01@0.5 p50_ms 3 times")
    assert found.compared.notes == ("another machine",)
    gone = now["c01@0.5"].model_copy(update={"measurement": None, "failure": "out of memory"})
    found = judge(rerun(before, {"c01@0.5": gone}, []))
    assert found.reason == "c01@0.5 can no longer be served: out of memory"
    late = made.verified("c01", verdict="invalid", reason="late")
    assert judge(rerun(before, {"c01@0.5": late}, [])).outcome == "cannot tell"
