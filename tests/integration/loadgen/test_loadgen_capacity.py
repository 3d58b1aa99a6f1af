"""The search for the highest rate, with the real generator and a real server."""

import pytest

from dlbench.loadgen.control.capacity import find_capacity
from dlbench.loadgen.control.generator import Generator
from dlbench.loadgen.control.objective import Objective
from dlbench.loadgen.control.rate_search import SearchSettings
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover
from testbed.servers import null_server

QUICK = SearchSettings(
    start_rps=100,
    lowest_rps=100,
    highest_rps=200,
    least_requests=40,
    widen_s=0.4,
    step_s=0.4,
    confirm_s=0.4,
    longest_s=2,
    budget_s=10_000,
)


@pytest.fixture
def search():
    """Search a URL with the real generator."""
    with Generator() as generator:

        def find(url, objective, settings, **options):
            target = discover(url, LoadProfile())

            def measure(rate_rps, duration_s, seed):
                given = LoadProfile(rate=rate_rps, duration_s=duration_s, seed=seed, warmup_s=0.1)
                run = generator.measure(target, given)
                # At so low a rate only a machine that has other things to do is in the way.
                while rate_rps <= QUICK.highest_rps and run.measurement.verdict != "ok":
                    run = generator.measure(target, given)
                return run

            return find_capacity(measure, Objective.parse(objective), settings, **options)

        yield find


def test_a_bound_far_above_the_delay_holds_and_one_below_it_does_not(search):
    with null_server("--delay-ms", 500) as url:
        above = search(url, "p80<5s", QUICK)
        below = search(url, "p80<100ms", QUICK)
    # Replies that a busy machine bunches tell less, so a rate may stay undetermined.
    assert 100 <= above.rate_rps <= 200
    assert above.confirmed
    assert above.failed_rps is None
    assert {trial.outcome for trial in above.trials} <= {"held", "undetermined"}
    assert below.rate_rps is None
    assert below.failed_rps == 100
    assert {trial.outcome for trial in below.trials} <= {"failed", "undetermined"}


@pytest.mark.slow
def test_each_run_has_a_schedule_of_its_own(search):
    with null_server() as url:
        found = search(url, "p80<2s", QUICK)
    twice = [trial.seen for trial in found.trials if trial.rate_rps == found.rate_rps]
    assert len(set(twice)) == len(twice) >= 2


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_null_server_at_its_limit(search):
    settings = SearchSettings(start_rps=1000, budget_s=90)
    with null_server("--delay-ms", 2) as url:
        found = search(url, "p99<50ms,errors<1%", settings)
    assert found.complete
    assert found.rate_rps > 0
    assert found.failed_rps or found.client_limit_rps or found.undetermined_rps
    assert found.took_s < 150
