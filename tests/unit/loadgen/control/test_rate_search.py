"""The search: its decisions on servers that answer as told, its answers on simulated ones."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.simulated import rate_search
from dlbench.loadgen.control.capacity import Capacity, describe, find_capacity, plan
from dlbench.loadgen.control.objective import Objective
from dlbench.loadgen.control.rate_search import (
    Found,
    NextRate,
    RateTrial,
    SearchSettings,
    next_step,
    what_is_known,
)
from dlbench.loadgen.errors import BudgetError

P99 = Objective.parse("p99<50ms")
OUTCOMES = ["held", "failed", "saturated", "undetermined", "invalid"]
# Requests enough at any rate: what is looked at is the order of the steps.
PLENTY = SearchSettings(least_requests=1)


def drive(answer, settings=PLENTY):
    """Search a server that is a function (rate, runs before) -> outcome; all trials, and what was found."""
    tried = []
    while isinstance(step := next_step(tried, settings), NextRate):
        outcome = answer(step.rate_rps, len(tried))
        tried.append(RateTrial(step.rate_rps, step.duration_s, outcome, step.duration_s + 1))
    return tried, step


def limit(rps, beyond="saturated"):
    return lambda rate, _: "held" if rate <= rps else beyond


@given(st.floats(0.7, 4e5), st.sampled_from(["failed", "saturated"]))
def test_a_sharp_limit_is_enclosed_and_both_ends_are_seen_twice(rps, beyond):
    tried, found = drive(limit(rps, beyond))
    assert found.held_rps <= rps < found.failed_rps <= found.held_rps * 1.05
    assert found.confirmed
    assert found.failed_below_rps == ()
    for end in (found.held_rps, found.failed_rps):
        assert sum(trial.rate_rps == end for trial in tried) >= 2


@given(st.randoms(use_true_random=False), st.integers(1, 600))
def test_whatever_happens_it_ends_within_the_budget(random, budget_s):
    settings = SearchSettings(budget_s=budget_s)
    tried, found = drive(lambda *_: random.choice(OUTCOMES), settings)
    assert sum(trial.took_s for trial in tried) <= budget_s
    assert len(tried) <= settings.most_steps
    assert not (found.held_rps and found.failed_rps) or found.held_rps < found.failed_rps
    assert all(rate < found.held_rps for rate in found.failed_below_rps)


@given(st.lists(st.sampled_from(OUTCOMES), max_size=40))
def test_the_step_depends_on_what_was_tried_alone(outcomes):
    def answer(_, number):
        return outcomes[number] if number < len(outcomes) else "held"

    tried, _ = drive(answer, SearchSettings(highest_rps=1000))
    for number, trial in enumerate(tried):
        step = next_step(tried[:number], SearchSettings(highest_rps=1000))
        assert (step.rate_rps, step.duration_s) == (trial.rate_rps, trial.duration_s)


def test_the_first_steps_double_and_are_short():
    tried, _ = drive(limit(100))
    assert [trial.rate_rps for trial in tried[:5]] == [10, 20, 40, 80, 160]
    assert {trial.duration_s for trial in tried[:5]} == {2.0}


def test_a_low_rate_has_the_time_that_its_requests_need():
    settings = SearchSettings(least_requests=662, highest_rps=10, lowest_rps=10)
    tried, _ = drive(lambda *_: "undetermined", settings)
    assert sum(trial.duration_s for trial in tried) == pytest.approx(2 * 66.2)


def test_an_invalid_run_in_the_bracket_is_made_again():
    late = iter(["invalid"])

    def answer(rate, _):
        return next(late, "held") if 640 < rate < 1000 else limit(1000)(rate, _)

    tried, found = drive(answer)
    assert 950 < found.held_rps <= 1000
    assert all(trial.duration_s >= 2 for trial in tried)


def test_what_cannot_tell_gets_longer_runs_up_to_a_limit():
    tried, found = drive(lambda rate, _: "undetermined" if rate == 40 else limit(40)(rate, _))
    durations = [trial.duration_s for trial in tried if trial.rate_rps == 40]
    assert sum(durations) == PLENTY.longest_s
    assert found.undetermined_rps == (40,)
    assert 38 <= found.held_rps < 40


def test_nothing_can_tell():
    _, found = drive(lambda *_: "undetermined", SearchSettings(highest_rps=100))
    assert found.held_rps is None
    assert found.failed_rps is None
    assert not found.confirmed


def test_one_hiccup_is_asked_again_and_forgiven():
    hiccup = iter(["failed"])

    def answer(rate, _):
        return next(hiccup, "held") if rate == 80 else limit(1000)(rate, _)

    _, found = drive(answer)
    assert 950 < found.held_rps <= 1000
    assert found.failed_below_rps == ()


def test_one_saturated_run_does_not_end_the_search():
    hiccup = iter(["saturated"])

    def answer(rate, _):
        return next(hiccup, "held") if rate == 80 else limit(1000)(rate, _)

    _, found = drive(answer)
    assert 950 < found.held_rps <= 1000


def test_a_dip_is_found_and_told_after_it_failed_twice():
    tried, found = drive(lambda rate, _: "failed" if 150 < rate < 200 else limit(1000)(rate, _))
    assert 950 < found.held_rps <= 1000
    assert found.failed_below_rps == (160,)
    assert sum(trial.rate_rps == 160 for trial in tried) == 2


def test_a_server_that_fails_at_low_rates_is_found_above_them():
    _, found = drive(lambda rate, _: "failed" if rate < 100 else limit(1000)(rate, _))
    assert 950 < found.held_rps <= 1000
    assert found.failed_below_rps == (10, 20, 40, 80)


def test_where_no_rate_holds_it_goes_down_and_says_so():
    tried, found = drive(limit(0))
    assert found.held_rps is None
    assert min(trial.rate_rps for trial in tried) == 0.625
    assert found.failed_rps == 0.625


def test_the_limit_of_the_client_is_asked_twice_and_no_failure():
    tried, found = drive(limit(1000, "invalid"))
    assert found.client_limit_rps <= 1050
    assert found.failed_rps is None
    assert 950 < found.held_rps <= 1000
    assert sum(trial.rate_rps == 1280 for trial in tried) == 2


def test_one_invalid_run_is_not_the_limit_of_the_client():
    late = iter(["invalid"])

    def answer(rate, _):
        return next(late, "held") if rate == 80 else limit(1000)(rate, _)

    _, found = drive(answer)
    assert found.client_limit_rps is None
    assert 950 < found.held_rps <= 1000


def test_the_time_for_the_confirmation_is_kept():
    for budget_s in range(60, 200, 10):
        _, found = drive(limit(1000), SearchSettings(least_requests=1, budget_s=budget_s))
        assert found.held_rps >= 640
        assert found.confirmed


def test_what_holds_once_and_then_cannot_tell_leaves_the_answer_to_the_next_lower_rate():
    seen = []

    def answer(rate, _):
        seen.append(rate)
        lucky = 960 < rate <= 1000 and seen.count(rate) > 1
        return "undetermined" if lucky else limit(1000)(rate, _)

    _, found = drive(answer)
    assert found.confirmed
    assert 900 < found.held_rps <= 960
    assert 960 < found.undetermined_rps[0] <= 1000


def test_what_never_failed_has_no_upper_end():
    _, found = drive(limit(math.inf), SearchSettings(least_requests=1, highest_rps=100))
    assert found == Found(80, None, (), None, (), confirmed=True)


def test_nothing_was_tried():
    assert what_is_known([], PLENTY) == Found(None, None, (), None, (), confirmed=False)


# --- on simulated servers ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["M/M/1", "M/D/c", "M/M/1, 7 % noise", "short stalls"])
def test_the_answer_is_not_beyond_the_truth_and_not_far_below(name):
    ratios = []
    for number in range(4):
        case = rate_search.KINDS[name](number)
        capacity = rate_search.search(case.server, case.objective, number)
        assert capacity.took_s <= SearchSettings().budget_s + rate_search.TIMEOUT_S
        assert not capacity.confirmed or capacity.rate_rps < 1.05 * case.truth_rps
        ratios.append((capacity.rate_rps or 0) / case.truth_rps)
    assert sorted(ratios)[2] > 0.5


def test_a_fast_server_is_found_within_a_tenth():
    server = rate_search.MM1(5000)
    capacity = rate_search.search(server, P99, 1)
    # Sojourn times of an M/M/1 are exponential with the rate mu - lambda.
    truth_rps = 5000 - math.log(100) / 0.050
    assert 0.9 * truth_rps < capacity.rate_rps <= truth_rps
    assert capacity.confirmed


def test_a_simulated_server_that_waits_for_batches_is_reported():
    server = rate_search.FullBatches(2000, 8, 0.1)
    capacity = rate_search.search(server, P99, 1)
    assert capacity.rate_rps > 1500
    assert set(capacity.failed_below_rps) >= {10, 20, 40, 80}
    assert capacity.non_monotonic
    assert any("not monotonic" in line for line in describe(capacity))


def test_a_simulated_dip_is_reported():
    capacity = rate_search.search(rate_search.Dip(3000, 300, 500), P99, 1)
    assert capacity.rate_rps > 2500
    assert capacity.failed_below_rps == (320,)


def test_long_stalls_leave_no_rate_that_holds():
    capacity = rate_search.search(rate_search.Stalling(2000, 5.0, 0.5), P99, 1)
    assert not capacity.confirmed


def test_a_slow_client_is_named_as_the_limit():
    capacity = rate_search.search(rate_search.MM1(5000), P99, 1, client_rps=1000)
    assert 900 < capacity.rate_rps <= 1000
    assert 1000 <= capacity.client_limit_rps < 1100
    assert capacity.failed_rps is None
    assert any("the client is the limit from" in line for line in describe(capacity))


# --- the loop ----------------------------------------------------------------------------------------


def test_steps_and_trials_are_told_as_they_happen_with_fresh_seeds():
    server = rate_search.Simulated(rate_search.MM1(2000))
    seeds, heard = [], []

    def measure(rate_rps, duration_s, seed):
        seeds.append(seed)
        return server.measure(rate_rps, duration_s, seed)

    capacity = find_capacity(
        measure,
        P99,
        SearchSettings(seed=7),
        heard.append,
        on_trial=heard.append,
        clock=lambda: server.now_s,
    )
    assert seeds == list(range(7, 7 + len(capacity.trials)))
    assert heard[1::2] == list(capacity.trials)
    assert all(isinstance(step, NextRate) for step in heard[::2])
    assert capacity.complete
    assert capacity.took_s == pytest.approx(server.now_s)


def test_ctrl_c_returns_what_is_known():
    server = rate_search.Simulated(rate_search.MM1(2000))

    def measure(rate_rps, duration_s, seed):
        if rate_rps > 1000:
            raise KeyboardInterrupt
        return server.measure(rate_rps, duration_s, seed)

    capacity = find_capacity(measure, P99, SearchSettings(), clock=lambda: server.now_s)
    assert not capacity.complete
    assert len(capacity.trials) == 7
    assert "stopped early; this is the result so far" in describe(capacity)


def test_a_run_that_was_stopped_early_proves_nothing():
    server = rate_search.Simulated(rate_search.MM1(2000))

    def measure(rate_rps, duration_s, seed):
        run = server.measure(rate_rps, duration_s, seed)
        stopped = run.measurement.model_copy(update={"complete": rate_rps < 40})
        return run._replace(measurement=stopped)

    capacity = find_capacity(measure, P99, SearchSettings(), clock=lambda: server.now_s)
    assert not capacity.complete
    assert [trial.rate_rps for trial in capacity.trials] == [10, 20]


def test_a_load_that_the_client_cannot_make_is_its_limit():
    server = rate_search.Simulated(rate_search.MM1(20_000))

    def measure(rate_rps, duration_s, seed):
        if rate_rps > 1000:
            raise BudgetError("too much")
        return server.measure(rate_rps, duration_s, seed)

    capacity = find_capacity(measure, P99, SearchSettings(), clock=lambda: server.now_s)
    assert 900 < capacity.rate_rps <= 1000
    assert capacity.client_limit_rps < 1100


def test_the_answer_survives_json_and_is_told_in_plain_lines():
    capacity = rate_search.search(rate_search.MM1(5000), P99, 1)
    text = capacity.model_dump_json()
    assert '"non_monotonic":false' in text
    assert Capacity.model_validate_json(capacity.model_dump_json(exclude={"non_monotonic"})) == (
        capacity
    )
    lines = describe(capacity)
    assert "is the highest rate that met p99<50ms (" in lines[0]
    assert lines[-1].startswith(f"{len(capacity.trials)} runs, ")
    assert "300 s at the most" in plan(P99, SearchSettings())


def test_no_rate_is_said():
    server = rate_search.FullBatches(2000, 10_000, 0.1)
    capacity = rate_search.search(server, P99, 1)
    assert describe(capacity)[0] == "no rate was found that meets p99<50ms"
