"""The findings in plain sentences."""

from dataclasses import replace

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


@pytest.fixture
def result():
    """Two workers and batches of 16 take 4,100/s within 20 ms, the default 3,796."""

    def make(row=None, slo="met", config=None, **changes):
        changed = made.DEFAULT.model_copy(update={"workers": 1, "max_batch_size": 16})
        row = row or made.bound_row(config=config or changed)
        points = (verified_point("default"), verified_point(row.configuration, config=row.config))
        known = {"points": points, "slo": slo, "bounds": (row,), "answer": row, "rule": "slo"}
        return Verified(**{**known, "compared": True, **changes})

    return make


SLO = StudyConfig(slo_p99_ms=20.0)


def test_the_first_sentence_answers_what_to_run_how_much_and_how_sure(result):
    found = findings(result(), SLO)
    assert found["answer"] == (
        "Serve it with batches of up to 16, 1 worker: 4,100 requests/s [3,895-4,305] with "
        "p99 <= 20 ms; the default takes 3,796, so 1.08x [1.04-1.12]."
    )


def test_the_rest_is_what_limits_it_and_which_knobs_mattered(result):
    insight = Insight(ERROR, 0.1, False, IMPORTANCES)
    limit = "the workers: 1, 97% busy"
    found = findings(result(insight=insight, limit=limit), SLO)
    assert list(found) == ["answer", "limit", "knobs"]
    assert found["limit"] == limit
    assert found["knobs"].startswith("workers 61%, cache_size 22% of the variation in capacity")
    assert "no single knob matters much" in found["knobs"]


@pytest.mark.parametrize(
    ("decided", "others", "says"),
    [
        (True, ("c01",), "Nothing that was tried takes more."),
        (False, ("c01",), "Nothing that was tried takes surely more."),
        (False, (), "Nothing was compared with it."),
    ],
)
def test_a_default_that_is_the_best_found_is_said_to_be(result, decided, others, says):
    row = made.bound_row("default", 3800.0, ratio=1.0, decided=decided)
    points = tuple(verified_point(name) for name in ("default", *others))
    found = findings(result(row, points=points), SLO)["answer"]
    assert found.startswith("Serve it as it is: 3,800 requests/s [3,610-3,990] with p99 <= 20 ms.")
    assert found.endswith(says)


def test_what_is_not_proved_is_said_so_and_has_something_to_run(result):
    row = made.bound_row(ratio=1.02, config=made.DEFAULT.model_copy(update={"workers": 1}))
    shaky = replace(row, ratio_low=0.8)
    found = findings(result(shaky, unknown="it is open; --budget 9m would decide it"), SLO)
    assert found["answer"].startswith("Best so far, not proved. Serve it with 1 worker: 4,100")
    assert found["doubts"] == "- it is open; --budget 9m would decide it"


def test_a_bound_that_nothing_keeps_is_said_first(result):
    found = findings(result(slo="missed"), StudyConfig(slo_p99_ms=1.0))
    assert found["answer"].startswith("Nothing that was tried keeps p99 <= 1 ms. Serve it with")


def test_there_are_at_most_three_doubts_the_worst_first(result):
    row = made.bound_row(measured=False, low_rps=2000.0, high_rps=6000.0)
    found = findings(result(row, unknown="open", drift="drifted", disturbed="by others"), SLO)
    doubts = found["doubts"].splitlines()
    assert len(doubts) == 3
    assert doubts[0] == "- open"
    assert "no load came near 4,100/s" in doubts[1]
    assert "larger --budget" in doubts[2]
    calm = findings(result(drift="drifted", disturbed="by others"), SLO)["doubts"].splitlines()
    assert calm == ["- by others; close other programs and run again", "- drifted"]


def test_another_bound_that_is_not_sure_is_a_doubt(result):
    point = verified_point(requests=100).model_copy(update={"recommended": True})
    config = StudyConfig(slo_p99_ms=20.0, slo=("error_rate<0.1%",))
    assert "error_rate<0.1% is undecided" in findings(result(points=(point,)), config)["doubts"]


def test_words_that_nobody_needs_do_not_appear(result):
    insight = Insight(ERROR, 0.44, True, IMPORTANCES)
    text = " ".join(findings(result(insight=insight), SLO).values())
    for word in ("probe", "screen", "@", "indicative", "unsteady", "twin", "undetermined"):
        assert word not in text


def test_no_recommendation_says_why():
    none = findings(Verified((), "none"), StudyConfig())
    assert none == {"answer": "No recommendation: nothing could be measured"}
    blind = findings(Verified((verified_point(),), "none"), StudyConfig(recommend="weighted"))
    assert blind["answer"] == (
        "No recommendation: what --recommend weighted goes by was not measured"
    )


def test_what_it_costs_is_said_where_there_is_a_price(result):
    row = made.bound_row(rate=200.0)
    found = findings(result(row), StudyConfig(price_per_hour=3.6))
    assert found["cost"] == "a million requests cost 5 [4.76-5.26] at 3.6 per hour"


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
