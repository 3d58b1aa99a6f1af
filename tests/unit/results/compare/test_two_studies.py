"""Two finished studies against each other."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.loadgen.analysis.statistics import UNDETERMINED
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.results.compare.regression import judge
from dlbench.results.compare.two_studies import front_area, studies
from dlbench.tuner.front import Outcome, hypervolume
from testbed import made


def words(judgement):
    return {(c.subject, c.figure): word for c, word in judgement.judged}


@pytest.fixture(scope="module")
def usual():
    """A baseline and a recommendation, each with intervals of 2 % to either side."""
    points = (
        made.verified("default", 0.3, rate=100, p99=5, sure=0.02),
        made.verified("c01", 0.3, rate=400, p99=20, sure=0.02, recommended=True),
    )
    return made.finished(*points)


def changed(finished, **figures):
    """The same study with another recommendation's figures."""
    first = finished.result.points[0]
    newer = made.verified(
        "c01", 0.3, sure=0.02, recommended=True, **{"rate": 400, "p99": 20} | figures
    )
    return replace(finished, result=replace(finished.result, points=(first, newer)))


def test_a_study_is_as_good_as_itself(usual):
    found = judge(studies(usual, usual), tolerance=0.1)
    assert found.outcome == "no regression"
    assert {c.ratio for c in found.compared.changes} == {1.0}
    assert [c.subject for c in found.compared.changes if c.decides] == [
        "recommended",
        "recommended",
        "front",
    ]
    assert found.compared.notes[-1] == "both recommend the same configuration"


def test_half_the_throughput_at_the_same_tail_is_a_regression(usual):
    found = judge(studies(usual, changed(usual, rate=150)))
    assert words(found)["recommended", "throughput_rps"] == "regression"
    assert words(found)["default@0.3", "throughput_rps"] == "no regression"
    assert found.outcome == "regression"


@pytest.mark.parametrize(
    ("rate", "floor", "outcome"),
    [(400, "", "no regression"), (396, "3.3%", "no regression"), (320, "21%", "cannot tell")],
)
def test_what_probes_get_wrong_counts_as_far_as_the_rates_differ(rate, floor, outcome):
    """At one rate both were asked the same; else the least loss that shows is said, and the way out."""
    one, other = (
        made.finished(made.verified("c01", 0.3, rate=r, p99=20, sure=0.001, recommended=True))
        for r in (400, rate)
    )
    found = judge(studies(one, other))
    assert found.outcome == outcome
    said = " ".join(found.compared.notes)
    assert floor in said
    assert ("probe" in said) is bool(floor)
    assert ("dlbench verify" in found.reason) is (outcome == "cannot tell")


def test_the_floor_that_is_said_is_the_one_that_holds():
    """Above 21% a loss is a regression, below it is not."""

    def outcome(rate):
        points = (
            made.verified("c01", 0.3, rate=r, sure=1e-6, recommended=True) for r in (400, rate)
        )
        return judge(studies(*map(made.finished, points)), tolerance=0.0).outcome

    assert (outcome(400 * 0.78), outcome(400 * 0.80)) == ("regression", "cannot tell")


def test_two_configurations_differ_in_rate_by_what_they_are_and_by_their_probes():
    one, other = (
        made.finished(made.verified(n, 0.3, rate=400, recommended=True)) for n in ("c", "c01")
    )
    assert "probe" in studies(one, other).notes[-1]


def test_more_throughput_at_a_longer_tail_is_another_place_on_the_front(usual):
    found = judge(studies(usual, changed(usual, rate=1200, p99=60)))
    assert words(found)["recommended", "p99_ms"] == "traded"
    assert words(found)["recommended", "throughput_rps"] == "better"
    assert found.outcome != "regression"
    said = (
        r"p99_ms 3 times slower \[.*\] was traded for recommended throughput_rps 3 times higher \["
    )
    assert re.search(said, found.reason)


def test_a_gain_within_the_tolerance_excuses_no_loss(usual):
    """Surely 10 to 70 % more, at four times the p99."""
    found = judge(studies(usual, changed(usual, rate=560, p99=80)), tolerance=0.4)
    assert words(found)["recommended", "throughput_rps"] == "better"
    assert found.reason.startswith("recommended p99_ms 4 times")
    assert found.outcome == "regression"


def test_what_one_probe_may_be_wrong_by_is_no_regression(usual):
    """7 % between equal capacities, and what comes of it in the tail."""
    found = judge(studies(usual, changed(usual, rate=370, p99=19)), tolerance=0.0)
    assert found.outcome == "cannot tell"


def test_equal_studies_are_a_regression_once_in_twenty_times_at_most():
    """Probes that are 7 % off, queues that grow as those of M/M/1, and a little noise of their own."""

    def point(rng, name, capacity, share):
        load = share * rng.lognormal(0, 0.07)
        p99 = 1e3 / capacity / (1 - load) * rng.lognormal(0, 0.02)
        recommended = name == "c01"
        return made.verified(name, share, recommended, rate=load * capacity, p99=p99, sure=0.04)

    def study(seed):
        rng = np.random.default_rng(seed)
        kinds = (("default", 100, 0.5), ("c01", 400, 0.7), ("c02", 300, 0.5))
        return made.finished(*(point(rng, *kind) for kind in kinds))

    pairs = [(study(seed), study(1000 + seed)) for seed in range(60)]
    found = [judge(studies(*pair), tolerance=0.0).outcome for pair in pairs]
    assert found.count("regression") <= 3


def test_a_front_that_shrank_is_a_regression(usual):
    found = judge(studies(usual, changed(usual, rate=110, p99=20)))
    assert words(found)["front", "hypervolume"] == "regression"


def test_configurations_are_known_by_what_they_are_and_not_by_name():
    one, other = (
        made.finished(made.verified(name, config=ServingConfig(workers=3), recommended=False))
        for name in ("c01", "c07")
    )
    assert {c.subject for c in studies(one, other).changes} == {"front", "c01@0.5 / c07@0.5"}


def test_a_model_too_slow_for_the_reference_has_no_area_to_compare():
    """Every p99 beyond a second, so both areas are 0."""
    slow = made.finished(made.verified("c01", rate=5, p99=2000, sure=0.001, recommended=True))
    found = judge(studies(slow, slow))
    assert {change.subject for change in found.compared.changes} == {"recommended"}
    assert found.outcome == "no regression"


def test_what_differs_is_said_first(usual):
    other = changed(usual, p99=21)
    other = made.finished(
        *other.result.points,
        machine="Xeon, 8 cores",
        max_batch_size=[1, 64],
        versions={"numpy": "3"},
    )
    notes = studies(usual, other).notes
    assert notes[:3] == (
        "they differ in the study: machine AMD EPYC, 2 cores and Xeon, 8 cores",
        "they differ in the values searched: max_batch_size 1 8 and 1 64",
        "they differ in the versions: numpy 2.4.6 and 3",
    )
    assert notes[3].startswith("A recommends c01@0.3: 400/s [392-408] at p99 20 ms")


def test_another_load_makes_it_senseless(usual):
    other = made.finished(
        *usual.result.points, load=LoadProfile(distinct=9).model_dump(mode="json")
    )
    found = judge(studies(usual, other))
    assert (found.outcome, found.reason) == (
        "cannot tell",
        "they were measured under different loads",
    )
    assert found.compared.notes[0] == "they differ in the load: distinct 0 and 9"


def test_a_recommendation_that_is_gone_is_a_regression(usual):
    none = made.finished(usual.result.points[0])
    assert judge(studies(usual, none)).reason.startswith("B recommends nothing, but A did")
    assert judge(studies(none, usual)).outcome != "regression"


POINTS = st.lists(
    st.tuples(st.floats(1, 1000), st.floats(1, 900), st.floats(0.01, 0.5)), min_size=1, max_size=4
)


@given(POINTS)
def test_the_area_is_the_front_s_and_lies_in_its_interval(values):
    front = [made.verified(rate=rate, p99=p99, sure=sure) for rate, p99, sure in values]
    best = max(rate for rate, _, _ in values)
    area = front_area(front, best, 1000.0)
    assert area.value == hypervolume([Outcome(r, p) for r, p, _ in values], best)
    low, high = area.interval
    assert 0 <= low <= area.value <= high


def test_the_area_of_one_point_is_as_unsure_as_its_figures():
    """ln(1000 / 100) e-folds: the throughput's 0.1 of it all, the p99's 0.1 of one e-fold."""
    only = made.verified(share=0.0, rate=100, p99=100)
    ends = {"throughput_low_rps": 1e-9, "throughput_high_rps": 100.0}
    ends |= {"p99_low_ms": 100.0, "p99_high_ms": 100 * math.e}
    measured = only.measurement.model_copy(update=ends)
    area = front_area([only.model_copy(update={"measurement": measured})], 100.0, 1000.0)
    whole = math.log(10)
    assert area.value == pytest.approx(whole)
    assert area.interval[0] == pytest.approx(max(0.0, whole - math.hypot(whole, 1)), abs=0.02)


def test_without_the_interval_of_a_point_that_of_the_area_is_undetermined():
    unsure = made.verified(p99_low_ms=None, p99_high_ms=None)
    assert front_area([made.verified(), unsure], 100.0, 1000.0).interval == UNDETERMINED
    assert front_area([], 100.0, 1000.0).value == 0
