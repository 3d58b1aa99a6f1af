"""R(B) from the runs of a search, on simulated servers whose R(B) is known."""

import math

import numpy as np
import pytest

from benchmarks.simulated import rate_search as simulation
from dlbench.loadgen.control.capacity import Capacity, describe
from dlbench.loadgen.control.objective import Objective
from dlbench.loadgen.control.rate_estimate import RateEstimator
from dlbench.loadgen.control.rate_search import SearchSettings

MU = 2000.0
P99 = Objective.parse("p99<20ms")
TRUE_RPS = MU - math.log(100) / 0.020


def estimator(objective, rates_rps, server=None):
    simulated = simulation.Simulated(server or simulation.MM1(MU))
    made = RateEstimator(objective)
    for seed, rate_rps in enumerate(rates_rps):
        made.add(rate_rps, simulated.measure(rate_rps, 5.0, seed))
    return made


def test_runs_about_the_limit_give_it():
    found = estimator(P99, np.linspace(0.8, 1.1, 12) * TRUE_RPS).estimate()
    assert found.rate_rps == pytest.approx(TRUE_RPS, rel=0.05)
    assert found.low_rps < TRUE_RPS < found.high_rps
    assert found.measured


def test_the_next_run_is_where_the_limit_may_be():
    made = estimator(P99, np.linspace(0.5, 1.2, 6) * TRUE_RPS)
    found = made.estimate()
    assert found.low_rps < made.next_window().rate_rps < found.high_rps


def test_the_strictest_of_several_bounds_counts():
    rates = np.linspace(0.5, 1.05, 10) * TRUE_RPS
    both = estimator(Objective.parse("p50<200ms,p99<20ms"), rates)
    assert both.estimate() == estimator(P99, rates).estimate()


@pytest.mark.parametrize("bound", ["errors<1%", "p99<0.001ms"])
def test_nothing_is_estimated_where_there_is_no_such_rate(bound):
    assert estimator(Objective.parse(bound), [100.0, 500.0, 1000.0]).estimate() is None


def test_a_client_that_is_the_limit_says_nothing_of_the_server():
    slow = simulation.Simulated(simulation.MM1(MU), client_rps=500.0)
    made = RateEstimator(P99)
    run = slow.measure(1000.0, 5.0, 1)
    assert run.measurement.verdict == "invalid"
    made.add(1000.0, run)
    assert made.estimate() is None
    assert made.next_window() is None


def test_a_search_ends_with_runs_that_make_the_estimate_narrow():
    found = simulation.search(simulation.MM1(MU), P99, 3)
    assert found.estimate.rate_rps == pytest.approx(TRUE_RPS, rel=0.08)
    assert found.estimate.low_rps < TRUE_RPS < found.estimate.high_rps
    assert found.estimate.rate_rps > found.rate_rps  # a rate that surely held is below it
    assert any(line.startswith("estimated limit: ") for line in describe(found))
    assert Capacity.model_validate_json(found.model_dump_json(exclude={"non_monotonic"})) == found


def test_runs_that_only_refine_change_nothing_of_what_held():
    searched = simulation.search(simulation.MM1(MU), P99, 3, most_refining=0)
    refined = simulation.search(simulation.MM1(MU), P99, 3, width=0.0)
    more = len(refined.trials) - len(searched.trials)
    assert 0 < more <= SearchSettings().most_refining
    assert refined.trials[: len(searched.trials)] == searched.trials
    assert (refined.rate_rps, refined.failed_rps) == (searched.rate_rps, searched.failed_rps)
    assert refined.confirmed == searched.confirmed
