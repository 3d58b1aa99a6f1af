"""The findings in plain sentences."""

import pytest

from dlbench.loadgen.quantity import digits
from dlbench.results.findings import findings, numbers
from dlbench.tuner.search.importance import Importances
from dlbench.tuner.search.insight import Insight
from dlbench.tuner.search.twin_error import Off, TwinError
from dlbench.tuner.study_config import StudyConfig
from dlbench.tuner.verify.verification import Verified
from testbed import made

ERROR = TwinError(Off(0.08, 0.2, 12), Off(0.21, 0.7, 40))
IMPORTANCES = Importances({"workers": 0.61, "cache_size": 0.22, "max_batch_size": 0.02}, {})


def verified_point(name="c01", rate=200.0, p99=10.0, config=made.DEFAULT, **changes):
    """A reported point with intervals of 10 %."""
    known = {"rate": rate, "p99": p99, "sure": 0.1, "requests": 2400}
    return made.point(name, "verify", config=config, **{**known, **changes})


def pick(**changes):
    config = made.DEFAULT.model_copy(update={"workers": 1, "max_batch_size": 32})
    return verified_point(config=config, recommended=True, on_front=True, **changes)


def test_a_person_is_told_in_five_lines():
    naive = verified_point("naive", 50.0, 8.0, made.DEFAULT.model_copy(update={"workers": 4}))
    default = verified_point("default", 195.0, 9.8)
    insight = Insight(ERROR, 0.1, False, IMPORTANCES)
    limit = "the workers: 1, 97% busy"
    result = Verified((pick(), naive, default), "met", insight=insight, limit=limit)
    found = findings(result, StudyConfig(slo_p99_ms=20))
    assert list(found) == ["use", "gain", "limit", "knobs", "uncertain"]
    assert "c01@0.5, max_batch_size 32, workers 1: 200/s [182-220] at p99 10 ms" in found["use"]
    assert "p99<20ms met by the whole 95 % interval" in found["use"]
    against_naive, against_default = found["gain"].split("; ")
    assert against_naive == (
        "against naive: throughput 4 times higher [3.5 to 4.58 times higher], "
        "p99 25 % higher [9.2 to 43 % higher]"
    )
    assert against_default.startswith("against default: throughput 2.6 % higher [")
    assert against_default.endswith(", no significant difference")
    assert found["limit"] == "the workers: 1, 97% busy"
    assert found["knobs"].startswith("workers 61%, cache_size 22% of the variation in capacity")
    assert "no single knob matters much of the variation in p99" in found["knobs"]
    assert "off by 8% in throughput and 21% in p99 in the median, 20% and 70%" in found["uncertain"]
    assert "WRONG" not in found["uncertain"]
    assert not any("\n" in text for text in found.values())


def test_an_undecided_slo_says_which_way_it_looks():
    result = Verified((pick(),), "undecided")
    found = findings(result, StudyConfig(slo_p99_ms=10.5, budget_s=300))
    assert "p99<10.5ms is UNDECIDED: probably met" in found["uncertain"]
    assert "the 95 % interval crosses it" in found["uncertain"]
    assert "--budget" not in found["uncertain"]
    assert "met" not in found["use"]


def test_a_bound_that_is_surely_missed_is_said_first():
    found = findings(Verified((pick(),), "missed"), StudyConfig(slo_p99_ms=5))
    assert "p99<5ms MISSED" in found["use"]
    assert "UNDECIDED" not in found.get("uncertain", "")


def test_what_is_uncertain_about_the_recommendation_is_said():
    bare = made.point(rate=200, requests=500, verdict="unsteady", reason="it stalled")
    bare = bare.model_copy(update={"on_front": True, "recommended": True})
    found = findings(
        Verified((bare,), "none", drift="the machine drifted", disturbed="by others"), StudyConfig()
    )
    assert "200/s [undetermined] at p99 10 ms" in found["use"]
    for doubt in (
        *("indicative, from 500 requests", "the interval of p99 is undetermined", "it stalled"),
        *("the front is a single point", "the machine drifted", "by others"),
    ):
        assert doubt in found["uncertain"]
    smoothed = findings(Verified((pick(),), "none", smoothed=("c01@0.5",)), StudyConfig())
    assert "smoothed over the study" in smoothed["uncertain"]


def test_a_wrong_twin_is_called_wrong_and_what_was_done_about_it():
    insight = Insight(ERROR, 0.44, True, IMPORTANCES)
    found = findings(Verified((pick(),), "none", insight=insight), StudyConfig())
    assert "the twin is WRONG here, its errors spread by 0.44" in found["uncertain"]
    assert "every third proposal did not come from it" in found["uncertain"]


def test_ratios_without_intervals_are_undetermined_and_failed_baselines_no_gain():
    unknown = made.point("naive", rate=100, config=made.DEFAULT)
    saturated = made.point("default", "verify", rate=90, verdict="saturated")
    found = findings(Verified((pick(), unknown, saturated), "none"), StudyConfig())
    assert "against naive: throughput 2 times higher [undetermined], p99" in found["gain"]
    assert "default failed re-measurement" in found["gain"]


def test_the_default_recommended_is_called_the_default():
    same = verified_point("default", recommended=True, on_front=True)
    found = findings(Verified((same,), "none"), StudyConfig())
    assert "the default configuration" in found["use"]
    assert found["gain"] == "default is the same configuration"


def test_what_there_was_no_time_for_has_a_line_of_its_own():
    text = "the budget left no time to measure naive; a --budget of about 9m leaves nothing out"
    found = findings(Verified((pick(),), "none", unknown=text), StudyConfig())
    assert found["unknown"] == text
    assert "unknown" not in findings(Verified((pick(),), "none"), StudyConfig())


def test_no_recommendation_says_why():
    front = verified_point(p99=50.0, on_front=True)
    missed = findings(Verified((front,), "missed"), StudyConfig(slo_p99_ms=20))
    assert missed["use"].startswith("No recommendation: no operating point meets every bound")
    assert "c01@0.5, 200/s [182-220] at p99 50 ms" in missed["use"]
    near = findings(Verified((front,), "undecided"), StudyConfig(slo_p99_ms=48))
    assert "p99<48ms is UNDECIDED: probably missed" in near["uncertain"]
    blind = findings(Verified((front,), "none"), StudyConfig(recommend="weighted"))
    assert (
        blind["use"]
        == "No recommendation: the figure that --recommend weighted uses was not measured"
    )
    none = findings(Verified((), "none"), StudyConfig())
    assert none == {"use": "No recommendation: nothing was measured again"}


def test_what_it_costs_is_said_where_there_is_a_price():
    found = findings(Verified((pick(),), "none"), StudyConfig(price_per_hour=3.6))
    assert "a million requests cost 5 [4.55-5.5] at 3.6 per hour" in found["use"]


def test_numbers_have_their_intervals():
    assert numbers(verified_point()) == "200/s [182-220] at p99 10 ms [9.09-11]"


@pytest.mark.parametrize(
    ("value", "count", "text"),
    [
        *((1490.2, 3, "1,490"), (0.12345, 3, "0.123"), (99.96, 3, "100"), (28.6, 2, "29")),
        *((123456.0, 1, "123,456"), (3.14, 2, "3.1"), (182.4, 1, "182"), (999.7, 3, "1,000")),
    ],
)
def test_figures_are_never_powers_of_ten(value, count, text):
    assert digits(value, count) == text
