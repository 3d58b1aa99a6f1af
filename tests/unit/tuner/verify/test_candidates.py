"""Which operating points are worth more repeats where a bound has to be decided."""

import pytest

from dlbench.tuner.budget import REPEAT_S, Candidate, verify_s
from dlbench.tuner.constraint import Constraints, Demand
from dlbench.tuner.point import Resources
from dlbench.tuner.study_config import StudyConfig
from dlbench.tuner.verify.candidates import candidates, contenders
from testbed import made

BOUND = Constraints((Demand("p99_ms", 20.0, "--slo-p99 20ms"),))


@pytest.fixture
def contest():
    """Who stays of candidates with these rates, given p99s of their repeats 1, 2, 3 and 4."""

    def run(**p99s):
        chosen = [Candidate(name, made.DEFAULT, 0.5, float(name.lstrip("r"))) for name in p99s]
        points = [
            made.point(name, "verify", 0.5, number, p99=p99)
            for name, own in p99s.items()
            for number, p99 in enumerate(own, start=1)
        ]
        return [c.configuration for c in contenders(chosen, points, BOUND)]

    return run


def test_those_in_question_and_the_fastest_that_holds_stay(contest):
    said = contest(
        r100=(5, 5, 5, 5), r200=(9, 9, 9, 9), r300=(19, 19, 19, 19), r400=(70, 70, 70, 70)
    )
    assert said == ["r200", "r300"]


def test_only_the_repeats_that_choose_are_looked_at(contest):
    assert contest(r100=(99, 19, 99, 19), r200=(1, 90, 1, 90)) == ["r100"]


def test_where_everything_misses_everything_stays(contest):
    assert contest(r100=(90, 90, 90, 90), r200=(90, 90, 90, 90)) == ["r100", "r200"]


def test_what_has_no_repeats_yet_is_not_dropped(contest):
    assert contest(r100=(), r200=()) == ["r100", "r200"]


def test_what_breaks_another_bound_is_no_candidate():
    """The one that fits is slower, and would not be looked at beside four that do not."""
    points = [
        made.point(f"c0{n}", share=0.5, rate=1000 + n, resources=Resources(server_rss_mb=mb))
        for n, mb in enumerate((800, 800, 800, 800, 800, 800, 800, 200))
    ]
    study = StudyConfig(max_memory="300MB")
    assert [c.configuration for c in candidates(points, [], study)] == ["c07"]


@pytest.mark.parametrize("rate", [5, 30, 1000])
def test_a_slow_model_gets_shorter_repeats_rather_than_more_time(rate):
    points = [
        made.point(f"c0{n}", share=0.5, rate=rate * (1 + n / 10), p99=10 * (1 + n))
        for n in range(6)
    ]
    chosen = candidates(points, [], StudyConfig(budget_s=300))
    assert len(chosen) >= 2
    assert verify_s(chosen) <= 0.5 * 300 + 1e-6
    assert all(c.repeat_s >= REPEAT_S for c in chosen)
    assert any(c.cut < 1 for c in chosen) == (rate < 100)


@pytest.mark.parametrize(
    ("found_rps", "asked"),
    [((80,), []), ((150,), [150]), ((290, 150, 80), [150]), ((400,), []), ((), [])],
)
def test_the_default_is_tried_beyond_what_its_one_probe_says(found_rps, asked):
    """A probe in a bad moment makes a good configuration look bad; a good moment is as likely."""
    points = [made.point("default", "probe", None, rate=100, offered_rps=None)]
    points += [made.point("default", "baseline", s, rate=100 * s) for s in (0.5, 0.9)]
    points += [
        made.point(f"c0{n}", share=0.7, rate=rps, p99=1 + rps, config=other(n))
        for n, rps in enumerate(found_rps)
    ]
    chosen = candidates(points, ["default"], StudyConfig(budget_s=600))
    beyond = [c for c in chosen if c.configuration == "default" and c.share > 0.9]
    assert [c.rate for c in beyond] == asked
    assert [c.name for c in beyond] == ["default@1.5"] * len(asked)
    assert all(c.config == made.DEFAULT for c in beyond)


def other(number):
    return made.DEFAULT.model_copy(update={"max_batch_size": 2 + number})
